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
use super::pace;
use crate::blocks::{self, Found, Unserved, Wanted};
use crate::payload::Payload;
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
pub(super) async fn put(task: Task, block: BlockId, payload: Payload, room: Vec<OwnedSemaphorePermit>) {
    let bytes = payload.len() as u64;
    let result = blocks::put(&task.core.blocks, &task.session, block, payload).await;
    drop(room);
    match result {
        Ok(()) => {
            task.core.metrics.block_bytes_in.increment(bytes);
            task.answer_stored(bytes);
        }
        Err(unserved) => task.end(unserved),
    }
}

/// Serves `ReadBlock` and `ReadPages`.
pub(super) async fn read(task: Task, wanted: Wanted) {
    if let Some((task, found)) = find(task, wanted).await {
        send(task, found).await;
    }
}

/// Finds what is to be read; a refusal is answered here.
pub(super) async fn find(task: Task, wanted: Wanted) -> Option<(Task, Found)> {
    match blocks::locate(&task.core.blocks, &task.session, wanted).await {
        Ok(found) => Some((task, found)),
        Err(unserved) => {
            task.end(unserved);
            None
        }
    }
}

/// Reads what was found, and answers.
pub(super) async fn send(task: Task, found: Found) {
    // Held until the bytes are sealed: a slow reader holds its own share, not the core's memory.
    let room = task.core.block_room(&task.link, found.bytes()).await;
    match found.fetch().await {
        Ok(payload) => {
            task.core.metrics.block_bytes_out.increment(payload.len() as u64);
            task.answer(Ok(found.reply), payload, room);
        }
        Err(unserved) => task.end(unserved),
    }
}

impl Task {
    /// A block is stored: says so, when it is the turn of so many bytes.
    fn answer_stored(self, bytes: u64) {
        if self.session.info.limiter.is_on() {
            pace::submit_stored(self, bytes);
        } else {
            self.answer(Ok(Reply::Done), Vec::new(), Vec::new());
        }
    }

    fn end(&self, unserved: Unserved) {
        match unserved {
            Unserved::Refused(errno) => self.answer(Err(errno), Vec::new(), Vec::new()),
            // An error would reach a program; on its next link the client asks again.
            Unserved::VolumeEnded => self.link.close(),
        }
    }

    pub(super) fn answer(
        &self,
        result: Result<Reply, Errno>,
        payload: Vec<u8>,
        room: Vec<OwnedSemaphorePermit>,
    ) {
        let answer = Answer { commit: Commit(0), at: Time::default(), result };
        self.link.answer_with(&self.core, self.request, self.stamp, answer, Leases::NONE, payload, room);
    }
}
