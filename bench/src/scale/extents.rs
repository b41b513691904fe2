//! Extents in one file: pages with holes between them, so that none merges with the next.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use anyhow::ensure;
use rustix::fs::Advice;

use super::cluster::Cluster;
use super::study::{Rule, Study};
use super::work::{check_end, micros, millis, timed};
use crate::pattern::{self, PAGE, Random};
use crate::process;
use crate::target::Context;

pub(super) const ID: &str = "extents";

/// Bytes from one page to the next.
const STRIDE: u64 = 2 * PAGE as u64;
/// Pages that are read.
const READ: u64 = 300;
/// Time for the space of a removed file to come back.
const BACK_LIMIT: Duration = Duration::from_secs(180);

/// Makes a file of each number of extents and looks at it.
///
/// # Errors
/// What failed; figures up to there are in the study.
pub(super) fn run(study: &mut Study, context: &Context, sizes: &[u64]) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(context)?;
    cluster.keep_nothing()?;
    for &size in sizes {
        study.step(&super::run::count(size), size as f64);
        let path = cluster.root().join(format!("of-{size}"));
        let empty = cluster.stored_bytes();
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let last = size / 10;
        write(&file, 0..size - last)?;
        let (time, ()) = timed(|| write(&file, size - last..size))?;
        study.note("write, the last tenth, and fsync", "us each", Rule::Each, micros(time, last));
        drop(file);
        let full = cluster.stored_bytes();

        cluster.renew()?;
        let before = cluster.memory()?;
        let cached = cluster.cache_bytes()?;
        let file = File::open(&path)?;
        rustix::fs::fadvise(&file, 0, None, Advice::Random)?;
        let (time, ()) = timed(|| read(&file, size - 1))?;
        study.note("first read of 4 KiB, at the end, all cold", "us", Rule::Each, micros(time, 1));
        let mut random = Random::new(size);
        let places: Vec<u64> = (0..READ).map(|_| random.below(size)).collect();
        let (time, ()) = timed(|| places.iter().try_for_each(|number| read(&file, *number)))?;
        study.note("random read of 4 KiB, cold", "us each", Rule::Each, micros(time, READ));
        let after = cluster.memory()?;
        study.note("memory of meta for it", "MiB", Rule::Total, (after.meta - before.meta).max(0.1));
        study.note(
            "memory of the mount for it, data included",
            "MiB",
            Rule::Total,
            (after.mount - before.mount).max(0.1),
        );
        let cached = (cluster.cache_bytes()? - cached) / f64::from(1 << 20);
        study.note("of that in the mount's cache", "MiB", Rule::Shown, cached);
        drop(file);

        let (time, ()) = timed(|| Ok(std::fs::remove_file(&path)?))?;
        study.note("unlink", "ms", Rule::Total, millis(time));
        let least = empty + (full - empty) / 10;
        let (time, is_back) = timed(|| {
            Ok(process::wait_until(BACK_LIMIT, || {
                std::thread::sleep(Duration::from_millis(20));
                cluster.stored_bytes() <= least
            }))
        })?;
        ensure!(is_back, "the space of the removed file is not back after {BACK_LIMIT:?}");
        study.note("until nine tenths of its space are back", "ms", Rule::Total, millis(time));
    }
    Ok(())
}

fn write(file: &File, numbers: std::ops::Range<u64>) -> anyhow::Result<()> {
    let mut page = vec![0; PAGE];
    for number in numbers {
        pattern::fill(&mut page, 0, number * STRIDE);
        file.write_all_at(&page, number * STRIDE)?;
        if number.is_multiple_of(1024) {
            check_end()?;
        }
    }
    Ok(file.sync_all()?)
}

fn read(file: &File, number: u64) -> anyhow::Result<()> {
    let mut page = vec![0; PAGE];
    file.read_exact_at(&mut page, number * STRIDE)?;
    ensure!(pattern::holds(&page, 0, number * STRIDE), "page {number} is not what was written");
    Ok(())
}
