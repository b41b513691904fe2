//! Journals that a crash, a power loss or a bad disk left: what is opened silently, what is refused, and what a cut keeps.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "tests: a failed step is a failed test")]

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flexfs_meta::engine::fjall::{Fjall, OpenError, Options};
use flexfs_meta::engine::{Batch, Store as _};

/// Batches of the store the tests damage.
const BATCHES: u32 = 40;
/// Bytes of a value: a batch crosses no page, or few.
const VALUE_BYTES: usize = 300;

/// A closed store, and where each of its batches ends in the journal.
struct Made {
    folder: tempfile::TempDir,
    ends: Vec<u64>,
}

impl Made {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path(), false).unwrap();
        for number in 0..BATCHES {
            let mut batch = Batch::default();
            batch.put([&[7][..], &number.to_be_bytes()].concat(), value(number));
            let commit = store.commit(batch).unwrap();
            assert!(store.durable().wait(commit, Duration::from_secs(60)));
        }
        store.close().unwrap();
        let bytes = fs::read(journal(folder.path())).unwrap();
        let trailer = b"FJL\x03";
        let ends = (4..=bytes.len()).filter(|at| &bytes[at - 4..*at] == trailer).map(|at| at as u64);
        let ends: Vec<u64> = ends.collect();
        assert!(ends.len() >= BATCHES as usize);
        Self { ends: ends[ends.len() - BATCHES as usize..].to_vec(), folder }
    }

    /// A copy, to damage. Without the note of what was synced it is what a power loss leaves: that may be late.
    fn copy(&self, noted: bool) -> tempfile::TempDir {
        let to = tempfile::tempdir().unwrap();
        copy(self.folder.path(), to.path());
        if !noted {
            fs::remove_file(to.path().join("durable")).unwrap();
        }
        to
    }

    /// Whole batches before a place.
    fn whole(&self, at: u64) -> u32 {
        u32::try_from(self.ends.iter().filter(|end| **end <= at).count()).unwrap()
    }

    fn end(&self) -> u64 {
        *self.ends.last().unwrap()
    }
}

fn value(number: u32) -> Vec<u8> {
    (0..VALUE_BYTES).map(|at| u8::try_from((at * 31 + number as usize * 7) % 251).unwrap() + 1).collect()
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn open(folder: &Path, cut_journal: bool) -> Result<Fjall, OpenError> {
    Fjall::open(folder, Options { cache_bytes: 1 << 20, workers: 1, cut_journal, ..Options::default() })
}

fn journal(folder: &Path) -> PathBuf {
    let mut found: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "jnl"));
    assert_eq!(found.len(), 1);
    found.remove(0)
}

/// The numbers a store holds: always a prefix.
fn count(store: &Fjall) -> u32 {
    let mut next = 0u32;
    store
        .scan(&[7], &[8], &mut |key, found| {
            assert_eq!(key[1..], next.to_be_bytes());
            assert_eq!(found, value(next));
            next += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    next
}

fn damage(folder: &Path, at: u64, bytes: &[u8]) {
    File::options().write(true).open(journal(folder)).unwrap().write_all_at(bytes, at).unwrap();
}

#[test]
fn every_torn_tail_is_recovered_to_whole_batches() {
    let made = Made::new();
    let end = made.end();
    let from = made.ends[made.ends.len() - 3];
    for at in (from..end).step_by(41).chain([end - 1, end]) {
        let folder = made.copy(false);
        File::options().write(true).open(journal(folder.path())).unwrap().set_len(at).unwrap();
        let mut store = open(folder.path(), false).unwrap_or_else(|error| panic!("cut at {at}: {error}"));
        assert_eq!(count(&store), made.whole(at), "cut at {at}");
        // What comes next lies behind whole batches.
        let mut batch = Batch::default();
        batch.put(vec![9], vec![1]);
        store.commit(batch).unwrap();
        store.close().unwrap();
        let store = open(folder.path(), false).unwrap();
        assert_eq!((count(&store), store.get(&[9]).unwrap()), (made.whole(at), Some(vec![1])), "cut at {at}");
    }
}

#[test]
fn a_last_batch_with_a_hole_is_torn() {
    let made = Made::new();
    let from = made.ends[made.ends.len() - 2];
    for at in (from..made.end()).step_by(97) {
        for bytes in [&[0; 16][..], &[0xff; 5], &[1; 13]] {
            let folder = made.copy(false);
            damage(folder.path(), at, bytes);
            let store = open(folder.path(), false).unwrap_or_else(|error| panic!("hole at {at}: {error}"));
            assert_eq!(count(&store), BATCHES - 1, "hole at {at}");
        }
    }
}

#[test]
fn a_hole_in_the_middle_is_refused_and_can_be_cut() {
    let made = Made::new();
    for (round, at) in (made.ends[3]..made.ends[6]).step_by(190).enumerate() {
        let folder = made.copy(false);
        let bytes: &[u8] = if round % 2 == 0 { &[0; 24] } else { &[0xa5; 7] };
        damage(folder.path(), at, bytes);
        let before = fs::read(journal(folder.path())).unwrap();
        let error = open(folder.path(), false).unwrap_err();
        let OpenError::Damaged(found) = &error else { panic!("hole at {at}: {error}") };
        assert_eq!(made.whole(found.offset), made.whole(at), "hole at {at}: {found:?}");
        assert!(found.behind.is_some_and(|(_, _, count)| count > 30) && !found.sealed, "{found:?}");
        let text = error.to_string();
        assert!(
            text.contains(&format!("damaged at byte {}", found.offset)) && text.contains("--cutJournal"),
            "{text}"
        );
        assert!(fs::read(journal(folder.path())).unwrap() == before, "a refusal changes nothing");
        let store = open(folder.path(), true).unwrap();
        assert_eq!(count(&store), made.whole(at));
        let kept = journal(folder.path()).with_extension(format!("cut-at-{}", found.offset));
        assert!(fs::read(kept).unwrap() == before, "the journal is kept beside it");
        drop(store);
        assert_eq!(count(&open(folder.path(), false).unwrap()), made.whole(at));
    }
}

#[test]
fn losing_what_was_synced_is_never_silent() {
    let made = Made::new();
    // The last batch: a torn tail by its looks, were it not noted as synced.
    let (from, end) = (made.ends[made.ends.len() - 2], made.end());
    for at in [from, from + 1, from + 20, end - 1] {
        let folder = made.copy(true);
        File::options().write(true).open(journal(folder.path())).unwrap().set_len(at).unwrap();
        for _ in 0..2 {
            let error = open(folder.path(), false).unwrap_err();
            assert!(matches!(error, OpenError::Damaged(_) | OpenError::Lost { .. }), "{at}: {error}");
            assert!(error.to_string().contains("--cutJournal"), "{error}");
        }
        let store = open(folder.path(), true).unwrap();
        assert_eq!(count(&store), BATCHES - 1);
        drop(store);
        assert_eq!(count(&open(folder.path(), false).unwrap()), BATCHES - 1, "accepted once is enough");
    }
}

#[test]
fn a_damaged_sealed_journal_is_refused() {
    let made = Made::new();
    let folder = made.copy(false);
    damage(folder.path(), made.ends[5] + 30, &[0; 8]);
    let old = journal(folder.path());
    fs::write(old.with_file_name("7.jnl"), b"").unwrap();
    for cut in [false, true] {
        let error = open(folder.path(), cut).unwrap_err();
        assert!(matches!(&error, OpenError::Damaged(found) if found.sealed), "{error}");
        assert!(
            error.to_string().contains("from a copy") && !error.to_string().contains("--cutJournal"),
            "{error}"
        );
    }
}
