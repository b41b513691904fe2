//! A shard's inbox: the only part of a shard other threads touch.
//!
//! The queue's growth is bounded by its senders: a task is queued at most once however often it is woken, and each
//! spawn is one call of a holder of the handle. A sender wakes the shard only when it sleeps or is about to: the
//! shard announces its sleep, then looks into the queue once more; the sender posts, then looks at the announcement.
#![expect(unsafe_code, reason = "replaces the descriptor of a closed ring in place, and queues MSG_RING")]

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam::queue::SegQueue;
use io_uring::opcode;
use io_uring::types::Fd;
use rustix::event::EventfdFlags;
use rustix::io::DupFlags;

use crate::op::{Op, SharedFd};
use crate::ring::wide;
use crate::shard::{Core, try_current};
use crate::slot::{Hold, Kind, WAKE};

/// One message to a shard.
pub(crate) enum Letter {
    /// Run this task.
    Wake(u64),
    /// Call this on the shard's thread; it spawns a task.
    Call(Box<dyn FnOnce() + Send>),
}

/// The inbox.
pub(crate) struct Mailbox {
    queue: SegQueue<Letter>,
    sleeping: AtomicBool,
    closed: AtomicBool,
    /// A duplicate of the ring's descriptor, the target of MSG_RING. When the shard ends, the same number is made to
    /// refer to /dev/null: the ring is closed at once, and late wake-ups hit nothing instead of a reused number.
    ring_fd: OwnedFd,
    /// For senders without a ring. Shared with the shard's read of it.
    event_fd: SharedFd,
}

impl Mailbox {
    pub(crate) fn new(ring_fd: RawFd) -> io::Result<Self> {
        // SAFETY: the caller's ring is open and stays so during this call.
        let ring = unsafe { BorrowedFd::borrow_raw(ring_fd) };
        Ok(Self {
            queue: SegQueue::new(),
            sleeping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            ring_fd: ring.try_clone_to_owned()?,
            event_fd: Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?),
        })
    }

    /// Posts a letter and wakes the shard if it sleeps. `false` when the shard has ended.
    pub(crate) fn post(self: &Arc<Self>, letter: Letter) -> bool {
        if self.closed.load(Ordering::Acquire) {
            return false;
        }
        self.queue.push(letter);
        if self.closed.load(Ordering::SeqCst) {
            // Closed between the look and the push: nobody will open it, and a letter may hold a handle of this
            // very mailbox, which would keep both for ever.
            self.close();
            return false;
        }
        // Pairs with the fence in `announce_sleep`: either the shard sees the letter or we see it asleep.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel) {
            self.wake_shard();
        }
        true
    }

    /// From a shard's thread by its ring, with the rest of its turn; from any other thread by the eventfd.
    fn wake_shard(self: &Arc<Self>) {
        match try_current() {
            Some(core) if !Arc::ptr_eq(&core.mailbox, self) => self.send_message(&core),
            _ => self.ring_bell(),
        }
    }

    fn send_message(self: &Arc<Self>, core: &Rc<Core>) {
        let entry = opcode::MsgRingData::new(Fd(self.ring_fd.as_raw_fd()), 0, WAKE, None).build();
        // SAFETY: MSG_RING with data refers to no memory; the hold keeps the target's descriptor number.
        let op = unsafe { Op::start(core, wide(entry), Hold::Peer(Arc::clone(self)), None, Kind::Wakeup) };
        // The slot is an orphan from birth; dropping the future would only ask for a pointless cancellation.
        op.detach();
    }

    /// Wakes the shard through its eventfd.
    pub(crate) fn ring_bell(&self) {
        let rung = rustix::io::write(&*self.event_fd, &1_u64.to_ne_bytes());
        // EAGAIN cannot come (the counter would have to reach 2^64 - 2); anything else is a closed shard's.
        debug_assert!(rung.is_ok() || self.closed.load(Ordering::Acquire), "eventfd write failed: {rung:?}");
    }

    /// The next letter.
    pub(crate) fn open(&self) -> Option<Letter> {
        self.queue.pop()
    }

    /// Announces that the shard is about to wait; `false` when a letter came first and it must not.
    pub(crate) fn announce_sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.queue.is_empty() {
            return true;
        }
        self.sleeping.store(false, Ordering::Relaxed);
        false
    }

    /// The wait is over; senders need not wake.
    pub(crate) fn announce_awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// The descriptor the shard reads to be woken.
    pub(crate) fn event_fd(&self) -> &SharedFd {
        &self.event_fd
    }

    /// Refuses further letters and drops those in the box.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        while self.queue.pop().is_some() {}
    }

    /// Lets go of the ring, under the same descriptor number.
    pub(crate) fn release_ring(&self) {
        let Ok(null) = std::fs::File::open("/dev/null") else {
            // Without it the ring stays open until the last handle is gone; nothing in it is running any more.
            tracing::warn!(
                "cannot open /dev/null; a closed shard's ring stays open until its handles are dropped"
            );
            return;
        };
        // SAFETY: the number is that of `self.ring_fd`, which stays its owner: the second owner is never dropped.
        // JUSTIFICATION: dup3 wants `&mut OwnedFd`, but senders use the number from other threads meanwhile, which
        // dup3 allows, being atomic; a lock would have to be held from queueing to submission.
        let mut number = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(self.ring_fd.as_raw_fd()) });
        if let Err(error) = rustix::io::dup3(null.as_fd(), &mut number, DupFlags::CLOEXEC) {
            tracing::warn!(%error, "a closed shard's ring stays open until its handles are dropped");
        }
    }
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox").field("letters", &self.queue.len()).field("closed", &self.closed).finish()
    }
}
