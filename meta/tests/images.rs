//! Crash images: every state in which a power loss can leave the engine's folder, made out of a real run.
//!
//! A run of the engine is traced (`strace`), and its changes to files are done again in another folder, up to each of
//! them in turn. There the engine must open, hold whole batches up to one of them, and all that was reported durable before.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "tests: a failed step is a failed test")]

mod image {
    pub(crate) mod disk;
    pub(crate) mod trace;
}

use std::fs::File;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use flexfs_meta::engine::fjall::{Fjall, Options};
use flexfs_meta::engine::{Batch, Store as _};

use image::disk::Disk;
use image::trace::{Op, Trace};

/// Tells the child what to run: folder, batches, bytes of a value.
const RUN: &str = "FLEXFS_IMAGES_RUN";

/// Tables are written early: some in each run.
fn options(value_bytes: usize) -> Options {
    let table_bytes = Some(value_bytes as u64 * 20);
    Options { cache_bytes: 1 << 20, workers: 1, table_bytes, ..Options::default() }
}

/// Nothing that compresses: the journal is to grow.
fn value(number: u32, bytes: usize) -> Vec<u8> {
    let mut state = u64::from(number) * 2 + 1;
    let next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// The traced process: commits batches of two keys, and writes down what is durable. Twice as many at most, until there are enough
/// journals: the engine begins one when its worker comes to it, which other tests may keep from the CPU and the disk.
#[test]
fn child() {
    let Ok(run) = std::env::var(RUN) else { return };
    let [folder, batches, bytes, journals] = *run.split(' ').collect::<Vec<_>>() else { panic!("{run}") };
    let (batches, bytes): (u32, usize) = (batches.parse().unwrap(), bytes.parse().unwrap());
    let last_journal = Path::new(folder).join(format!("db/{}.jnl", journals.parse::<u32>().unwrap() - 1));
    let mut said = File::create(Path::new(folder).join("said")).unwrap();
    let mut store = Fjall::open(&Path::new(folder).join("db"), options(bytes)).unwrap();
    let mut count = 0;
    for number in 0..2 * batches {
        if number >= batches && last_journal.exists() {
            break;
        }
        count += 1;
        let mut batch = Batch::default();
        // One key comes once, one is overwritten each time: both must tell the same number.
        batch.put([&[7][..], &number.to_be_bytes()].concat(), value(number, bytes));
        batch.put(vec![8], number.to_be_bytes().to_vec());
        let commit = store.commit(batch).unwrap();
        // Not after each: groups are what the sync thread makes of them.
        if number % 3 == 2 {
            assert!(store.durable().wait(commit, Duration::from_secs(60)));
            said.write_all(format!("{number}\n").as_bytes()).unwrap();
        }
    }
    store.close().unwrap();
    said.write_all(format!("{}\n", count - 1).as_bytes()).unwrap();
}

/// Runs the child under strace.
fn trace(folder: &Path, batches: u32, bytes: usize, journals: u32) -> Trace {
    let log = folder.join("trace");
    let run = format!("{} {batches} {bytes} {journals}", folder.display());
    let status = Command::new("strace")
        .args(["-f", "-xx", "-y", "-s", "1000000000", "-e", image::trace::CALLS, "-o"])
        .arg(&log)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child"])
        .env(RUN, run)
        .output()
        .expect("strace is missing: apt-get install strace");
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    let trace = Trace::read(&log, folder);
    std::fs::remove_file(log).unwrap();
    trace
}

/// Opens an image; the number of batches in it.
fn open(folder: &Path, bytes: usize, shown: &str) -> u32 {
    let store = Fjall::open(folder, options(bytes)).unwrap_or_else(|error| panic!("{shown}: {error}"));
    let mut count = 0u32;
    store
        .scan(&[7], &[8], &mut |key, found| {
            assert_eq!(key[1..], count.to_be_bytes(), "{shown}: a batch is missing in between");
            assert_eq!(found, value(count, bytes), "{shown}");
            count += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    let last = store.get(&[8]).unwrap().map(|bytes| u32::from_be_bytes(bytes.try_into().unwrap()));
    assert_eq!(last, count.checked_sub(1), "{shown}: half a batch");
    count
}

/// Checks the images before the changes that `picks` picks. The number checked.
fn check(trace: &Trace, bytes: usize, picks: impl Fn(usize) -> bool) -> usize {
    // In memory: each open syncs.
    let memory = Path::new("/dev/shm");
    let scratch = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let (mut disk, mut said, mut checked) = (Disk::default(), 0, 0);
    for (at, op) in trace.ops.iter().enumerate() {
        match op {
            Op::Said(number) => said = number + 1,
            op => disk.apply(op),
        }
        if !picks(at) {
            continue;
        }
        for synced_only in [false, true] {
            let shown = format!("image {at} of {} ({op}), synced only: {synced_only}", trace.ops.len());
            let folder = scratch.path().join("image");
            disk.write(&trace.folder, &folder, synced_only);
            let count = open(&folder.join("db"), bytes, &shown);
            assert!(count >= said, "{shown}: {count} batches, and {said} had been reported durable");
            std::fs::remove_dir_all(&folder).unwrap();
            checked += 1;
        }
    }
    checked
}

#[test]
fn every_prefix_of_the_writes_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace(folder.path(), 120, 1500, 1);
    assert!(trace.count("rename") + trace.count("sync") > 40, "no tables were written: {}", trace.summary());
    // Before it is moved to its place there is nothing to open: each image makes a database anew, which takes time.
    let born = trace.births("db");
    let checked = check(&trace, 1500, |at| at >= born || at % 5 == 0);
    eprintln!("{checked} images; {}", trace.summary());
}

/// The journal of 64 MB is full and the next one begins: the images around it.
#[test]
fn the_next_journal_begins() {
    const BYTES: usize = 200_000;
    let folder = tempfile::tempdir().unwrap();
    let trace = trace(folder.path(), 400, BYTES, 2);
    let journals: Vec<usize> = trace.creations(".jnl");
    assert!(journals.len() >= 2, "no second journal: {}", trace.summary());
    let begins = journals[1];
    let checked = check(&trace, BYTES, |at| (begins.saturating_sub(3)..begins + 9).contains(&at));
    eprintln!("{checked} images; {}", trace.summary());
}
