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
/// comes to 35, a sequential read to 90.
const BUSY: u128 = 60;
/// Percent below which it goes home.
const IDLE: u128 = 30;
/// Bytes of the kernel's line about a thread: three numbers of 64 bits.
const LINE_BYTES: usize = 64;

/// Of one core's thread, used by that thread only.
#[derive(Debug)]
pub(super) struct Perch {
    home: u32,
    /// All CPUs the process may use.
    all: Vec<u32>,
    /// The kernel's figures of this thread (Documentation/scheduler/sched-stats.rst): nanoseconds that it ran, and that it waited for a CPU.
    figures: File,
    at_home: Cell<bool>,
    looked_at: Cell<Instant>,
    /// Nanoseconds then.
    runnable: Cell<u64>,
    failed: Cell<bool>,
}

impl Perch {
    /// Takes the calling thread to its CPU. `None`, and the thread is left alone, where the kernel does not tell how busy it is.
    pub(super) fn settle(home: u32, all: Vec<u32>, now: Instant) -> Option<Self> {
        // Of the main thread, which has run for a while: a kernel without figures shows zeros.
        File::open("/proc/self/schedstat").ok().and_then(|figures| read(&figures)).filter(|ns| *ns > 0)?;
        let figures = File::open("/proc/thread-self/schedstat").ok()?;
        let runnable = read(&figures)?;
        let perch = Self {
            home,
            all,
            figures,
            at_home: Cell::new(false),
            looked_at: Cell::new(now),
            runnable: Cell::new(runnable),
            failed: Cell::new(false),
        };
        perch.go(true);
        perch.at_home.get().then_some(perch)
    }

    /// Looks whether the thread is to stay or to be let go, if it is time to.
    pub(super) fn look(&self, now: Instant) {
        let passed = now.saturating_duration_since(self.looked_at.get());
        if passed < LOOK_EVERY {
            return;
        }
        self.looked_at.set(now);
        let Some(runnable) = read(&self.figures) else { return };
        let ran = runnable.saturating_sub(self.runnable.replace(runnable));
        let percent = u128::from(ran) * 100 / passed.as_nanos();
        let stays = stays(self.at_home.get(), percent);
        if stays != self.at_home.get() {
            self.go(stays);
        }
    }

    fn go(&self, home: bool) {
        let moved = if home { cpu::pin(self.home) } else { cpu::allow(&self.all) };
        match moved {
            Ok(()) => self.at_home.set(home),
            // The CPU was taken from the process; the thread runs on what is left.
            Err(error) if !self.failed.replace(true) => {
                tracing::warn!(cpu = self.home, %error, "a core's thread cannot be kept on its CPU");
            }
            Err(_) => {}
        }
    }
}

/// Nanoseconds that a thread ran or waited for a CPU.
fn read(figures: &File) -> Option<u64> {
    let mut line = [0; LINE_BYTES];
    let bytes = figures.read_at(&mut line, 0).ok()?;
    parse(std::str::from_utf8(line.get(..bytes)?).ok()?)
}

fn parse(line: &str) -> Option<u64> {
    let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
    let (ran, waited) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(ran.saturating_add(waited))
}

/// Whether a thread is to be at home that could have run for so many percent of the time.
fn stays(at_home: bool, percent: u128) -> bool {
    if at_home { percent <= BUSY } else { percent < IDLE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_busy_is_let_go_and_comes_back() {
        assert!(stays(true, 35) && stays(true, BUSY) && !stays(true, BUSY + 1));
        assert!(!stays(false, 35) && !stays(false, IDLE) && stays(false, IDLE - 1));
    }

    #[test]
    fn the_kernels_line_is_read() {
        assert_eq!(parse("1200 34 5\n"), Some(1234));
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
            std::thread::sleep(3 * LOOK_EVERY);
            perch.look(crate::clock::now());
            assert_eq!(cpu::allowed().unwrap(), [home], "it was not");
        })
        .join()
        .unwrap();
    }
}
