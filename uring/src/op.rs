//! An operation in flight, as a future. The future holds the slot's key; the slot holds the memory.
#![expect(unsafe_code, reason = "starts kernel operations on memory that their slots own")]

use std::future::Future;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use io_uring::squeue::Entry128;
use io_uring::{opcode, types};

use crate::ring::wide;
use crate::shard::Core;
use crate::slot::{Completion, Hold, IGNORED, Kind, SlotKey};
use crate::sys;

/// The descriptor an operation works on, kept open until it has completed.
pub(crate) type SharedFd = Arc<OwnedFd>;

/// An operation in flight. Dropping it orphans the slot and asks the kernel to cancel; it frees no memory in use.
pub(crate) struct Op {
    core: Rc<Core>,
    key: SlotKey,
    kind: Kind,
    finished: bool,
}

impl Op {
    /// Queues an operation on this shard's ring; the kernel gets it at the end of the turn.
    ///
    /// A refusal by the ring (closed, no memory) is its completion.
    ///
    /// # Safety
    /// All memory the entry refers to must be owned by `hold` (or by the shard's buffer pool), at an address that
    /// does not change when `hold` is moved.
    pub(crate) unsafe fn start(
        core: &Rc<Core>,
        mut entry: Entry128,
        hold: Hold,
        fd: Option<SharedFd>,
        kind: Kind,
    ) -> Self {
        let key = core.slots.borrow_mut().insert(hold, fd, kind);
        entry.set_user_data(key.user_data());
        // SAFETY: the slot owns the memory until the last completion was filed; when the ring is closed with the
        // operation unfinished, the slot's memory is leaked (Slots::leak_unfinished).
        let pushed = unsafe { core.ring.borrow_mut().push(&entry) };
        if let Err(error) = pushed {
            let res = -error.raw_os_error().unwrap_or(rustix::io::Errno::IO.raw_os_error());
            core.file(key.user_data(), Completion { res, flags: 0 });
        }
        Self { core: Rc::clone(core), key, kind, finished: false }
    }

    /// The next completion of a multishot operation, and whether it was the last.
    pub(crate) fn poll_next(&mut self, cx: &Context<'_>) -> Poll<(Completion, Option<Hold>)> {
        assert!(!self.finished, "an operation was polled after its last completion");
        let taken = self.core.slots.borrow_mut().take(self.key, Some(cx.waker()));
        match taken {
            Some((completion, hold)) => {
                self.finished = hold.is_some();
                Poll::Ready((completion, hold))
            }
            None => Poll::Pending,
        }
    }

    /// The next completion if it is already there.
    pub(crate) fn try_next(&mut self) -> Option<(Completion, Option<Hold>)> {
        if self.finished {
            return None;
        }
        let taken = self.core.slots.borrow_mut().take(self.key, None)?;
        self.finished = taken.1.is_some();
        Some(taken)
    }

    /// Looks at the next completion without taking it.
    pub(crate) fn peek(&self) -> Option<Completion> {
        if self.finished { None } else { self.core.slots.borrow_mut().peek(self.key) }
    }

    /// Waits for an operation whose result is a new descriptor.
    pub(crate) async fn into_descriptor(self) -> io::Result<OwnedFd> {
        assert_eq!(self.kind, Kind::Descriptor, "this operation makes no descriptor");
        let (res, _) = self.await;
        // SAFETY: the result is that of an operation that makes a descriptor, taken over here only.
        unsafe { adopt(res) }
    }

    /// Lets the operation run on with nobody waiting.
    pub(crate) fn detach(mut self) {
        let (left, kind, _) = self.core.slots.borrow_mut().orphan(self.key);
        for completion in left {
            self.core.discard(completion, kind, None);
        }
        self.finished = true;
    }

    /// Asks the kernel to stop; the last completion still arrives, with ECANCELED or with what came first.
    pub(crate) fn cancel(&self) {
        if !self.finished {
            cancel(&self.core, self.key);
        }
    }
}

impl Future for Op {
    /// The result and the memory.
    type Output = (i32, Hold);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.poll_next(cx) {
            Poll::Ready((completion, hold)) => Poll::Ready((completion.res, hold.unwrap_or(Hold::Nothing))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Op {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let (left, kind, running) = self.core.slots.borrow_mut().orphan(self.key);
        for completion in left {
            self.core.discard(completion, kind, None);
        }
        if running {
            cancel(&self.core, self.key);
        }
    }
}

impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Op").field("key", &self.key).field("finished", &self.finished).finish()
    }
}

/// Takes over the descriptor in the result of an operation of [`Kind::Descriptor`].
///
/// # Safety
/// `res` must be that result, and taken over once.
pub(crate) unsafe fn adopt(res: i32) -> io::Result<OwnedFd> {
    sys::outcome(res)?;
    // SAFETY: the kernel made this descriptor for the operation, and the caller is its only taker.
    Ok(unsafe { OwnedFd::from_raw_fd(res) })
}

/// Queues a cancellation; what it answers is of no interest (done, too late, or not cancellable).
fn cancel(core: &Rc<Core>, key: SlotKey) {
    push_ignored(core, opcode::AsyncCancel::new(key.user_data()).build());
}

/// Queues a cancellation of everything in flight.
pub(crate) fn cancel_all(core: &Rc<Core>) {
    push_ignored(core, opcode::AsyncCancel2::new(types::CancelBuilder::any()).build());
}

fn push_ignored(core: &Rc<Core>, entry: io_uring::squeue::Entry) {
    let entry = wide(entry.user_data(IGNORED));
    // SAFETY: a cancellation refers to no memory.
    let pushed = unsafe { core.ring.borrow_mut().push(&entry) };
    if let Err(error) = pushed {
        // The operation then runs to its own end; its slot keeps the memory as long.
        tracing::debug!(%error, "a cancellation could not be queued");
    }
}
