//! Block requests: served on this core, beside the volume thread.

use std::rc::Rc;
use std::sync::Arc;

use flexfs_wire::errno::Errno;
use flexfs_wire::id::{BlockId, Commit, RequestId};
use flexfs_wire::lease::Leases;
use flexfs_wire::message::{Answer, Reply};
use flexfs_wire::time::Time;
use tokio::sync::OwnedSemaphorePermit;

use super::core::Core;
use super::link::Link;
use crate::blocks::{self, Unserved, Wanted};
use crate::volume::{Shared, Stamp};

/// A block request and where its answer goes.
pub(super) struct Task {
    pub(super) core: Rc<Core>,
    pub(super) link: Rc<Link>,
    pub(super) session: Arc<Shared>,
    pub(super) request: RequestId,
    pub(super) stamp: Stamp,
}

/// Serves `PutBlock`. `room` is held while the payload is in memory.
pub(super) async fn put(task: Task, block: BlockId, payload: Vec<u8>, room: Vec<OwnedSemaphorePermit>) {
    let bytes = payload.len() as u64;
    let result = blocks::put(&task.core.blocks, &task.session, block, payload).await;
    drop(room);
    if result.is_ok() {
        task.core.metrics.block_bytes_in.increment(bytes);
    }
    match result {
        Ok(()) => task.answer(Ok(Reply::Done), Vec::new(), Vec::new()),
        Err(unserved) => task.end(unserved),
    }
}

/// Serves `ReadBlock`.
pub(super) async fn read(task: Task, wanted: Wanted) {
    match fetch(&task, wanted).await {
        Ok((reply, payload, room)) => {
            task.core.metrics.block_bytes_out.increment(payload.len() as u64);
            task.answer(Ok(reply), payload, room);
        }
        Err(unserved) => task.end(unserved),
    }
}

async fn fetch(task: &Task, wanted: Wanted) -> Result<(Reply, Vec<u8>, Vec<OwnedSemaphorePermit>), Unserved> {
    let found = blocks::locate(&task.core.blocks, &task.session, wanted).await?;
    // Held until the bytes are sealed: a slow reader holds its own share, not the core's memory.
    let room = task.core.block_room(&task.link, found.bytes()).await;
    let payload = found.fetch().await?;
    Ok((Reply::Segments(found.segments), payload, room))
}

impl Task {
    fn end(&self, unserved: Unserved) {
        match unserved {
            Unserved::Refused(errno) => self.answer(Err(errno), Vec::new(), Vec::new()),
            // An error would reach a program; on its next link the client asks again.
            Unserved::VolumeEnded => self.link.close(),
        }
    }

    fn answer(&self, result: Result<Reply, Errno>, payload: Vec<u8>, room: Vec<OwnedSemaphorePermit>) {
        let answer = Answer { commit: Commit(0), at: Time::default(), result };
        self.link.answer_with(&self.core, self.request, self.stamp, answer, Leases::NONE, payload, room);
    }
}
