//! The default engine: fjall, with a thread that makes commits durable in groups.
//!
//! fjall's own `persist` syncs while it holds the lock of its journal, and every commit would wait for the disk. So the
//! sync thread only has fjall hand its buffer to the kernel and then syncs the journal file through a descriptor of its
//! own. That is enough: fjall numbers journals upward (`N.jnl` in the database's directory) and syncs one fully before it
//! starts the next (`journal/writer.rs`, `rotate`).
//!
//! fjall is poisoned by a failed write and refuses everything from then on. A full disk must not bring that about:
//! commits are refused while there is still room for its journal and its compactions.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::Commit;

use super::store::{SEQUENCE_JUMP, SEQUENCE_KEY};
use super::{Batch, Durable, Publisher, Store, Visit};

/// Free bytes below which only batches that free space are taken.
const RESERVE_BYTES: u64 = 256 << 20;
/// Free bytes below which nothing is taken: a journal is allocated 64 MiB at a time.
const RESERVE_BYTES_MIN: u64 = 96 << 20;
/// Name of the one keyspace.
const KEYSPACE: &str = "volume";

/// How to run the engine.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Memory for cached blocks of tables, bytes.
    pub cache_bytes: u64,
    /// Threads that flush and compact.
    pub workers: usize,
    /// Keep room on the disk (off only in tests on tiny file systems).
    pub reserve: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: 128 << 20, workers: 2, reserve: true }
    }
}

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{path}: the database is in use: stop the other metadata server or verify first")]
    Locked {
        /// Its directory.
        path: PathBuf,
    },
    /// The engine says no.
    #[error("{path}: the database cannot be opened: {cause}")]
    Engine {
        /// Its directory.
        path: PathBuf,
        /// The engine's words.
        cause: String,
    },
    /// The sync thread cannot be started.
    #[error("cannot start the sync thread: {0}")]
    Thread(std::io::Error),
}

/// A fjall database of one volume.
pub struct Fjall {
    database: Database,
    keyspace: Keyspace,
    sequence: u64,
    shared: Arc<Shared>,
    syncer: Option<JoinHandle<()>>,
    reserve: bool,
}

/// How much room the disk under a database has; shared, measured by the sync thread.
#[derive(Clone, Debug)]
pub struct Space(Arc<Shared>);

impl Space {
    /// Bytes free for the engine.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.0.free_bytes.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Shared {
    publisher: Publisher,
    free_bytes: AtomicU64,
    wanted: Mutex<Wanted>,
    work: Condvar,
}

#[derive(Debug)]
struct Wanted {
    sequence: u64,
    stop: bool,
}

impl Fjall {
    /// Opens the database in a directory, or makes one there.
    ///
    /// # Errors
    /// `OpenError`.
    pub fn open(path: &Path, options: Options) -> Result<Self, OpenError> {
        let engine = |error: fjall::Error| match error {
            fjall::Error::Locked => OpenError::Locked { path: path.into() },
            error => OpenError::Engine { path: path.into(), cause: error.to_string() },
        };
        let database = Database::builder(path)
            .cache_size(options.cache_bytes)
            .worker_threads(options.workers.max(1))
            .manual_journal_persist(true)
            .open()
            .map_err(engine)?;
        let keyspace = database
            .keyspace(KEYSPACE, || KeyspaceCreateOptions::default().manual_journal_persist(true))
            .map_err(engine)?;
        let survived = match keyspace.get(SEQUENCE_KEY).map_err(engine)? {
            Some(bytes) => {
                bytes.as_ref().try_into().map(u64::from_le_bytes).map_err(|_| OpenError::Engine {
                    path: path.into(),
                    cause: "the sequence is damaged; restore the database from a copy".into(),
                })?
            }
            None => 0,
        };
        // Whatever was read must be on the disk before anything is built on it: the last crash may have left it in
        // the page cache only.
        database.persist(PersistMode::SyncAll).map_err(engine)?;
        let shared = Arc::new(Shared {
            publisher: Publisher::starting_at(Commit(survived)),
            free_bytes: AtomicU64::new(free_bytes(path).unwrap_or(u64::MAX)),
            wanted: Mutex::new(Wanted { sequence: survived, stop: false }),
            work: Condvar::new(),
        });
        let syncer = Syncer {
            database: database.clone(),
            shared: Arc::clone(&shared),
            folder: path.into(),
            journal: None,
        };
        let syncer = std::thread::Builder::new()
            .name("flexfs-sync".into())
            .spawn(move || syncer.run())
            .map_err(OpenError::Thread)?;
        // An empty store has answered nothing that could be lost.
        let sequence = if survived == 0 { 0 } else { survived + SEQUENCE_JUMP };
        Ok(Self { database, keyspace, sequence, shared, syncer: Some(syncer), reserve: options.reserve })
    }

    /// The room on its disk.
    #[must_use]
    pub fn space(&self) -> Space {
        Space(Arc::clone(&self.shared))
    }

    fn check_space(&self, frees: bool) -> Result<(), Errno> {
        let needed = if frees { RESERVE_BYTES_MIN } else { RESERVE_BYTES };
        if self.reserve && self.shared.free_bytes.load(Ordering::Relaxed) < needed {
            return Err(Errno::ENOSPC);
        }
        Ok(())
    }

    fn stop(&mut self) {
        let Some(syncer) = self.syncer.take() else { return };
        self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.shared.work.notify_all();
        if syncer.join().is_err() {
            self.shared.publisher.fail();
        }
    }
}

impl Store for Fjall {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
        match self.keyspace.get(key) {
            Ok(value) => Ok(value.map(|value| value.to_vec())),
            Err(error) => Err(refused("read", &error)),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), Errno> {
        if from >= to {
            return Ok(());
        }
        for pair in self.keyspace.range(from..to) {
            let (key, value) = pair.into_inner().map_err(|error| refused("scan", &error))?;
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn commit(&mut self, batch: Batch) -> Result<Commit, Errno> {
        if self.shared.publisher.watch().has_failed() {
            return Err(Errno::EIO);
        }
        self.check_space(batch.frees)?;
        let next = self.sequence + 1;
        let mut write = fjall::OwnedWriteBatch::with_capacity(self.database.clone(), batch.changes.len() + 1);
        for (key, value) in batch.changes {
            match value {
                Some(value) => write.insert(&self.keyspace, key, value),
                None => write.remove(&self.keyspace, key),
            }
        }
        write.insert(&self.keyspace, SEQUENCE_KEY, next.to_le_bytes());
        if let Err(error) = write.commit() {
            self.shared.publisher.fail();
            return Err(refused("write", &error));
        }
        self.sequence = next;
        self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner).sequence = next;
        self.shared.work.notify_one();
        Ok(Commit(next))
    }

    fn durable(&self) -> &Durable {
        self.shared.publisher.watch()
    }

    fn close(mut self) -> Result<(), Errno> {
        self.stop();
        let durable = self.shared.publisher.watch();
        if durable.has_failed() {
            return Err(Errno::EIO);
        }
        // Flushes the memory tables of nothing: the journal has it all. Only its tail must be on the disk.
        self.database.persist(PersistMode::SyncAll).map_err(|error| refused("sync", &error))
    }
}

impl Drop for Fjall {
    fn drop(&mut self) {
        self.stop();
    }
}

impl std::fmt::Debug for Fjall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fjall").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// The thread that makes commits durable.
struct Syncer {
    database: Database,
    shared: Arc<Shared>,
    folder: PathBuf,
    journal: Option<(u64, File)>,
}

impl Syncer {
    fn run(mut self) {
        while let Some(sequence) = self.next() {
            if let Err(error) = self.sync() {
                tracing::error!(%error, folder = %self.folder.display(), "the metadata engine cannot write its journal; restart the server when the disk is well");
                self.shared.publisher.fail();
                return;
            }
            self.shared.publisher.publish(Commit(sequence));
            if let Some(free) = free_bytes(&self.folder) {
                self.shared.free_bytes.store(free, Ordering::Relaxed);
            }
        }
    }

    /// Waits for something that is not durable. `None`: all is, and the store is closed.
    fn next(&self) -> Option<u64> {
        let durable = self.shared.publisher.watch().current().0;
        let mut wanted = self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if wanted.sequence > durable {
                return Some(wanted.sequence);
            }
            if wanted.stop {
                return None;
            }
            // The time-out lets an idle volume notice that its disk has room again.
            let pause = std::time::Duration::from_secs(1);
            wanted = self.shared.work.wait_timeout(wanted, pause).unwrap_or_else(PoisonError::into_inner).0;
            if let Some(free) = free_bytes(&self.folder) {
                self.shared.free_bytes.store(free, Ordering::Relaxed);
            }
        }
    }

    fn sync(&mut self) -> Result<(), String> {
        self.database.persist(PersistMode::Buffer).map_err(|error| error.to_string())?;
        loop {
            let number = self.newest()?;
            if self.journal.as_ref().is_none_or(|(open, _)| *open != number) {
                match File::open(self.folder.join(format!("{number}.jnl"))) {
                    Ok(file) => self.journal = Some((number, file)),
                    // Rotated, flushed and deleted meanwhile: it was synced before that. Look again.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error.to_string()),
                }
            }
            let Some((_, file)) = &self.journal else { continue };
            return file.sync_data().map_err(|error| error.to_string());
        }
    }

    /// Number of the journal that is written to.
    fn newest(&self) -> Result<u64, String> {
        // Mostly the one of last time; its successor would have the next number.
        if let Some((open, _)) = &self.journal
            && self.folder.join(format!("{open}.jnl")).exists()
            && !self.folder.join(format!("{}.jnl", open + 1)).exists()
        {
            return Ok(*open);
        }
        let entries = std::fs::read_dir(&self.folder).map_err(|error| error.to_string())?;
        let number = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.ok()?.file_name().to_str()?.strip_suffix(".jnl")?.parse().ok()
        };
        entries.filter_map(number).max().ok_or_else(|| "the engine has no journal".into())
    }
}

fn free_bytes(path: &Path) -> Option<u64> {
    let figures = rustix::fs::statvfs(path).ok()?;
    Some(figures.f_bavail.saturating_mul(figures.f_frsize))
}

fn refused(what: &str, error: &fjall::Error) -> Errno {
    tracing::error!(%error, "the metadata engine cannot {what}");
    Errno::EIO
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn open(path: &Path) -> Fjall {
        Fjall::open(path, Options { cache_bytes: 1 << 20, workers: 1, reserve: false }).unwrap()
    }

    fn put(store: &mut Fjall, number: u32) -> Commit {
        let mut batch = Batch::default();
        batch.put([&[7][..], &number.to_be_bytes()].concat(), number.to_le_bytes().to_vec());
        store.commit(batch).unwrap()
    }

    fn numbers(store: &Fjall) -> Vec<u32> {
        let mut found = Vec::new();
        store
            .scan(&[7], &[8], &mut |key, value| {
                assert_eq!(key[1..], u32::from_le_bytes(value.try_into().unwrap()).to_be_bytes());
                found.push(u32::from_be_bytes(key[1..].try_into().unwrap()));
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        found
    }

    /// What another process would find if this one were killed now: the files as they are.
    fn image(from: &Path) -> tempfile::TempDir {
        fn copy(from: &Path, to: &Path) {
            std::fs::create_dir_all(to).unwrap();
            for entry in std::fs::read_dir(from).unwrap() {
                let entry = entry.unwrap();
                let target = to.join(entry.file_name());
                if entry.file_type().unwrap().is_dir() {
                    copy(&entry.path(), &target);
                } else {
                    std::fs::copy(entry.path(), target).unwrap();
                }
            }
        }
        let to = tempfile::tempdir().unwrap();
        copy(from, to.path());
        to
    }

    #[test]
    fn keeps_what_it_said_is_durable_and_never_reuses_a_sequence() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path());
        let heard = Arc::new(AtomicU64::new(0));
        let ears = Arc::clone(&heard);
        store.durable().listen(move |commit| ears.store(commit.0, Ordering::Relaxed));
        let mut last = Commit(0);
        for number in 0..1_000 {
            let commit = put(&mut store, number);
            assert_eq!(commit.0, last.0 + 1);
            last = commit;
        }
        assert!(store.durable().wait(last, LONG));
        assert_eq!(heard.load(Ordering::Relaxed), last.0);
        let killed = image(folder.path());
        for number in 1_000..1_500 {
            put(&mut store, number);
        }
        let undurable = image(folder.path());
        let survivor = open(killed.path());
        assert_eq!((numbers(&survivor), survivor.durable().current()), ((0..1_000).collect(), last));
        drop(survivor);
        let mut survivor = open(undurable.path());
        let found = numbers(&survivor);
        assert!(
            found.len() >= 1_000 && found == (0..u32::try_from(found.len()).unwrap()).collect::<Vec<_>>()
        );
        assert_eq!(survivor.durable().current().0, found.len() as u64, "a prefix, and it says how long");
        assert!(put(&mut survivor, 5_000).0 > 1_500);
        store.close().unwrap();
        assert_eq!(numbers(&open(folder.path())).len(), 1_500);
    }

    #[test]
    fn journals_rotate_under_the_syncer() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path());
        let mut last = Commit(0);
        for round in 0..3u8 {
            for number in 0..400u32 {
                let mut batch = Batch::default();
                // Not compressible, so that journals and tables are as large as they look.
                let value =
                    (0..64 * 1024u32).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[2] ^ round);
                batch.put([&[7, round][..], &number.to_be_bytes()].concat(), value.collect());
                last = store.commit(batch).unwrap();
            }
            store.keyspace.rotate_memtable_and_wait().unwrap();
        }
        assert!(store.durable().wait(last, LONG));
        let killed = image(folder.path());
        drop(store);
        let survivor = open(killed.path());
        assert_eq!(survivor.durable().current(), last);
        assert!(survivor.get(&[7, 2, 0, 0, 1, 143]).unwrap().is_some());
    }

    #[test]
    fn one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        assert!(matches!(Fjall::open(folder.path(), Options::default()), Err(OpenError::Locked { .. })));
        drop(store);
        open(folder.path());
    }

    #[test]
    fn a_disk_that_is_nearly_full_takes_only_what_frees() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path());
        store.reserve = true;
        store.shared.free_bytes.store(RESERVE_BYTES - 1, Ordering::Relaxed);
        let mut batch = Batch::default();
        batch.put(vec![7], vec![1]);
        assert_eq!(store.commit(batch.clone()), Err(Errno::ENOSPC));
        batch.set_frees();
        assert!(store.commit(batch.clone()).is_ok());
    }
}
