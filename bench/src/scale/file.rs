//! One large file, with a mebibyte of data in each 64.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::ensure;
use rustix::fs::Advice;

use super::cluster::Cluster;
use super::study::{Rule, Study};
use super::work::{check_end, micros, millis, timed};
use crate::pattern::{self, CHUNK, PAGE, Random};
use crate::target::Context;

pub(super) const ID: &str = "file";

/// Data in each of so many bytes, [`CHUNK`] of it.
const STRIDE: u64 = 64 << 20;
/// Reads and writes.
const PAGES: u64 = 200;
/// They are within so many bytes from the end: 16 chunks.
const END: u64 = 1 << 30;
/// Seed of pages that were written over.
const WRITTEN_OVER: u64 = 1;

/// Makes a file of each size and looks at it.
///
/// # Errors
/// What failed; figures up to there are in the study.
pub(super) fn run(study: &mut Study, context: &Context, gibibytes: &[u64]) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(context)?;
    for &size in gibibytes {
        let bytes = size << 30;
        study.step(&format!("{size} GiB"), (bytes / PAGE as u64) as f64);
        let path = cluster.root().join(format!("of-{size}-gib"));
        let (time, ()) = timed(|| make(&path, bytes))?;
        let chunks = bytes / STRIDE;
        study.note("write of 1 MiB in each 64, and fsync", "us each", Rule::Each, micros(time, chunks));

        cluster.renew()?;
        let before = cluster.memory()?;
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        rustix::fs::fadvise(&file, 0, None, Advice::Random)?;
        let mut places = places(bytes);
        let (time, ()) = timed(|| read(&file, bytes - STRIDE + CHUNK as u64 - PAGE as u64, 0))?;
        study.note("first read of 4 KiB, at the end, all cold", "us", Rule::Each, micros(time, 1));
        let of_page: Vec<u64> = (0..PAGES).map(|_| places()).collect();
        let (time, ()) = timed(|| of_page.iter().try_for_each(|offset| read(&file, *offset, 0)))?;
        study.note("random read of 4 KiB near the end", "us each", Rule::Each, micros(time, PAGES));
        let (time, ()) = timed(|| {
            let mut page = vec![0; PAGE];
            for offset in &of_page {
                pattern::fill(&mut page, WRITTEN_OVER, *offset);
                file.write_all_at(&page, *offset)?;
            }
            Ok(file.sync_all()?)
        })?;
        study.note(
            "random write of 4 KiB near the end, and fsync",
            "us each",
            Rule::Each,
            micros(time, PAGES),
        );
        of_page.iter().try_for_each(|offset| read(&file, *offset, WRITTEN_OVER))?;
        let after = cluster.memory()?;
        study.note("memory of the mount for it", "MiB", Rule::Total, (after.mount - before.mount).max(0.1));
        study.note("memory of meta for it", "MiB", Rule::Total, (after.meta - before.meta).max(0.1));

        let (time, ()) = timed(|| {
            file.set_len(bytes / 2 + 1)?;
            Ok(file.sync_all()?)
        })?;
        study.note("truncate to the half, and fsync", "ms", Rule::Total, millis(time));
        drop(file);
        let (time, ()) = timed(|| {
            std::fs::remove_file(&path)?;
            super::work::sync(&cluster.root())
        })?;
        study.note("unlink, and sync", "ms", Rule::Total, millis(time));
    }
    Ok(())
}

fn make(path: &Path, bytes: u64) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let mut chunk = vec![0; CHUNK];
    for number in 0..bytes / STRIDE {
        check_end()?;
        pattern::fill(&mut chunk, 0, number * STRIDE);
        file.write_all_at(&chunk, number * STRIDE)?;
    }
    file.set_len(bytes)?;
    Ok(file.sync_all()?)
}

/// Offsets of pages with data near the end.
fn places(bytes: u64) -> impl FnMut() -> u64 {
    let mut random = Random::new(bytes);
    let chunks = END / STRIDE;
    move || {
        let chunk = bytes - (1 + random.below(chunks)) * STRIDE;
        chunk + random.below((CHUNK / PAGE) as u64) * PAGE as u64
    }
}

fn read(file: &File, offset: u64, seed: u64) -> anyhow::Result<()> {
    let mut page = vec![0; PAGE];
    file.read_exact_at(&mut page, offset)?;
    ensure!(pattern::holds(&page, seed, offset), "the page at {offset} is not what was written");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_are_read_are_ones_with_data() {
        let bytes = 1 << 30;
        let mut places = places(bytes);
        for _ in 0..1000 {
            let offset = places();
            assert!(offset < bytes && offset % STRIDE < CHUNK as u64 && offset.is_multiple_of(PAGE as u64));
        }
    }
}
