//! Measured loops.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use flexfs_uring::clock;

use crate::process;

/// Processes would do as well as threads: nothing of ours is shared between them.
pub(super) const FILLERS: u64 = 4;

/// The file with a number.
pub(super) fn entry(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("f{number:08}"))
}

/// Makes empty files.
///
/// # Errors
/// The first that fails.
pub(super) fn create(folder: &Path, numbers: impl IntoIterator<Item = u64>) -> anyhow::Result<()> {
    for number in numbers {
        let path = entry(folder, number);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| format!("make {}", path.display()))?;
        check_end()?;
    }
    Ok(())
}

/// The same by several threads.
///
/// # Errors
/// The first that fails.
pub(super) fn create_fast(folder: &Path, numbers: std::ops::Range<u64>) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let each = |first: u64| {
            let numbers = numbers.clone();
            scope.spawn(move || create(folder, numbers.filter(|number| number % FILLERS == first)))
        };
        let threads: Vec<_> = (0..FILLERS).map(each).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })
}

/// Lists a folder, and gives the number of its entries.
///
/// # Errors
/// Those of the folder.
pub(super) fn list(folder: &Path) -> anyhow::Result<u64> {
    let mut count = 0;
    for entry in std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        entry?;
        count += 1;
    }
    Ok(count)
}

/// Writes back what a mount holds, and waits until it is durable.
///
/// # Errors
/// Those of the file system.
pub(super) fn sync(root: &Path) -> anyhow::Result<()> {
    rustix::fs::syncfs(File::open(root)?).context("sync the mount")
}

/// Fails when the program is asked to end: a study then ends between two operations.
///
/// # Errors
/// It is.
pub(super) fn check_end() -> anyhow::Result<()> {
    ensure!(!process::is_asked_to_end(), "interrupted");
    Ok(())
}

/// Time of something, and what it gave.
///
/// # Errors
/// Those of `work`.
pub(super) fn timed<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(Duration, T)> {
    let began: Instant = clock::now();
    let result = work()?;
    Ok((clock::now() - began, result))
}

/// Microseconds of one of `count`.
pub(super) fn micros(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / count.max(1) as f64
}

/// Milliseconds.
pub(super) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Mebibytes.
pub(super) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
