//! What is sent to a volume, and who works on it. The host is behind a lock; whoever holds it works on what waits, in the order it
//! came in. A core that has received short calls takes the lock itself if it is free and answers at once: to wake the volume's
//! thread, and to be woken by it, costs more than most calls. What takes long, what comes while another works for too long, and all
//! that is due by time, is the thread's.
//!
//! No message is left behind: who adds one and finds the lock taken relies on its holder, who looks at the queue once more when
//! it has let go. Both look under the lock of the queue, so one of the two sees the other. For the calls of one link it is the same
//! whoever works: one queue, taken from at its front, under the host's lock.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use flexfs_wire::errno::Errno;
use flexfs_wire::message::Request;

use super::host::{Host, Now};
use super::message::{Job, ToVolume};
use crate::clock;
use crate::engine::Store;
use crate::metrics::VolumeMetrics;

/// Calls that a core works on, of itself and of others, before it leaves the rest to the thread: some 10 us each, while which its links wait.
const TURN_CALLS: usize = 32;
/// A turn that took a core so long waited for the disk or for a CPU: a hundred calls from memory.
const LONG_TURN: Duration = Duration::from_millis(1);
/// So many times as long the cores leave the volume to its thread then: a core is held up for a 20th of its time at most.
const REST_FACTOR: u32 = 20;
/// The thread is woken early only for what is due so much earlier than it would wake by itself.
const SLACK: Duration = Duration::from_millis(2);

/// What works on messages: a host.
pub(super) trait Work: Send {
    /// One message.
    fn handle(&mut self, message: ToVolume, now: Now) -> Result<(), Errno>;
    /// Sends what came of the messages since.
    fn settle(&mut self, now: Now) -> Result<(), Errno>;
    /// How long nothing will be due.
    fn idle_for(&self, now: Instant) -> Duration;
    /// Whether requests are served, not held.
    fn is_open(&self) -> bool;
}

/// See the module.
pub(super) struct Inbox<W> {
    queue: Mutex<Queue>,
    desk: Mutex<Option<Desk<W>>>,
    /// The thread waits for the desk: cores, which do not wait, leave it to it.
    wanted: AtomicBool,
    /// Whom to wake.
    thread: OnceLock<Thread>,
}

impl<W> std::fmt::Debug for Inbox<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inbox")
    }
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<ToVolume>,
    /// Nobody works any more; what is sent is dropped, and with it the way of its answer.
    closed: bool,
}

/// The host and what is noted of who works at it.
#[derive(Debug)]
pub(super) struct Desk<W> {
    pub(super) host: W,
    /// When the thread will look by itself.
    sleeps_until: Instant,
    /// Until then cores leave all to the thread.
    thread_only_until: Instant,
    /// What a core's turn ended with; the thread ends with it.
    failed: Option<Errno>,
    /// Messages that cores have worked on.
    by_cores: u64,
    /// Messages that the thread has.
    by_thread: u64,
}

/// What is at the front of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Front {
    Nothing,
    /// For any core.
    Short,
    /// For the thread.
    Long,
}

impl<W> Inbox<W> {
    /// An empty one, of a volume whose host is not there yet.
    pub(super) fn new() -> Self {
        Self {
            queue: Mutex::default(),
            desk: Mutex::new(None),
            wanted: false.into(),
            thread: OnceLock::new(),
        }
    }

    /// The calling thread is the volume's from now on.
    pub(super) fn adopt(&self) {
        // Once: a volume has one thread.
        let _ = self.thread.set(std::thread::current());
    }

    /// Adds a message for the thread.
    pub(super) fn send(&self, message: ToVolume) {
        if self.push(message) {
            self.wake();
        }
    }

    fn push(&self, message: ToVolume) -> bool {
        let mut queue = self.lock_queue();
        if queue.closed {
            drop(queue);
            return false; // And the message with its answer's way, outside the lock.
        }
        queue.messages.push_back(message);
        true
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// The next message; for who holds the desk.
    pub(super) fn pop(&self) -> Option<ToVolume> {
        self.lock_queue().messages.pop_front()
    }

    /// The calling thread, which is the volume's, sleeps until something comes, or so long.
    pub(super) fn sleep(&self, long: Duration) {
        if self.lock_queue().messages.is_empty() {
            std::thread::park_timeout(long);
        }
    }

    /// Nothing is worked on any more. Gives back the host.
    pub(super) fn close(&self) -> Option<W> {
        let left = {
            let mut queue = self.lock_queue();
            queue.closed = true;
            std::mem::take(&mut queue.messages)
        };
        drop(left);
        // After a panic at the desk the host is as good as any that is dropped.
        let desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner).take();
        desk.map(|desk| desk.host)
    }

    fn lock_queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing that holds it can panic halfway.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Work> Inbox<W> {
    /// The host is there: cores may work, too.
    pub(super) fn open(&self, host: W) {
        let now = clock::now();
        let desk =
            Desk { host, sleeps_until: now, thread_only_until: now, failed: None, by_cores: 0, by_thread: 0 };
        *self.desk.lock().unwrap_or_else(PoisonError::into_inner) = Some(desk);
    }

    /// The desk, for the thread.
    ///
    /// # Errors
    /// What a core's turn ended with; `EIO` when a turn panicked.
    pub(super) fn take(&self) -> Result<MutexGuard<'_, Option<Desk<W>>>, Errno> {
        self.wanted.store(true, Ordering::Relaxed);
        let desk = self.desk.lock();
        self.wanted.store(false, Ordering::Relaxed);
        let desk = desk.map_err(|_| Errno::EIO)?;
        match desk.as_ref().and_then(|desk| desk.failed) {
            Some(errno) => Err(errno),
            None => Ok(desk),
        }
    }

    /// Adds a message of a core, which works on it at once if it can.
    pub(super) fn call(&self, message: ToVolume) {
        if !self.push(message) {
            return;
        }
        let mut left = TURN_CALLS;
        loop {
            match self.front(left) {
                Front::Nothing => return,
                Front::Short => {}
                // At once: the thread is not to find the desk taken for nothing.
                Front::Long => return self.wake(),
            }
            // The thread looks at the queue when it has the desk.
            if self.wanted.load(Ordering::Relaxed) {
                return;
            }
            let mut desk = match self.desk.try_lock() {
                Ok(desk) => desk,
                Err(TryLockError::WouldBlock) => return,
                Err(TryLockError::Poisoned(_)) => return self.wake(),
            };
            let hurry = match desk.as_mut() {
                Some(desk) => self.turn(desk, &mut left),
                // Not there yet, or no more.
                None => true,
            };
            drop(desk);
            if hurry {
                return self.wake();
            }
        }
    }

    /// A core's turn. Whether the thread is to be woken.
    fn turn(&self, desk: &mut Desk<W>, left: &mut usize) -> bool {
        let now = Now::read();
        if desk.failed.is_some() || now.mono < desk.thread_only_until || !desk.host.is_open() {
            return true;
        }
        let mut worked = Ok(());
        while worked.is_ok()
            && let Some(message) = self.pop_short(left)
        {
            desk.by_cores += 1;
            worked = desk.host.handle(message, now);
        }
        if let Err(errno) = worked.and_then(|()| desk.host.settle(now)) {
            desk.failed = Some(errno);
            return true;
        }
        let end = clock::now();
        let took = end.saturating_duration_since(now.mono);
        if took > LONG_TURN {
            desk.thread_only_until = end + took * REST_FACTOR;
        }
        let due = end + desk.host.idle_for(end);
        let hurry = due + SLACK < desk.sleeps_until;
        if hurry {
            desk.sleeps_until = due;
        }
        hurry
    }

    /// What is at the front, for a core that may still work on so many calls.
    fn front(&self, left: usize) -> Front {
        front(&self.lock_queue(), left)
    }

    fn pop_short(&self, left: &mut usize) -> Option<ToVolume> {
        let mut queue = self.lock_queue();
        if front(&queue, *left) != Front::Short {
            return None;
        }
        let message = queue.messages.pop_front()?;
        *left = left.saturating_sub(calls(&message));
        Some(message)
    }
}

impl<W: Work> Desk<W> {
    /// One message, for the thread.
    pub(super) fn handle(&mut self, message: ToVolume, now: Now) -> Result<(), Errno> {
        self.by_thread += 1;
        self.host.handle(message, now)
    }

    /// The thread will sleep. How long?
    pub(super) fn rest(&mut self, now: Instant) -> Duration {
        let long = self.host.idle_for(now);
        self.sleeps_until = now + long;
        long
    }
}

impl<S: Store> Desk<Host<S>> {
    /// Sets the volume's figures.
    pub(super) fn report(&self, metrics: &VolumeMetrics, now: Instant) {
        if metrics.is_due(now) {
            self.host.report(metrics);
            metrics.update_worked(self.by_cores, self.by_thread);
        }
    }
}

fn front(queue: &Queue, left: usize) -> Front {
    match queue.messages.front() {
        None => Front::Nothing,
        Some(message) if calls(message) <= left && is_short(message) => Front::Short,
        Some(_) => Front::Long,
    }
}

fn calls(message: &ToVolume) -> usize {
    match message {
        ToVolume::Jobs(jobs) => jobs.len(),
        _ => 1,
    }
}

/// Whether a core may work on it: the links of the core wait meanwhile, and their data.
fn is_short(message: &ToVolume) -> bool {
    match message {
        ToVolume::Jobs(jobs) => jobs.iter().all(is_short_call),
        ToVolume::ReadRight { .. }
        | ToVolume::ReadRow { .. }
        | ToVolume::PutRight { .. }
        | ToVolume::PutDone { .. } => true,
        _ => false,
    }
}

/// Not: listings, what goes over many extents, the end of a session, and what may let many others go on. Nor what a client sends behind
/// the program: nobody waits for it, and what comes one by one is answered in batches if it has to wait for the thread, which costs
/// client and server less (one process that creates files on the machine of the server: 77 us a file, else 89 us).
fn is_short_call(job: &Job) -> bool {
    let long = matches!(
        job.call.request,
        Request::ReadDir { .. }
            | Request::ReadAhead { .. }
            | Request::Fallocate { .. }
            | Request::CopyRange { .. }
            | Request::Leave
            // A program's close has returned before it is sent.
            | Request::Close { .. }
            | Request::GiveBack { .. }
            | Request::DropLeases { .. }
    );
    !long && job.call.told.is_none()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use flexfs_wire::id::BlockId;

    use super::*;

    /// Messages of a sender in one test.
    const EACH: u64 = 20_000;
    /// A test that takes longer hangs.
    const DEADLINE: Duration = Duration::from_secs(60);

    /// Checks that each sender's messages come in order, one worker at a time.
    #[derive(Debug, Default)]
    struct Clerk {
        last: HashMap<u64, u64>,
        done: Arc<AtomicU64>,
        unsettled: bool,
        closed: bool,
        pause: Duration,
        fail: bool,
        due: Option<Duration>,
    }

    impl Work for Clerk {
        fn handle(&mut self, message: ToVolume, _: Now) -> Result<(), Errno> {
            std::thread::sleep(self.pause);
            if self.fail {
                return Err(Errno::EIO);
            }
            let (sender, number) = match message {
                ToVolume::PutDone { block: BlockId(id), .. } => (id >> 32, id & 0xffff_ffff),
                ToVolume::Collected(blocks) => (blocks[0].0 >> 32, blocks[0].0 & 0xffff_ffff),
                other => panic!("nobody sends {other:?}"),
            };
            let last = self.last.insert(sender, number);
            assert_eq!(last.map_or(0, |last| last + 1), number, "of sender {sender}");
            self.unsettled = true;
            Ok(())
        }

        fn settle(&mut self, _: Now) -> Result<(), Errno> {
            self.unsettled = false;
            self.done.store(self.last.values().map(|last| last + 1).sum(), Ordering::Release);
            Ok(())
        }

        fn idle_for(&self, _: Instant) -> Duration {
            // So long that a message left behind is seen.
            self.due.unwrap_or(DEADLINE)
        }

        fn is_open(&self) -> bool {
            !self.closed
        }
    }

    fn short(sender: u64, number: u64) -> ToVolume {
        ToVolume::PutDone { block: BlockId(sender << 32 | number), stored: true }
    }

    fn long(sender: u64, number: u64) -> ToVolume {
        ToVolume::Collected(vec![BlockId(sender << 32 | number)])
    }

    /// The thread of a volume without all that is due by time.
    fn work(inbox: &Inbox<Clerk>) {
        inbox.adopt();
        loop {
            let long = {
                let Ok(mut desk) = inbox.take() else { return };
                let Some(desk) = desk.as_mut() else { return };
                while let Some(message) = inbox.pop() {
                    desk.handle(message, Now::read()).unwrap();
                }
                desk.host.settle(Now::read()).unwrap();
                desk.rest(clock::now())
            };
            inbox.sleep(long);
        }
    }

    /// Messages that were worked on by cores, and by the thread.
    fn worked(inbox: &Inbox<Clerk>) -> (u64, u64) {
        let desk = inbox.take().unwrap();
        let desk = desk.as_ref().unwrap();
        (desk.by_cores, desk.by_thread)
    }

    /// Ends the thread, whatever the test ends with.
    struct Ends<'a>(&'a Inbox<Clerk>);

    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            drop(self.0.close());
            self.0.wake();
        }
    }

    fn wait(what: impl Fn() -> bool) {
        let deadline = clock::now() + DEADLINE;
        while !what() {
            assert!(clock::now() < deadline, "a message was left behind");
            std::thread::yield_now();
        }
    }

    #[test]
    fn all_is_done_in_order_whoever_works() {
        let inbox = Inbox::new();
        let done = Arc::new(AtomicU64::new(0));
        inbox.open(Clerk { done: done.clone(), ..Clerk::default() });
        std::thread::scope(|scope| {
            scope.spawn(|| work(&inbox));
            let (inbox, done) = (&inbox, &done);
            let _ends = Ends(inbox);
            let senders: Vec<_> = (0..4)
                .map(|sender| {
                    scope.spawn(move || {
                        for number in 0..EACH {
                            match number % 64 {
                                0 => inbox.call(long(sender, number)),
                                1 => inbox.send(short(sender, number)),
                                _ => inbox.call(short(sender, number)),
                            }
                        }
                    })
                })
                .collect();
            senders.into_iter().for_each(|sender| sender.join().unwrap());
            wait(|| done.load(Ordering::Acquire) == 4 * EACH);
            // Alone, each must be done at once or by the thread, which may have the desk for a moment longer than its answer takes.
            let deadline = clock::now() + DEADLINE;
            let mut number = 0;
            while number < 1000 || worked(inbox).0 == 0 {
                inbox.call(short(9, number));
                number += 1;
                wait(|| done.load(Ordering::Acquire) == 4 * EACH + number);
                if number >= 1000 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                assert!(clock::now() < deadline, "a core never finds the desk free");
            }
            assert!(worked(inbox).1 > 0, "what is long is the thread's");
            let clerk = inbox.close().unwrap();
            assert!(!clerk.unsettled);
        });
        inbox.call(short(0, 0));
        assert!(inbox.pop().is_none(), "closed");
    }

    /// Without a thread: what a core may not do stays, what it may is done.
    #[test]
    fn a_core_does_what_is_short() {
        let inbox = Inbox::new();
        inbox.call(short(0, 0));
        inbox.open(Clerk::default());
        inbox.call(short(0, 1));
        let worked = |inbox: &Inbox<Clerk>| worked(inbox).0;
        assert_eq!(worked(&inbox), 2, "what came before the host, too");
        inbox.call(long(0, 2));
        inbox.call(short(0, 3));
        assert_eq!((worked(&inbox), inbox.front(1)), (2, Front::Long), "it waits behind what is long");
        inbox.take().unwrap().as_mut().unwrap().handle(inbox.pop().unwrap(), Now::read()).unwrap();
        inbox.call(short(0, 4));
        assert_eq!(worked(&inbox), 4);
    }

    #[test]
    fn a_core_does_not_work_for_all_others() {
        let inbox = Inbox::new();
        for number in 0..40 {
            inbox.send(short(0, number));
        }
        inbox.open(Clerk::default());
        inbox.call(short(0, 40));
        assert_eq!(worked(&inbox).0, TURN_CALLS as u64);
        assert_eq!(inbox.front(0), Front::Long, "the rest is the thread's");
    }

    #[test]
    fn a_volume_that_is_not_open_is_the_threads() {
        let inbox = Inbox::new();
        inbox.open(Clerk { closed: true, ..Clerk::default() });
        inbox.call(short(0, 0));
        assert_eq!(worked(&inbox).0, 0);
        assert_eq!(inbox.front(1), Front::Short);
    }

    #[test]
    fn after_a_long_turn_cores_keep_away() {
        let inbox = Inbox::new();
        inbox.open(Clerk { pause: 2 * LONG_TURN, ..Clerk::default() });
        inbox.call(short(0, 0));
        inbox.take().unwrap().as_mut().unwrap().host.pause = Duration::ZERO;
        inbox.call(short(0, 1));
        assert_eq!(worked(&inbox).0, 1);
        let rest = inbox.take().unwrap().as_ref().unwrap().thread_only_until;
        std::thread::sleep(rest.saturating_duration_since(clock::now()));
        inbox.call(short(0, 2));
        assert_eq!(worked(&inbox).0, 3);
    }

    /// The server ends with it, as if the thread had met it.
    #[test]
    fn a_failure_reaches_the_thread() {
        let inbox = Inbox::new();
        inbox.open(Clerk { fail: true, ..Clerk::default() });
        inbox.call(short(0, 0));
        assert_eq!(inbox.take().unwrap_err(), Errno::EIO);
        inbox.call(short(0, 1));
        assert_eq!(inbox.front(1), Front::Short, "nobody works on it");
    }

    /// A call that a core works on may make something due before the thread would look.
    #[test]
    fn the_thread_wakes_for_what_is_due_earlier() {
        let inbox = Inbox::new();
        inbox.open(Clerk::default());
        {
            let mut desk = inbox.take().unwrap();
            let desk = desk.as_mut().unwrap();
            desk.rest(clock::now());
            desk.host.due = Some(Duration::from_millis(20));
        }
        inbox.adopt();
        let began = clock::now();
        inbox.call(short(0, 0));
        inbox.sleep(DEADLINE);
        assert!(clock::now() < began + DEADLINE / 2, "it was woken");
    }

    #[test]
    fn what_is_sent_after_the_end_is_dropped_with_its_answer() {
        let inbox = Inbox::new();
        inbox.open(Clerk::default());
        let right = |answer| ToVolume::ReadRight {
            session: flexfs_wire::id::SessionId(1),
            ino: flexfs_wire::id::Ino(1),
            block: BlockId(1),
            answer,
        };
        let (before, mut lost) = tokio::sync::oneshot::channel();
        inbox.send(right(before));
        assert!(
            lost.try_recv().is_err_and(|error| error == tokio::sync::oneshot::error::TryRecvError::Empty)
        );
        assert!(inbox.close().is_some());
        let (after, mut refused) = tokio::sync::oneshot::channel();
        inbox.call(right(after));
        for wait in [&mut lost, &mut refused] {
            assert_eq!(wait.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Closed));
        }
    }
}
