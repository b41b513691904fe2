//! Hosted blocks: files in the volume's folder, written and read on the connection's core through its ring.
//!
//! ```text
//! VOLUME/blocks/<bits 8..16 of the id, 2 hex>/<id, 16 hex>        a stored block, complete and on stable storage
//! VOLUME/blocks/<..>/<id, 16 hex>.new                             being written; swept when old
//! ```
//! The 256 ids of a usual grant share a folder, so that one sync of the folder serves many of them.

mod collector;
mod folder;
mod path;
mod put;
mod read;
mod store;

use std::rc::Rc;
use std::sync::Arc;

use flexfs_wire::errno::Errno;
use flexfs_wire::id::{Commit, RequestId};
use flexfs_wire::message::{Answer, Reply};
use flexfs_wire::time::Time;
use tokio::sync::OwnedSemaphorePermit;

use crate::net::{Core, Link};
use crate::session::Shared;
use crate::volume::Stamp;

pub(crate) use collector::start as start_collector;
pub(crate) use put::put;
pub(crate) use read::{Wanted, read};
pub(crate) use store::Store;

/// A block request and where its answer goes.
pub(crate) struct Task {
    pub(crate) core: Rc<Core>,
    pub(crate) link: Rc<Link>,
    pub(crate) session: Arc<Shared>,
    pub(crate) request: RequestId,
    pub(crate) stamp: Stamp,
}

impl Task {
    fn answer(&self, result: Result<Reply, Errno>, payload: Vec<u8>, room: Vec<OwnedSemaphorePermit>) {
        let answer = Answer { commit: Commit(0), at: Time::default(), result };
        self.link.answer_with(&self.core, self.request, self.stamp, answer, payload, room);
    }
}
