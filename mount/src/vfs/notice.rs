//! What the kernel is told unasked.
//!
//! The kernel takes page and inode locks before it returns from such a write, and may need an answer of ours to get
//! them: so notices are queued here and written by a thread that serves nothing (`fuse::device`).

use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};

use super::inode::Inode;

/// Notices that may wait. Beyond it the newest are dropped: attribute time-outs cover for them.
const NOTICES_MAX: usize = 65_536;

/// One notice.
#[derive(Clone, Debug)]
pub enum Notice {
    /// Forget the pages and attributes of an inode: somebody else changed it.
    Pages {
        /// The inode.
        inode: Arc<Inode>,
        /// Which change; given back to `Inode::pages_dropped`.
        change: u64,
    },
}

/// The queue of notices.
#[derive(Clone, Debug)]
pub struct Notices {
    sender: Sender<Notice>,
}

impl Notices {
    /// A queue and its end, for the thread that writes them.
    #[must_use]
    pub fn new() -> (Self, Receiver<Notice>) {
        let (sender, receiver) = bounded(NOTICES_MAX);
        (Self { sender }, receiver)
    }

    /// Queues a notice; never waits.
    pub fn post(&self, notice: Notice) {
        match self.sender.try_send(notice) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(notice)) => {
                tracing::warn!(?notice, "too many notices wait for the kernel, one was dropped");
            }
        }
    }
}
