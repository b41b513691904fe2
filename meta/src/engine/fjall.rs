//! The default engine: fjall, with a thread that makes commits durable in groups.
//!
//! fjall's own `persist` syncs while it holds the lock of its journal, and every commit would wait for the disk. So the
//! sync thread only has fjall hand its buffer to the kernel and then syncs the journal file through a descriptor of its
//! own. That is enough: fjall numbers journals upward (`N.jnl` in the database's directory) and syncs one fully before it
//! starts the next (`journal/writer.rs`, `rotate`).
//!
//! fjall is poisoned by a failed write and refuses everything from then on. A full disk must not bring that about:
//! commits are refused while there is still room for its journal and its compactions (`room`), and the journal that is
//! written to has its space allocated ahead.
//!
//! Beside the journals lies `durable`: the sequence up to which they were synced (u64, little-endian). It is written after
//! each sync and synced when nothing else is to do, so it may be late and is never ahead: a database that holds less has
//! lost what clients were told to be durable.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::Commit;

use rustix::fs::{FallocateFlags, fallocate};

use super::key::Tag;
use super::store::{SEQUENCE_JUMP, SEQUENCE_KEY};
use super::{Batch, Damage, Durable, Publisher, Room, Store, Visit, creation, journal};
use crate::clock;

/// Name of the keyspace of all rows but the small blocks.
const KEYSPACE: &str = "volume";
/// Name of the keyspace of the small blocks. They share journals and commits with the other rows; a table has only where they are, and
/// compaction moves them when much around them is garbage: with the other rows they would be written again and again.
const KEYSPACE_BLOCKS: &str = "blocks";
/// Allocated ahead for a journal, bytes: fjall begins the next one at 64 MB (`worker_pool.rs`).
const JOURNAL_BYTES: u64 = 64 << 20;
/// Name of the file that says how far the journals were synced.
const DURABLE_FILE: &str = "durable";
/// fjall's own lock, and how often to ask for it: a process that ends needs a moment to let go.
const LOCK_FILE: &str = "lock";
const LOCK_TRIES: u32 = 4;
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// How long commits that nobody waits for are gathered before they are synced: a sync costs some 50 us of CPU, and the disk's journal is
/// everybody's. Their clients keep them until then, to replay them.
const GATHER: Duration = Duration::from_millis(5);
/// An idle sync thread looks around this often.
const IDLE: Duration = Duration::from_secs(1);

/// How to run the engine.
#[derive(Clone, Debug)]
pub struct Options {
    /// Memory for cached blocks of tables, bytes.
    pub cache_bytes: u64,
    /// Threads that flush and compact.
    pub workers: usize,
    /// The room on its disk; without one the disk is not looked at.
    pub room: Option<Room>,
    /// Cut a damaged journal and go on with what is before the damage.
    pub cut_journal: bool,
    /// Bytes in memory after which a table is written; `None`: the engine's 64 MB.
    pub table_bytes: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: 128 << 20, workers: 2, room: None, cut_journal: false, table_bytes: None }
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
    /// A journal has more wrong with it than the torn tail of a crash.
    #[error("{0}")]
    Damaged(Damage),
    /// The journals hold less than was synced.
    #[error(
        "{path}: the database ends at commit {found}, and up to {durable} it was synced once: the disk has lost data. Check \
         the disk and restore this folder from a copy, or start once with --cutJournal to go on without what is lost"
    )]
    Lost {
        /// Its directory.
        path: PathBuf,
        /// Its last commit.
        found: u64,
        /// The last commit that was synced, as far as is known.
        durable: u64,
    },
    /// The system refuses.
    #[error("{path}: the database cannot be read or written: {error}")]
    Io {
        /// Its directory.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// The sync thread cannot be started.
    #[error("cannot start the sync thread: {0}")]
    Thread(io::Error),
}

/// A fjall database of one volume.
pub struct Fjall {
    database: Database,
    keyspaces: Keyspaces,
    sequence: u64,
    shared: Arc<Shared>,
    syncer: Option<JoinHandle<()>>,
    room: Option<Room>,
}

/// See [`KEYSPACE`] and [`KEYSPACE_BLOCKS`].
struct Keyspaces {
    rows: Keyspace,
    blocks: Keyspace,
}

impl Keyspaces {
    /// Where a key is; for a scan, where it begins: it stays within the rows of a tag.
    fn of(&self, key: &[u8]) -> &Keyspace {
        if key.first() == Some(&(Tag::Carried as u8)) { &self.blocks } else { &self.rows }
    }
}

#[derive(Debug)]
struct Shared {
    publisher: Publisher,
    wanted: Mutex<Wanted>,
    work: Condvar,
}

#[derive(Debug)]
struct Wanted {
    sequence: u64,
    /// Somebody waits for those up to this one.
    urgent: u64,
    /// Wanted when the thread has nothing else to do.
    later: u64,
    /// The thread has nothing to do, and is to be woken for the next one.
    idle: bool,
    stop: bool,
}

impl Wanted {
    fn starting_at(sequence: u64) -> Self {
        Self { sequence, urgent: sequence, later: sequence, idle: false, stop: false }
    }
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
        let io = |error| OpenError::Io { path: path.into(), error };
        let was_used = File::open(path.join(DURABLE_FILE)).is_ok_and(|mark| read_mark(&mark) > 0);
        if !was_used && !creation::is_there(path).map_err(io)? {
            creation::create(path, io, |folder| {
                start(folder, &options)
                    .and_then(|(database, _)| database.persist(PersistMode::SyncAll))
                    .map_err(engine)
            })?;
        }
        let mark = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path.join(DURABLE_FILE))
            .map_err(io)?;
        let durable = read_mark(&mark);
        check_journals(path, durable, options.cut_journal)?;
        let (database, keyspaces) = start(path, &options).map_err(engine)?;
        let survived = match keyspaces.rows.get(SEQUENCE_KEY).map_err(engine)? {
            Some(bytes) => {
                bytes.as_ref().try_into().map(u64::from_le_bytes).map_err(|_| OpenError::Engine {
                    path: path.into(),
                    cause: "the sequence is damaged; restore the database from a copy".into(),
                })?
            }
            None => 0,
        };
        if survived < durable {
            if !options.cut_journal {
                return Err(OpenError::Lost { path: path.into(), found: survived, durable });
            }
            tracing::warn!(path = %path.display(), survived, durable, "going on without commits that were durable once");
        }
        // Whatever was read must be on the disk before anything is built on it: the last crash may have left it in
        // the page cache only.
        database.persist(PersistMode::SyncAll).map_err(engine)?;
        let shared = Arc::new(Shared {
            publisher: Publisher::starting_at(Commit(survived)),
            wanted: Mutex::new(Wanted::starting_at(survived)),
            work: Condvar::new(),
        });
        let syncer = Syncer {
            database: database.clone(),
            shared: Arc::clone(&shared),
            folder: path.into(),
            journal: None,
            room: options.room.clone(),
            mark,
            marked: false,
        };
        syncer.note(survived).and_then(|()| syncer.mark.sync_all()).map_err(io)?;
        let syncer = std::thread::Builder::new()
            .name("flexfs-sync".into())
            .spawn(move || syncer.run())
            .map_err(OpenError::Thread)?;
        // An empty store has answered nothing that could be lost.
        let sequence = if survived == 0 { 0 } else { survived + SEQUENCE_JUMP };
        Ok(Self { database, keyspaces, sequence, shared, syncer: Some(syncer), room: options.room })
    }

    fn check_room(&self, vital: bool) -> Result<(), Errno> {
        let Some(room) = &self.room else { return Ok(()) };
        // While commits are on their way the sync thread measures; the first one after a pause must not trust old figures.
        if self.shared.publisher.watch().current().0 >= self.sequence {
            room.measure();
        }
        if vital && !room.takes(vital) {
            // The reserve may just be on its way out; this waits for it.
            room.measure();
        }
        if room.takes(vital) { Ok(()) } else { Err(Errno::ENOSPC) }
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
        match self.keyspaces.of(key).get(key) {
            Ok(value) => Ok(value.map(|value| value.to_vec())),
            Err(error) => Err(refused("read", &error)),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), Errno> {
        if from >= to {
            return Ok(());
        }
        for pair in self.keyspaces.of(from).range(from..to) {
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
        self.check_room(batch.vital)?;
        let next = self.sequence + 1;
        let mut write = fjall::OwnedWriteBatch::with_capacity(self.database.clone(), batch.changes.len() + 1);
        for (key, value) in batch.changes {
            let keyspace = self.keyspaces.of(&key);
            match value {
                Some(value) => write.insert(keyspace, key, value),
                None => write.remove(keyspace, key),
            }
        }
        write.insert(&self.keyspaces.rows, SEQUENCE_KEY, next.to_le_bytes());
        if let Err(error) = write.commit() {
            self.shared.publisher.fail();
            return Err(refused("write", &error));
        }
        self.sequence = next;
        let mut wanted = self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if batch.lazy {
            wanted.later = next;
        } else {
            wanted.sequence = next;
            if std::mem::take(&mut wanted.idle) {
                self.shared.work.notify_one();
            }
        }
        Ok(Commit(next))
    }

    fn want(&self, commit: Commit) {
        let mut wanted = self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.urgent < commit.0 {
            wanted.urgent = commit.0;
            wanted.sequence = wanted.sequence.max(commit.0.min(self.sequence));
            self.shared.work.notify_one();
        }
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
    room: Option<Room>,
    mark: File,
    /// The mark is on the disk.
    marked: bool,
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
            // A mark that is late is still true.
            if let Err(error) = self.note(sequence) {
                tracing::warn!(%error, folder = %self.folder.display(), "how far the journal is synced could not be noted");
            }
            self.marked = false;
            if let Some(room) = &self.room {
                room.measure();
            }
        }
        self.keep_mark();
    }

    /// Notes how far all is synced.
    fn note(&self, sequence: u64) -> io::Result<()> {
        self.mark.write_all_at(&sequence.to_le_bytes(), 0)
    }

    fn keep_mark(&mut self) {
        // One that cannot be synced is late, no more.
        self.marked = self.marked || self.mark.sync_data().is_ok();
    }

    /// Waits for something that is not durable. `None`: all is, and the store is closed.
    fn next(&mut self) -> Option<u64> {
        let durable = self.shared.publisher.watch().current().0;
        let shared = Arc::clone(&self.shared);
        let wanted = || shared.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = wanted();
        let mut gathered_until = None;
        loop {
            if now.sequence > durable {
                let until = *gathered_until.get_or_insert_with(|| clock::now() + GATHER);
                let left = until.saturating_duration_since(clock::now());
                if now.urgent > durable || now.stop || left.is_zero() {
                    return Some(now.sequence);
                }
                now = shared.work.wait_timeout(now, left).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            if now.stop {
                return None;
            }
            // The time-out lets an idle volume notice that its disk has room again.
            now.idle = true;
            let (held, waited) = shared.work.wait_timeout(now, IDLE).unwrap_or_else(PoisonError::into_inner);
            now = held;
            now.idle = false;
            if waited.timed_out() {
                drop(now);
                self.keep_mark();
                if let Some(room) = &self.room {
                    room.measure();
                }
                now = wanted();
                now.sequence = now.sequence.max(now.later);
            }
        }
    }

    fn sync(&mut self) -> Result<(), String> {
        self.database.persist(PersistMode::Buffer).map_err(|error| error.to_string())?;
        loop {
            let number = self.newest()?;
            if self.journal.as_ref().is_none_or(|(open, _)| *open != number) {
                match File::options().write(true).open(self.folder.join(format!("{number}.jnl"))) {
                    Ok(file) => {
                        allocate(&file);
                        self.journal = Some((number, file));
                    }
                    // Rotated, flushed and deleted meanwhile: it was synced before that. Look again.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
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
        let number = |entry: io::Result<std::fs::DirEntry>| {
            entry.ok()?.file_name().to_str()?.strip_suffix(".jnl")?.parse().ok()
        };
        entries.filter_map(number).max().ok_or_else(|| "the engine has no journal".into())
    }
}

/// Gives a journal its space now, so that a disk that fills meanwhile does not tear a batch. Best effort: not every file
/// system can do it, and commits are refused before the disk is full.
fn allocate(journal: &File) {
    let _ = fallocate(journal, FallocateFlags::KEEP_SIZE, 0, JOURNAL_BYTES);
}

/// Opens what fjall has in a folder, or has it make that.
fn start(folder: &Path, options: &Options) -> fjall::Result<(Database, Keyspaces)> {
    let database = Database::builder(folder)
        .cache_size(options.cache_bytes)
        .worker_threads(options.workers.max(1))
        .manual_journal_persist(true)
        .open()?;
    let settings = || {
        let defaults = KeyspaceCreateOptions::default().manual_journal_persist(true);
        match options.table_bytes {
            Some(bytes) => defaults.max_memtable_size(bytes),
            None => defaults,
        }
    };
    let rows = database.keyspace(KEYSPACE, settings)?;
    // Clients have compressed or encrypted them already.
    let apart = KvSeparationOptions::default().compression(CompressionType::None);
    let blocks = database.keyspace(KEYSPACE_BLOCKS, || settings().with_kv_separation(Some(apart)))?;
    Ok((database, Keyspaces { rows, blocks }))
}

/// The commit up to which all was synced; 0 when nobody noted it.
fn read_mark(mark: &File) -> u64 {
    let mut bytes = [0; 8];
    mark.read_exact_at(&mut bytes, 0).map_or(0, |()| u64::from_le_bytes(bytes))
}

/// Looks at the journals while nobody else can write to them, and cuts what is torn.
fn check_journals(path: &Path, durable: u64, cut_journal: bool) -> Result<(), OpenError> {
    let io = |error| OpenError::Io { path: path.into(), error };
    let lock = match File::open(path.join(LOCK_FILE)) {
        // A database that is about to be made.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(io)?,
    };
    let mut tries = 1;
    loop {
        match lock.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(io(error)),
            Err(TryLockError::WouldBlock) if tries == LOCK_TRIES => {
                return Err(OpenError::Locked { path: path.into() });
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
        }
        tries += 1;
    }
    let Err(damage) = journal::check(path, durable).map_err(io)? else { return Ok(()) };
    if !cut_journal || damage.sealed {
        return Err(OpenError::Damaged(damage));
    }
    let copy = journal::cut_damaged(&damage).map_err(io)?;
    tracing::warn!(copy = %copy.display(), "the journal was cut: {damage}");
    Ok(())
}

fn refused(what: &str, error: &fjall::Error) -> Errno {
    tracing::error!(%error, "the metadata engine cannot {what}");
    Errno::EIO
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn open(path: &Path) -> Fjall {
        Fjall::open(path, Options { cache_bytes: 1 << 20, workers: 1, ..Options::default() }).unwrap()
    }

    fn put(store: &mut Fjall, number: u32) -> Commit {
        let mut batch = Batch::default();
        batch.put([&[7][..], &number.to_be_bytes()].concat(), number.to_le_bytes().to_vec());
        store.commit(batch).unwrap()
    }

    #[test]
    fn small_blocks_are_kept_apart_and_come_with_their_commits() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path());
        let blocks: Vec<(Vec<u8>, Vec<u8>)> = (0..300u32)
            .map(|number| {
                let bytes = number.to_le_bytes().repeat(if number % 2 == 0 { 10 } else { 2_000 });
                (super::super::key::carried(flexfs_wire::id::BlockId(number.into())), bytes)
            })
            .collect();
        for (key, bytes) in &blocks {
            let mut batch = Batch::default();
            batch.put(vec![7], key.clone());
            batch.put(key.clone(), bytes.clone());
            store.commit(batch).unwrap();
        }
        // From tables, from the journal, and from tables again.
        for round in 0..3 {
            if round == 1 {
                drop(store);
                store = open(folder.path());
            }
            if round == 2 {
                store.keyspaces.blocks.rotate_memtable_and_wait().unwrap();
            }
            let (from, to) = super::super::key::table(Tag::Carried);
            let mut found = Vec::new();
            store
                .scan(&from, &to, &mut |key, value| {
                    found.push((key.to_vec(), value.to_vec()));
                    std::ops::ControlFlow::Continue(())
                })
                .unwrap();
            assert!(found == blocks, "round {round}");
            assert_eq!(store.get(&blocks[77].0).unwrap().as_ref(), Some(&blocks[77].1));
            assert_eq!(store.get(&[7]).unwrap().as_ref(), Some(&blocks[299].0));
        }
        assert!(store.keyspaces.rows.get(&blocks[77].0).unwrap().is_none(), "not among the others");
        let mut batch = Batch::default();
        batch.remove(blocks[77].0.clone());
        store.commit(batch).unwrap();
        assert_eq!(store.get(&blocks[77].0), Ok(None));
    }

    #[test]
    fn commits_are_gathered_until_somebody_waits() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path());
        let syncs = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&syncs);
        store.durable().listen(move |_| {
            let _ = counter.fetch_add(1, Ordering::SeqCst);
        });
        let began = clock::now();
        for number in 0..100 {
            put(&mut store, number);
            std::thread::sleep(GATHER / 50);
        }
        let last = put(&mut store, 100);
        let most = clock::now().duration_since(began).as_micros() / GATHER.as_micros() + 1;
        let made = syncs.load(Ordering::SeqCst);
        assert!(u128::from(made) <= most, "{made} syncs");
        store.want(last);
        assert!(store.durable().wait(last, IDLE * 10));
    }

    #[test]
    fn what_nobody_waits_for_comes_with_the_next_or_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path());
        let lazy = |store: &mut Fjall| {
            let mut batch = Batch::default();
            batch.put(vec![8], vec![1]);
            batch.set_lazy();
            store.commit(batch).unwrap()
        };
        let first = lazy(&mut store);
        assert!(!store.durable().wait(first, IDLE / 4), "a sync that nobody asked for");
        let second = put(&mut store, 1);
        assert!(second > first && store.durable().wait(second, LONG));
        let last = lazy(&mut store);
        assert!(store.durable().wait(last, LONG), "nobody comes, and it is done all the same");
        let unsynced = lazy(&mut store);
        store.close().unwrap();
        assert!(open(folder.path()).durable().current() >= unsynced);
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
            let mut entries: Vec<_> = std::fs::read_dir(from).unwrap().map(Result::unwrap).collect();
            // This takes time, a kill does not: the mark must not be younger than the journals.
            entries.sort_by_key(|entry| entry.file_name() != DURABLE_FILE);
            for entry in entries {
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
            store.keyspaces.rows.rotate_memtable_and_wait().unwrap();
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
    fn a_disk_that_is_nearly_full_takes_only_what_is_vital() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path());
        let first = put(&mut store, 1);
        let room = Room::new(folder.path());
        room.pretend(200 << 20);
        store.room = Some(room);
        // Not the first commit after a pause, which would measure the real disk.
        store.sequence += 1_000_000;
        let mut batch = Batch::default();
        batch.put(vec![7], vec![1]);
        assert_eq!(store.commit(batch.clone()), Err(Errno::ENOSPC));
        batch.set_vital();
        assert!(store.commit(batch).unwrap() > first);
    }
}
