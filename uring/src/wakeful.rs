//! Idle CPUs that wake quickly, while programs wait for that.
//!
//! A request to a file system in user space wakes two threads: the one that serves it, and the one that asked. The kernel likes to wake a
//! thread on a CPU that is idle, and one that sleeps deeply takes longer to wake than the request takes: a virtual CPU that halted has left
//! its machine, and comes back after some 18 us. So while requests follow closely on one another the kernel is asked to let no CPU
//! sleep deeper than this allows, through `/dev/cpu_dma_latency` (Documentation/power/pm_qos_interface.rst), as profiles for low latency do
//! for good; and told soon after they ceased that it may. The wish belongs to the open file: it ends with the process, whatever ends that.
//!
//! The price: CPUs that are idle meanwhile save less power, and virtual ones spin.

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::clock;

/// Where the wish is written: a number of microseconds, 32 bits, in the machine's order of bytes.
const DEVICE: &str = "/dev/cpu_dma_latency";
/// No wish (`PM_QOS_DEFAULT_VALUE`).
const NO_WISH: i32 = -1;
/// The sleeping states of a CPU, from the lightest on.
const STATES: &str = "/sys/devices/system/cpu/cpu0/cpuidle";
/// A state that takes longer to wake from is no light sleep: C1 of x86 and WFI of ARM take 1 or 2.
const LIGHT_SLEEP_MICROS_MAX: u32 = 10;
/// Requests of a thread that are looked at together.
const BATCH: u32 = 16;
/// So many within this time follow closely.
const CLOSE: Duration = Duration::from_millis(4);
/// How often it is looked whether they have ceased, and fewer than how many that is.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const FEW: u64 = 2 * BATCH as u64;
/// Such looks until the wish is taken back.
const QUIET_LOOKS: u32 = 2;

thread_local! {
    /// Requests of the thread's batch so far, and when it began.
    static NOTED: Cell<(u32, Option<Instant>)> = const { Cell::new((0, None)) };
}

/// How long CPUs may take to wake up while requests come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Latency {
    /// Those of a virtual machine do not sleep, others only lightly; if they can do nothing between spinning and deep sleep, as they like.
    #[default]
    Auto,
    /// As long as they like.
    Off,
    /// So many microseconds; 0: they do not sleep.
    Micros(u32),
}

impl FromStr for Latency {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => text
                .parse()
                .ok()
                .filter(|&micros| i32::try_from(micros).is_ok())
                .map(Self::Micros)
                .ok_or_else(|| format!("{text:?} is no latency: give auto, off, or microseconds, e.g. 2")),
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::Micros(micros) => write!(f, "{micros}"),
        }
    }
}

impl Latency {
    fn micros(self) -> Option<u32> {
        match self {
            Self::Auto if is_virtual() => Some(0),
            Self::Auto => light_sleep(Path::new(STATES)),
            Self::Off => None,
            Self::Micros(micros) => Some(micros),
        }
    }
}

/// Whether a hypervisor runs this machine; x86 says so among the flags of its CPUs.
fn is_virtual() -> bool {
    std::fs::read_to_string("/proc/cpuinfo")
        .is_ok_and(|info| info.lines().any(|line| line.starts_with("flags") && line.contains(" hypervisor")))
}

/// What waking from the lightest sleep takes, microseconds; state 0 may be spinning, which takes none.
fn light_sleep(states: &Path) -> Option<u32> {
    let latency = |number: u32| -> Option<u32> {
        std::fs::read_to_string(states.join(format!("state{number}/latency"))).ok()?.trim().parse().ok()
    };
    (0..).map_while(latency).find(|&latency| latency > 0).filter(|&latency| latency <= LIGHT_SLEEP_MICROS_MAX)
}

/// The wish of this process. Ends with the value.
#[derive(Debug)]
pub struct Wakeful {
    shared: Arc<Shared>,
    micros: u32,
    keeper: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Requests since it was looked last, in whole batches.
    noted: AtomicU64,
    /// In force.
    held: AtomicBool,
    ended: AtomicBool,
}

/// The device, opened while this process may still do so.
#[derive(Debug)]
pub struct Opened {
    device: File,
    micros: u32,
}

/// Opens the device. `None` where nothing is wished for.
///
/// # Errors
/// Only root may, and a container may lack it.
pub fn open(latency: Latency) -> io::Result<Option<Opened>> {
    let Some(micros) = latency.micros() else { return Ok(None) };
    let device = File::options().write(true).open(DEVICE)?;
    Ok(Some(Opened { device, micros }))
}

impl Opened {
    /// From now on requests are counted.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(self) -> io::Result<Wakeful> {
        let shared = Arc::new(Shared::default());
        let (kept, micros) = (Arc::clone(&shared), self.micros);
        let keeper = thread::Builder::new().name("wakeful".to_owned()).spawn(move || self.keep(&kept))?;
        Ok(Wakeful { shared, micros, keeper: Some(keeper) })
    }

    fn keep(mut self, shared: &Shared) {
        while !shared.ended.load(Ordering::Acquire) {
            thread::park();
            if shared.noted.swap(0, Ordering::Relaxed) == 0 {
                continue;
            }
            if let Err(error) = self.wish(i32::try_from(self.micros).unwrap_or(i32::MAX)) {
                return tracing::warn!(%error, "the kernel takes no wish for CPUs that wake quickly");
            }
            shared.held.store(true, Ordering::Relaxed);
            let mut quiet = 0;
            while quiet < QUIET_LOOKS && !shared.ended.load(Ordering::Acquire) {
                thread::park_timeout(LOOK_EVERY);
                quiet = if shared.noted.swap(0, Ordering::Relaxed) < FEW { quiet + 1 } else { 0 };
            }
            shared.held.store(false, Ordering::Relaxed);
            if let Err(error) = self.wish(NO_WISH) {
                // Closing the device takes it back, too.
                return tracing::warn!(%error, "a wish for CPUs that wake quickly could not be taken back");
            }
        }
    }

    fn wish(&mut self, micros: i32) -> io::Result<()> {
        self.device.write_all(&micros.to_ne_bytes())
    }
}

impl Wakeful {
    /// A request is served on this thread: a few nanoseconds, a look at the clock with each sixteenth.
    pub fn note(&self) {
        let (noted, began) = NOTED.get();
        if noted + 1 < BATCH {
            return NOTED.set((noted + 1, began));
        }
        let now = clock::now();
        NOTED.set((0, Some(now)));
        if began.is_none_or(|began| now.saturating_duration_since(began) > CLOSE) {
            return;
        }
        self.shared.noted.fetch_add(BATCH.into(), Ordering::Relaxed);
        if !self.is_held()
            && let Some(keeper) = &self.keeper
        {
            keeper.thread().unpark();
        }
    }

    /// What is wished for while requests come, microseconds.
    #[must_use]
    pub fn micros(&self) -> u32 {
        self.micros
    }

    /// Whether the kernel was asked, and not told since that it may let CPUs sleep.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.shared.held.load(Ordering::Relaxed)
    }
}

impl Drop for Wakeful {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        if let Some(keeper) = self.keeper.take() {
            keeper.thread().unpark();
            if keeper.join().is_err() {
                tracing::error!("the thread that keeps CPUs wakeful panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written to a file in place of the device.
    fn wishes(path: &Path) -> Vec<i32> {
        let bytes = std::fs::read(path).unwrap();
        bytes.chunks(4).map(|four| i32::from_ne_bytes(four.try_into().unwrap())).collect()
    }

    fn started() -> (tempfile::TempDir, std::path::PathBuf, Wakeful) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device");
        let device = File::create(&path).unwrap();
        (folder, path, Opened { device, micros: 7 }.start().unwrap())
    }

    fn wait_until(what: impl Fn() -> bool) {
        let deadline = clock::now() + Duration::from_secs(20);
        while !what() {
            assert!(clock::now() < deadline, "it did not happen");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Requests come until they are seen.
    fn make_busy(wakeful: &Wakeful) {
        wait_until(|| {
            (0..100).for_each(|_| wakeful.note());
            wakeful.is_held()
        });
    }

    #[test]
    fn the_wish_lasts_while_requests_follow_closely() {
        let (_folder, path, wakeful) = started();
        make_busy(&wakeful);
        assert_eq!(wishes(&path), [7]);
        wait_until(|| !wakeful.is_held() && wishes(&path).len() == 2);
        assert_eq!(wishes(&path), [7, NO_WISH]);
    }

    #[test]
    fn requests_with_pauses_between_them_wish_for_nothing() {
        let (_folder, path, wakeful) = started();
        for _ in 0..10 {
            (0..BATCH).for_each(|_| wakeful.note());
            thread::sleep(2 * CLOSE);
        }
        assert!(!wakeful.is_held() && wishes(&path).is_empty());
    }

    #[test]
    fn it_ends_while_it_is_in_force() {
        let (_folder, path, wakeful) = started();
        make_busy(&wakeful);
        drop(wakeful);
        assert_eq!(wishes(&path), [7, NO_WISH]);
    }

    #[test]
    fn latencies_as_they_are_written() {
        for (text, latency) in [
            ("auto", Latency::Auto),
            ("off", Latency::Off),
            ("0", Latency::Micros(0)),
            ("20", Latency::Micros(20)),
        ] {
            assert_eq!((text.parse(), latency.to_string().as_str()), (Ok(latency), text));
        }
        for bad in ["", "-1", "on", "4294967295", "2us"] {
            assert!(bad.parse::<Latency>().is_err(), "{bad}");
        }
        assert_eq!((Latency::Off.micros(), Latency::Micros(3).micros()), (None, Some(3)));
    }

    #[test]
    fn light_sleep_is_found_among_the_states() {
        let folder = tempfile::tempdir().unwrap();
        let state = |number: u32, latency: u32| {
            let state = folder.path().join(format!("state{number}"));
            std::fs::create_dir(&state).unwrap();
            std::fs::write(state.join("latency"), format!("{latency}\n")).unwrap();
        };
        assert_eq!(light_sleep(folder.path()), None, "no driver");
        state(0, 0);
        assert_eq!(light_sleep(folder.path()), None, "spinning");
        state(1, 2);
        state(2, 50);
        assert_eq!(light_sleep(folder.path()), Some(2));
        std::fs::write(folder.path().join("state1/latency"), "50").unwrap();
        assert_eq!(light_sleep(folder.path()), None, "spinning, and deep sleep");
    }
}
