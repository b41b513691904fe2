//! A shard: one pinned thread, one ring, one executor, and the loop that turns them.
//!
//! One turn: open the mail, run every task that is ready, hand all new submissions to the kernel in one
//! `io_uring_enter(2)` that also waits when nothing is ready, take the completions to a local queue, give them to
//! their slots, fire timers. Completions are never handled where they are reaped.
#![expect(unsafe_code, reason = "closes descriptors that arrived for nobody")]

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use io_uring::cqueue;

use crate::buffer::Pool;
use crate::executor::{Executor, JoinHandle, MAIN, TaskWaker, spawn_on};
use crate::file::File;
use crate::mailbox::{Letter, Mailbox};
use crate::ring::{self, Ring, StartError};
use crate::slot::{Completion, Filed, Hold, IGNORED, Kind, Slots, WAKE};
use crate::timer::Timers;
use crate::{clock, cpu, fuse, op};

/// How long a leaving shard waits for cancelled operations. Sockets and pipes answer at once; a read of a dead
/// network file system may never, and its memory is then leaked instead of freed.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// How a shard is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardConfig {
    /// The CPU the thread is pinned to; unpinned without one (tests, tools).
    pub cpu: Option<u32>,
    /// Submission queue entries, rounded up to a power of two within 8..=4096. More operations than this in one
    /// turn cost one more system call, nothing else.
    pub sq_entries: u32,
    /// Provided receive buffers, rounded up to a power of two; 0 for a shard without multishot receives.
    pub recv_buffers: u16,
    /// Bytes of one receive buffer.
    pub recv_buffer_bytes: u32,
}

impl Default for ShardConfig {
    fn default() -> Self {
        // 64 x 16 KiB = 1 MiB: one largest FUSE reply in flight, a TLS record per buffer.
        Self { cpu: None, sq_entries: 256, recv_buffers: 64, recv_buffer_bytes: 16 << 10 }
    }
}

/// What the futures of a shard share. Field order is drop order: the ring goes before the memory it may refer to.
pub(crate) struct Core {
    pub(crate) ring: RefCell<Ring>,
    pub(crate) slots: RefCell<Slots>,
    pub(crate) pool: Option<Rc<Pool>>,
    pub(crate) timers: RefCell<Timers>,
    pub(crate) executor: Executor,
    pub(crate) mailbox: Arc<Mailbox>,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
}

/// The shard whose `block_on` runs on this thread.
pub(crate) fn try_current() -> Option<Rc<Core>> {
    // A thread that is being torn down has no shard any more.
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

/// Like [`try_current`], for code that only makes sense on a shard.
#[track_caller]
pub(crate) fn current() -> Rc<Core> {
    try_current().expect("only futures run by Shard::block_on may use this crate's operations")
}

/// Spawns a task on the current shard. The handle gives its output; dropping the handle lets the task run on.
///
/// # Panics
/// Outside of [`Shard::block_on`].
#[track_caller]
pub fn spawn<F: Future + 'static>(future: F) -> JoinHandle<F::Output> {
    spawn_on(&current(), future)
}

/// The handle of the current shard.
///
/// # Panics
/// Outside of [`Shard::block_on`].
#[track_caller]
pub fn handle() -> ShardHandle {
    ShardHandle { mailbox: Arc::clone(&current().mailbox) }
}

/// The runtime of one core. It belongs to the thread that made it: `new` pins that thread, and the kernel accepts
/// submissions from no other (IORING_SETUP_SINGLE_ISSUER).
#[derive(Debug)]
pub struct Shard {
    core: Rc<Core>,
}

impl Shard {
    /// Makes a shard on the calling thread, which is pinned if the configuration says so.
    ///
    /// # Errors
    /// [`StartError`], whose text says what to do.
    pub fn new(config: &ShardConfig) -> Result<Self, StartError> {
        if let Some(cpu) = config.cpu {
            // Before any memory is touched, so that it comes from the CPU's own node.
            cpu::pin(cpu).map_err(|source| StartError::Pin { cpu, source })?;
        }
        let ring = Ring::new(config.sq_entries)?;
        let pool = match config.recv_buffers {
            0 => None,
            count => Some(
                Pool::new(&ring, count, config.recv_buffer_bytes)
                    .map_err(|source| StartError::Call { call: "io_uring_register(pbuf_ring)", source })?,
            ),
        };
        let mailbox = Mailbox::new(ring.raw_fd())
            .map_err(|source| StartError::Call { call: "eventfd or dup", source })?;
        let core = Core {
            ring: RefCell::new(ring),
            slots: RefCell::default(),
            pool,
            timers: RefCell::default(),
            executor: Executor::default(),
            mailbox: Arc::new(mailbox),
        };
        Ok(Self { core: Rc::new(core) })
    }

    /// A handle for other threads.
    pub fn handle(&self) -> ShardHandle {
        ShardHandle { mailbox: Arc::clone(&self.core.mailbox) }
    }

    /// Runs `future` and everything it spawns until it is ready, then ends the shard: remaining tasks are dropped,
    /// operations in flight cancelled and drained, the ring closed, and only then memory unmapped.
    ///
    /// # Panics
    /// When called inside another shard's `block_on`, or when the ring itself fails.
    pub fn block_on<F: Future>(self, future: F) -> F::Output {
        let _current = Current::enter(&self.core);
        // Declared after `_current` and so dropped before it: destructors of tasks find their shard.
        let shard = self;
        let bell = File::from(Arc::clone(shard.core.mailbox.event_fd()));
        drop(spawn_on(&shard.core, listen(bell)));
        shard.core.run(future)
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.core.leave();
    }
}

/// Reads the eventfd for ever: each of its completions ends a wait, and the mail is opened every turn.
async fn listen(bell: File) {
    let mut buffer = Vec::with_capacity(size_of::<u64>());
    loop {
        buffer.clear();
        let (read, back) = bell.read(buffer).await;
        buffer = back;
        if let Err(error) = read {
            // Only a leaving shard cancels this read.
            tracing::debug!(%error, "the shard no longer listens to its eventfd");
            return;
        }
    }
}

/// Makes a core the thread's current one for a scope.
struct Current;

impl Current {
    fn enter(core: &Rc<Core>) -> Self {
        CURRENT.with(|current| {
            let mut current = current.borrow_mut();
            assert!(current.is_none(), "block_on was called inside another shard's block_on");
            *current = Some(Rc::clone(core));
        });
        Self
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        let core = CURRENT.with(|current| current.borrow_mut().take());
        drop(core);
    }
}

impl Core {
    /// Turns the loop until `future` is ready.
    fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let flag = TaskWaker::new(&self.mailbox, MAIN);
        let waker = Waker::from(Arc::clone(&flag));
        waker.wake_by_ref();
        loop {
            self.open_mail();
            // Only those that are ready now: what they wake runs after the kernel had its turn.
            for _ in 0..self.executor.ready_count() {
                match self.executor.pop_ready() {
                    Some(MAIN) => {
                        flag.queued.swap(false, Ordering::AcqRel);
                        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                            return output;
                        }
                    }
                    Some(key) => self.executor.run(key),
                    None => break,
                }
            }
            self.visit_kernel();
            self.fire_timers();
        }
    }

    fn open_mail(&self) {
        while let Some(letter) = self.mailbox.open() {
            match letter {
                Letter::Wake(key) => self.executor.make_ready(key),
                Letter::Call(call) => call(),
            }
        }
    }

    /// Submits everything, waits if there is nothing else to do, and files the completions.
    fn visit_kernel(&self) {
        let idle = self.executor.ready_count() == 0 && !self.ring.borrow().has_reaped();
        let wait = idle && !clock::is_virtual() && self.mailbox.announce_sleep();
        let earliest = self.timers.borrow().earliest();
        let timeout = if wait { earliest.map(clock::until) } else { None };
        let entered = self.ring.borrow_mut().enter(usize::from(wait), timeout);
        self.mailbox.announce_awake();
        if idle && clock::is_virtual() {
            // Whoever simulates has no other thread and no file to wait for.
            clock::jump(earliest.expect("a simulation in which nothing will ever happen"));
        }
        // Nothing can run without the ring, and every cause is a fault of this crate (see Ring::enter).
        entered.expect("io_uring_enter fails only by a fault of this crate");
        self.handle_completions();
    }

    /// Reaps, then files each completion and wakes its task.
    pub(crate) fn handle_completions(&self) {
        self.ring.borrow_mut().reap();
        loop {
            let reaped = self.ring.borrow_mut().take_reaped();
            let Some(entry) = reaped else { break };
            let (user_data, completion) = ring::unpack(&entry);
            if user_data != WAKE && user_data != IGNORED {
                self.file(user_data, completion);
            }
        }
    }

    /// Files one completion.
    pub(crate) fn file(&self, user_data: u64, completion: Completion) {
        let filed = self.slots.borrow_mut().file(user_data, completion);
        match filed {
            Filed::Wake(waker) => waker.wake(),
            Filed::Discard(completion, kind, hold) => self.discard(completion, kind, hold),
            Filed::Kept => {}
        }
    }

    /// Undoes a completion nobody will take: gives the buffer back, closes the descriptor, repeats the wake-up.
    pub(crate) fn discard(&self, completion: Completion, kind: Kind, hold: Option<Hold>) {
        if let (Some(id), Some(pool)) = (cqueue::buffer_select(completion.flags), &self.pool) {
            drop(pool.lease(id, 0));
        }
        if let (0, Some(Hold::Place(place))) = (completion.res, &hold) {
            fuse::refuse(place);
        }
        match kind {
            Kind::Plain => {}
            // SAFETY: the completion is this operation's, and nobody else has taken it.
            Kind::Descriptor => drop(unsafe { op::adopt(completion.res) }),
            Kind::Wakeup => {
                if let Some(Hold::Peer(peer)) = &hold
                    && completion.res < 0
                {
                    peer.ring_bell();
                }
            }
        }
    }

    fn fire_timers(&self) {
        if self.timers.borrow().earliest().is_none() {
            return;
        }
        let now = clock::now();
        loop {
            let due = self.timers.borrow_mut().take_due(now);
            let Some(waker) = due else { break };
            waker.wake();
        }
    }

    /// Ends the shard; see [`Shard::block_on`].
    fn leave(self: &Rc<Self>) {
        self.mailbox.close();
        self.executor.clear();
        op::cancel_all(self);
        let deadline = clock::now() + DRAIN_MAX;
        loop {
            let (running, _) = self.slots.borrow().in_flight();
            let left = clock::until(deadline);
            let wait = running > 0 && !left.is_zero();
            let entered = self.ring.borrow_mut().enter(usize::from(wait), Some(left));
            self.handle_completions();
            if !wait || entered.is_err() {
                break;
            }
        }
        self.mailbox.release_ring();
        self.ring.borrow_mut().close();
        let leaked = self.slots.borrow_mut().leak_unfinished();
        if leaked > 0 {
            // FUSE entries of a file system that is still mounted, or I/O on a device that does not answer.
            tracing::debug!(leaked, "operations did not end with their shard; their buffers stay allocated");
            std::mem::forget(self.pool.clone());
        }
        self.executor.clear();
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("ring", &self.ring)
            .field("executor", &self.executor)
            .finish_non_exhaustive()
    }
}

/// A shard as other threads see it: a place to send tasks to.
#[derive(Debug, Clone)]
pub struct ShardHandle {
    mailbox: Arc<Mailbox>,
}

impl ShardHandle {
    /// Calls `make` on the shard's thread and spawns the future it makes there. The future need not be `Send`.
    ///
    /// `false` when the shard has ended (the closure is dropped); a shard that is just ending may drop it later.
    pub fn spawn_with<F, Fut>(&self, make: F) -> bool
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        self.mailbox.post(Letter::Call(Box::new(move || drop(spawn(make())))))
    }

    /// Whether this is the shard the calling thread runs.
    pub fn is_current(&self) -> bool {
        try_current().is_some_and(|core| Arc::ptr_eq(&core.mailbox, &self.mailbox))
    }
}
