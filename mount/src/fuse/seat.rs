//! Seats: the places requests run in, so that an INTERRUPT finds its request and `status` its figures.
//!
//! A FUSE entry has one seat for life; the fallback lends them out. Interrupts name a request by number and come on
//! another core than the request, sometimes before it. What an interrupt means depends on what runs: a wait for a
//! lock ends with any signal; everything else is a short operation that programs do not expect to fail with EINTR
//! because of a timer or a child, so it goes on unless its caller is being killed.
//!
//! No interrupt comes for a thread that is ending: the kernel waits for the answers to the closes of its files, and
//! nothing ends that wait but the answer. So requests that take long are looked at. What was killed is let go; what
//! ends by itself waits for its data to be stored, as long as the server answers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flexfs_uring::wakeful::Wakeful;
use flexfs_uring::{clock, timer};
use serde::{Deserialize, Serialize};

use super::process::{self, Life};
use crate::cancel::Cancel;

/// How often running requests of interrupted callers are looked at.
const WATCH_EVERY: Duration = Duration::from_millis(250);
/// How long an interrupt without a request is kept: the request is on its way through another ring.
const EARLY_FOR: Duration = Duration::from_secs(1);
/// Most such interrupts.
const EARLY_MAX: usize = 256;
/// Requests older than this are looked at.
const LOOK_AFTER: Duration = Duration::from_millis(250);
/// A server that was asked this long ago and has said nothing since is away, for a thread that is ending.
const AWAY_AFTER: Duration = Duration::from_secs(2);
/// The same for callers of other pid namespaces, of which nothing is seen but that they wait.
const UNSEEN_AWAY_AFTER: Duration = Duration::from_secs(10);

/// The place of one request at a time.
#[derive(Debug, Default)]
pub struct Seat {
    /// Raised when the caller gave up.
    pub cancel: Cancel,
    /// Thread id of the caller, 0 if it cannot be seen from here.
    pid: AtomicU32,
    /// Any signal ends the request.
    any_signal: AtomicBool,
    /// The caller has been interrupted.
    interrupted: AtomicBool,
    /// The request closes a file: an ending thread makes it too.
    closing: AtomicBool,
    /// When the request began, nanoseconds on the seats' clock.
    began: AtomicU64,
    requests: AtomicU64,
    errors: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
}

/// Figures over all seats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Requests answered.
    pub requests: u64,
    /// Of them with an errno.
    pub errors: u64,
    /// Running now.
    pub in_flight: u64,
    /// Bytes given to readers.
    pub bytes_read: u64,
    /// Bytes taken from writers.
    pub bytes_written: u64,
}

/// All seats of a mount.
#[derive(Debug)]
pub struct Seats {
    list: Mutex<Vec<Arc<Seat>>>,
    /// Seats nobody sits in, of those that are lent out.
    free: Mutex<Vec<Arc<Seat>>>,
    early: Mutex<VecDeque<(u64, Instant)>>,
    early_count: AtomicUsize,
    /// Interrupts come through the transport; without, callers are looked at.
    told: bool,
    epoch: Instant,
    /// Who asks for CPUs that wake quickly while requests come.
    wakeful: Option<Arc<Wakeful>>,
}

impl Seat {
    /// Any signal ends the request from here on (a wait for a lock).
    pub fn accept_any_signal(&self) {
        self.any_signal.store(true, Ordering::SeqCst);
        if self.interrupted.load(Ordering::SeqCst) {
            self.cancel.raise_running();
        }
    }

    /// The request closes a file: nobody may be there any more who could be told how that went.
    pub fn note_closing(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    /// Whether the caller waits for a lock of its open file description.
    pub(crate) fn wants_description_lock(&self) -> bool {
        process::wants_description_lock(self.pid.load(Ordering::SeqCst))
    }

    /// Counts data given to a reader.
    pub fn count_read(&self, bytes: usize) {
        self.bytes_read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts data taken from a writer.
    pub fn count_written(&self, bytes: usize) {
        self.bytes_written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The request that ran here is about to be answered.
    pub fn end(&self, error: bool) {
        self.cancel.disarm();
        self.requests.fetch_add(1, Ordering::Relaxed);
        if error {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An interrupt for the request that runs here.
    fn interrupt(&self) {
        self.interrupted.store(true, Ordering::SeqCst);
        if self.any_signal.load(Ordering::SeqCst) || is_killed(self.pid.load(Ordering::SeqCst)) {
            self.cancel.raise_running();
        }
    }
}

impl Seats {
    /// `told`: whether the transport passes interrupts on. `wakeful` hears of each request.
    #[must_use]
    pub fn new(told: bool, wakeful: Option<Arc<Wakeful>>) -> Self {
        Self {
            list: Mutex::default(),
            free: Mutex::default(),
            early: Mutex::default(),
            early_count: AtomicUsize::new(0),
            told,
            epoch: clock::now(),
            wakeful,
        }
    }

    /// One more seat.
    pub fn add(&self) -> Arc<Seat> {
        let seat = Arc::new(Seat::default());
        lock(&self.list).push(Arc::clone(&seat));
        seat
    }

    /// A seat for one request; give it back with [`Seats::give_back`].
    pub fn lend(&self) -> Arc<Seat> {
        let free = lock(&self.free).pop();
        free.unwrap_or_else(|| self.add())
    }

    /// The end of a loan.
    pub fn give_back(&self, seat: Arc<Seat>) {
        lock(&self.free).push(seat);
    }

    /// A request begins in `seat`.
    pub fn begin(&self, seat: &Seat, unique: u64, pid: u32) {
        seat.pid.store(pid, Ordering::SeqCst);
        seat.any_signal.store(false, Ordering::SeqCst);
        seat.interrupted.store(false, Ordering::SeqCst);
        seat.closing.store(false, Ordering::SeqCst);
        seat.began.store(self.nanos(), Ordering::SeqCst);
        seat.cancel.arm(unique);
        if let Some(wakeful) = &self.wakeful {
            wakeful.note();
        }
        if self.early_count.load(Ordering::SeqCst) > 0 && self.take_early(unique) {
            seat.interrupt();
        }
    }

    /// The kernel says that the caller of `unique` was interrupted.
    pub fn interrupt(&self, unique: u64) {
        let seat = lock(&self.list).iter().find(|seat| seat.cancel.running() == unique).cloned();
        match seat {
            Some(seat) => seat.interrupt(),
            None => {
                self.keep_early(unique);
                // It may have begun in between, before the interrupt was there to be seen.
                let seat = lock(&self.list).iter().find(|seat| seat.cancel.running() == unique).cloned();
                if let Some(seat) = seat {
                    seat.interrupt();
                }
            }
        }
    }

    /// Looks after requests whose callers may not wait any more, for ever. Runs on one shard. `quiet` tells how long
    /// the server has said nothing.
    pub async fn watch(&self, quiet: impl Fn() -> Duration) {
        loop {
            timer::sleep(WATCH_EVERY).await;
            self.look(quiet());
        }
    }

    /// Who asks for CPUs that wake quickly, if anybody does.
    #[must_use]
    pub fn wakeful(&self) -> Option<&Wakeful> {
        self.wakeful.as_deref()
    }

    /// Figures over all seats.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let mut sum = Figures::default();
        for seat in lock(&self.list).iter() {
            sum.requests += seat.requests.load(Ordering::Relaxed);
            sum.errors += seat.errors.load(Ordering::Relaxed);
            sum.in_flight += u64::from(seat.cancel.running() != 0);
            sum.bytes_read += seat.bytes_read.load(Ordering::Relaxed);
            sum.bytes_written += seat.bytes_written.load(Ordering::Relaxed);
        }
        sum
    }

    /// One look at all seats.
    fn look(&self, quiet: Duration) {
        let now = self.nanos();
        let seats: Vec<(Arc<Seat>, Duration)> = lock(&self.list)
            .iter()
            .filter(|seat| seat.cancel.running() != 0 && !seat.cancel.is_raised())
            .map(|seat| (seat, Duration::from_nanos(now.saturating_sub(seat.began.load(Ordering::SeqCst)))))
            .filter(|(seat, age)| *age > LOOK_AFTER || seat.interrupted.load(Ordering::SeqCst))
            .map(|(seat, age)| (Arc::clone(seat), age))
            .collect();
        for (seat, age) in seats {
            let unique = seat.cancel.running();
            // Silence from before the request is no silence: nothing was asked.
            if self.is_over(&seat, quiet.min(age)) {
                // Raised by number: if another request sits there by now, nothing happens.
                seat.cancel.raise(unique);
            }
        }
    }

    /// Whether the request is to end without its answer. `quiet`: how long the server has said nothing to it.
    fn is_over(&self, seat: &Seat, quiet: Duration) -> bool {
        let pid = seat.pid.load(Ordering::SeqCst);
        let interrupted = seat.interrupted.load(Ordering::SeqCst);
        if pid == 0 {
            let closing = seat.closing.load(Ordering::SeqCst) && quiet > UNSEEN_AWAY_AFTER;
            return closing || interrupted && quiet > AWAY_AFTER;
        }
        let thread = process::look(pid);
        match thread.life {
            Life::Killed => true,
            Life::Ends => quiet > AWAY_AFTER,
            // Where interrupts are told of, they came at once.
            Life::Runs => thread.has_signal && seat.any_signal.load(Ordering::SeqCst) && !self.told,
        }
    }

    fn keep_early(&self, unique: u64) {
        let mut early = lock(&self.early);
        if early.len() >= EARLY_MAX {
            early.pop_front();
        }
        early.push_back((unique, clock::now()));
        self.early_count.store(early.len(), Ordering::SeqCst);
    }

    fn take_early(&self, unique: u64) -> bool {
        let now = clock::now();
        let mut early = lock(&self.early);
        let mut found = false;
        early.retain(|&(waiting, since)| {
            found |= waiting == unique;
            waiting != unique && now.duration_since(since) < EARLY_FOR
        });
        self.early_count.store(early.len(), Ordering::SeqCst);
        found
    }

    fn nanos(&self) -> u64 {
        u64::try_from(clock::now().duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Whether the caller was killed, as far as it can be seen (not from another pid namespace: 0).
fn is_killed(pid: u32) -> bool {
    pid != 0 && process::look(pid).life == Life::Killed
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: u32 = u32::MAX;

    #[test]
    fn a_lock_wait_ends_with_any_signal_and_a_write_does_not() {
        let seats = Seats::new(true, None);
        let (waiter, writer) = (seats.add(), seats.add());
        let me = std::process::id();
        seats.begin(&waiter, 2, me);
        seats.begin(&writer, 4, me);
        waiter.accept_any_signal();
        seats.interrupt(2);
        seats.interrupt(4);
        assert!(waiter.cancel.is_raised() && !writer.cancel.is_raised());
        writer.accept_any_signal();
        assert!(writer.cancel.is_raised());
    }

    #[test]
    fn a_killed_caller_is_not_served_on() {
        let seats = Seats::new(true, None);
        let seat = seats.add();
        seats.begin(&seat, 2, NOBODY);
        seats.look(Duration::ZERO);
        assert!(!seat.cancel.is_raised());
        seats.interrupt(2);
        assert!(seat.cancel.is_raised());
    }

    #[test]
    fn a_caller_that_cannot_be_seen_is_freed_of_a_server_that_is_away() {
        let seats = Seats::new(true, None);
        let (killed, closing, reading) = (seats.add(), seats.add(), seats.add());
        for (unique, seat) in [(2, &killed), (4, &closing), (6, &reading)] {
            seats.begin(seat, unique, 0);
        }
        closing.note_closing();
        seats.interrupt(2);
        assert!(!killed.cancel.is_raised(), "may be any signal");
        assert!(!seats.is_over(&killed, AWAY_AFTER) && !seats.is_over(&closing, UNSEEN_AWAY_AFTER));
        let long = UNSEEN_AWAY_AFTER + Duration::from_secs(1);
        assert!(seats.is_over(&killed, long) && seats.is_over(&closing, long));
        assert!(!seats.is_over(&reading, Duration::MAX), "nobody asked it to end");
        // What began just now has waited for nothing.
        seats.look(Duration::MAX);
        assert!(!killed.cancel.is_raised());
    }

    #[test]
    fn an_interrupt_may_come_before_its_request() {
        let seats = Seats::new(true, None);
        let seat = seats.add();
        seats.interrupt(8);
        seats.begin(&seat, 6, NOBODY);
        assert!(!seat.cancel.is_raised());
        seat.end(false);
        seats.begin(&seat, 8, NOBODY);
        assert!(seat.cancel.is_raised());
        seat.end(true);
        assert_eq!(seats.figures(), Figures { requests: 2, errors: 1, ..Figures::default() });
    }

    #[test]
    fn loans_are_used_again() {
        let seats = Seats::new(false, None);
        let seat = seats.lend();
        seats.give_back(Arc::clone(&seat));
        assert!(Arc::ptr_eq(&seats.lend(), &seat));
        assert!(!Arc::ptr_eq(&seats.lend(), &seat));
    }
}
