//! Seats: the places requests run in, so that an INTERRUPT finds its request and `status` its figures.
//!
//! A FUSE entry has one seat for life; the fallback lends them out. Interrupts name a request by number and come on
//! another core than the request, sometimes before it. What an interrupt means depends on what runs: a wait for a
//! lock ends with any signal; everything else is a short operation that programs do not expect to fail with EINTR
//! because of a timer or a child, so it goes on unless its caller is being killed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flexfs_uring::{clock, timer};
use serde::{Deserialize, Serialize};

use crate::cancel::Cancel;

/// How often running requests of interrupted callers are looked at.
const WATCH_EVERY: Duration = Duration::from_millis(250);
/// How long an interrupt without a request is kept: the request is on its way through another ring.
const EARLY_FOR: Duration = Duration::from_secs(1);
/// Most such interrupts.
const EARLY_MAX: usize = 256;
/// Where no interrupts come (fallback), requests older than this are looked at.
const LOOK_AFTER: Duration = Duration::from_millis(500);
/// `SIGKILL` in a signal mask of `/proc`. A fatal signal is turned into it for every thread of the process.
const SIGKILL_BIT: u64 = 1 << 8;

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
}

impl Seat {
    /// Any signal ends the request from here on (a wait for a lock).
    pub fn accept_any_signal(&self) {
        self.any_signal.store(true, Ordering::SeqCst);
        if self.interrupted.load(Ordering::SeqCst) {
            self.cancel.raise_running();
        }
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
        if self.any_signal.load(Ordering::SeqCst) || is_dying(self.pid.load(Ordering::SeqCst)) {
            self.cancel.raise_running();
        }
    }
}

impl Seats {
    /// `told`: whether the transport passes interrupts on.
    #[must_use]
    pub fn new(told: bool) -> Self {
        Self {
            list: Mutex::default(),
            free: Mutex::default(),
            early: Mutex::default(),
            early_count: AtomicUsize::new(0),
            told,
            epoch: clock::now(),
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
        seat.began.store(self.nanos(), Ordering::SeqCst);
        seat.cancel.arm(unique);
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

    /// Looks after interrupted requests, for ever. Runs on one shard.
    pub async fn watch(&self) {
        loop {
            timer::sleep(WATCH_EVERY).await;
            self.look();
        }
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
    fn look(&self) {
        let now = self.nanos();
        let seats: Vec<Arc<Seat>> =
            lock(&self.list).iter().filter(|seat| self.is_suspect(seat, now)).cloned().collect();
        for seat in seats {
            let unique = seat.cancel.running();
            let pid = seat.pid.load(Ordering::SeqCst);
            let any = seat.any_signal.load(Ordering::SeqCst) && !self.told;
            // Raised by number: if another request sits there by now, nothing happens.
            if is_dying(pid) || (any && has_signal(pid)) {
                seat.cancel.raise(unique);
            }
        }
    }

    fn is_suspect(&self, seat: &Seat, now: u64) -> bool {
        if seat.cancel.running() == 0 || seat.cancel.is_raised() {
            return false;
        }
        if self.told {
            return seat.interrupted.load(Ordering::SeqCst);
        }
        let age = now.saturating_sub(seat.began.load(Ordering::SeqCst));
        u128::from(age) > LOOK_AFTER.as_nanos()
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

/// Whether the thread is being killed, or is gone. Threads of other pid namespaces (0) cannot be seen: they wait.
fn is_dying(pid: u32) -> bool {
    pid != 0 && read_masks(pid).is_none_or(|masks| masks.thread & SIGKILL_BIT != 0)
}

/// Whether a signal that is not blocked waits for the thread.
fn has_signal(pid: u32) -> bool {
    pid != 0 && read_masks(pid).is_none_or(|masks| (masks.thread | masks.process) & !masks.blocked != 0)
}

/// Signals pending and blocked, as `/proc/PID/status` shows them (proc(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Masks {
    thread: u64,
    process: u64,
    blocked: u64,
}

fn read_masks(pid: u32) -> Option<Masks> {
    std::fs::read_to_string(format!("/proc/{pid}/status")).ok().map(|text| parse_masks(&text))
}

fn parse_masks(text: &str) -> Masks {
    let mut masks = Masks::default();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let mask = || u64::from_str_radix(value.trim(), 16).unwrap_or(0);
        match key {
            "SigPnd" => masks.thread = mask(),
            "ShdPnd" => masks.process = mask(),
            "SigBlk" => masks.blocked = mask(),
            _ => {}
        }
    }
    masks
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
        let seats = Seats::new(true);
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
        let seats = Seats::new(true);
        let seat = seats.add();
        seats.begin(&seat, 2, NOBODY);
        seats.look();
        assert!(!seat.cancel.is_raised());
        seats.interrupt(2);
        assert!(seat.cancel.is_raised());
    }

    #[test]
    fn an_interrupt_may_come_before_its_request() {
        let seats = Seats::new(true);
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
        let seats = Seats::new(false);
        let seat = seats.lend();
        seats.give_back(Arc::clone(&seat));
        assert!(Arc::ptr_eq(&seats.lend(), &seat));
        assert!(!Arc::ptr_eq(&seats.lend(), &seat));
    }

    #[test]
    fn masks_of_proc() {
        let text = "Name:\tx\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000002\nSigBlk:\tnonsense\n";
        assert_eq!(parse_masks(text), Masks { thread: SIGKILL_BIT, process: 2, blocked: 0 });
        assert!(read_masks(std::process::id()).is_some());
    }
}
