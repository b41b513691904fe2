//! Where a core's thread runs. To wake a thread on another CPU, halted in a virtual machine, costs 25 to 50 us, as much as the
//! rest of a small call. So a core stays on a CPU of its own while it mostly waits, and gets the connections whose packets
//! arrive there. While it has much to do the scheduler may move it: what else runs on that CPU (on one machine: the client
//! whose bytes it seals) would else take turns with it.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use flexfs_uring::cpu;

/// How often a core that has something to do looks at itself: long against a call, short against a transfer that somebody waits for.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Percent of the time that it runs or could run, above which it is let go. One client that makes one call after the other
/// comes to 30; one that sends files it made behind to 55, a sequential read to 90, and both are faster on two CPUs than on one.
const BUSY: u128 = 45;
/// Percent of the time that it waits for its CPU, above which it is let go: others have to do there, and another CPU may be idle. One client
/// that makes one call after the other comes to 4.
const CROWDED: u128 = 10;
/// Then it goes home, to look again: how busy it would be there is not to be seen from elsewhere, where each wake-up takes longer.
const AWAY: Duration = Duration::from_secs(1);
/// Bytes of the kernel's line about a thread: three numbers of 64 bits.
const LINE_BYTES: usize = 64;

/// Of one core's thread, used by that thread only.
#[derive(Debug)]
pub(super) struct Perch {
    home: u32,
    /// All CPUs the process may use.
    all: Vec<u32>,
    /// The kernel's figures of this thread (Documentation/scheduler/sched-stats.rst): nanoseconds that it ran, and that it waited for a CPU.
    file: File,
    /// When it was let go.
    left_at: Cell<Option<Instant>>,
    looked_at: Cell<Instant>,
    /// What they were then.
    seen: Cell<Figures>,
    failed: Cell<bool>,
}

impl Perch {
    /// Takes the calling thread to its CPU. `None`, and the thread is left alone, where the kernel does not tell how busy it is.
    pub(super) fn settle(home: u32, all: Vec<u32>, now: Instant) -> Option<Self> {
        // Of the main thread, which has run for a while: a kernel without figures shows zeros.
        File::open("/proc/self/schedstat").ok().and_then(|file| read(&file)).filter(|seen| seen.ran > 0)?;
        let file = File::open("/proc/thread-self/schedstat").ok()?;
        let seen = read(&file)?;
        let perch = Self {
            home,
            all,
            file,
            left_at: Cell::new(None),
            looked_at: Cell::new(now),
            seen: Cell::new(seen),
            failed: Cell::new(false),
        };
        perch.go(None).then_some(perch)
    }

    /// Looks whether the thread is to stay or to be let go, if it is time to.
    pub(super) fn look(&self, now: Instant) {
        let passed = now.saturating_duration_since(self.looked_at.get());
        if passed < LOOK_EVERY {
            return;
        }
        self.looked_at.set(now);
        let Some(seen) = read(&self.file) else { return };
        let before = self.seen.replace(seen);
        let percent =
            |now: u64, before: u64| u128::from(now.saturating_sub(before)) * 100 / passed.as_nanos();
        let is_moved = is_moved(percent(seen.ran, before.ran), percent(seen.waited, before.waited));
        match self.left_at.get() {
            None if is_moved => self.go(Some(now)),
            Some(at) if now.saturating_duration_since(at) >= AWAY => self.go(None),
            None | Some(_) => true,
        };
    }

    /// Home, or away; whether that could be done.
    fn go(&self, left_at: Option<Instant>) -> bool {
        let moved = if left_at.is_none() { cpu::pin(self.home) } else { cpu::allow(&self.all) };
        self.left_at.set(left_at);
        if let Err(error) = &moved
            && !self.failed.replace(true)
        {
            // The CPU was taken from the process; the thread runs on what is left.
            tracing::warn!(cpu = self.home, %error, "a core's thread cannot be kept on its CPU");
        }
        moved.is_ok()
    }
}

/// Of a thread, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Figures {
    ran: u64,
    /// Could have run.
    waited: u64,
}

fn read(file: &File) -> Option<Figures> {
    let mut line = [0; LINE_BYTES];
    let bytes = file.read_at(&mut line, 0).ok()?;
    parse(std::str::from_utf8(line.get(..bytes)?).ok()?)
}

fn parse(line: &str) -> Option<Figures> {
    let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
    Some(Figures { ran: numbers.next()?.ok()?, waited: numbers.next()?.ok()? })
}

/// Whether a thread at home is let go that ran, and waited for its CPU, for so many percent of the time.
fn is_moved(ran: u128, waited: u128) -> bool {
    ran + waited > BUSY || waited > CROWDED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_busy_or_crowded_is_let_go() {
        assert!(!is_moved(30, 4) && !is_moved(BUSY, 0) && !is_moved(0, CROWDED));
        assert!(is_moved(BUSY, 1) && is_moved(5, CROWDED + 1));
    }

    #[test]
    fn the_kernels_line_is_read() {
        assert_eq!(parse("1200 34 5\n"), Some(Figures { ran: 1200, waited: 34 }));
        assert_eq!(parse("1200"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn a_thread_goes_home_works_and_is_let_go() {
        std::thread::spawn(|| {
            let all = cpu::allowed().unwrap();
            let home = *all.last().unwrap();
            let mut now = crate::clock::now();
            let perch = Perch::settle(home, all.clone(), now).expect("a kernel with figures");
            assert_eq!(cpu::allowed().unwrap(), [home]);
            let until = now + 2 * LOOK_EVERY;
            while now < until {
                now = crate::clock::now();
            }
            perch.look(now);
            assert_eq!(cpu::allowed().unwrap(), all, "it was busy");
            perch.look(now + AWAY / 2);
            assert_eq!(cpu::allowed().unwrap(), all, "it is away");
            perch.look(now + AWAY);
            assert_eq!(cpu::allowed().unwrap(), [home], "to look again");
            std::thread::sleep(LOOK_EVERY);
            perch.look(now + 2 * AWAY);
            assert_eq!(cpu::allowed().unwrap(), [home], "it was not busy");
        })
        .join()
        .unwrap();
    }
}
