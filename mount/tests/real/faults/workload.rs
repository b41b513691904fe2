//! A workload that knows at any time what must be there, for tests whose faults no program may notice.
//!
//! Each mount has threads that work in folders of their own, whose content they know to the byte, and one that takes turns
//! with the other mounts at a file under a lock. A call that was done twice shows: a second create or removal fails, a second
//! append makes the file longer, a second turn repeats a number.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::child::posix;
use crate::files::pattern;
use crate::harness::{Random, soon, within};

/// Threads of a mount that work in folders of their own.
const FOLDERS: u64 = 2;
/// Files of a folder.
const FILES_MAX: usize = 40;
/// Largest file: a few blocks of the smallest size, inline and in blocks.
const FILE_BYTES_MAX: usize = 600_000;
/// Bytes of a turn's record.
const RECORD: usize = 32;
/// Pause between turns: whoever is told to go on comes to it.
const TURN_PAUSE: Duration = Duration::from_millis(3);
/// Time for what one mount did to be seen on another: attributes and names are cached for a second.
const SEEN: Duration = Duration::from_millis(1500);

/// A running workload.
pub(crate) struct Workload {
    stop: Arc<AtomicBool>,
    done: Vec<Arc<AtomicU64>>,
    folders: Vec<JoinHandle<Folder>>,
    turns: Vec<JoinHandle<Turns>>,
}

/// What a workload left.
pub(crate) struct Ended {
    folders: Vec<Folder>,
    turns: Vec<Turns>,
}

/// A folder and what must be in it.
pub(crate) struct Folder {
    mnt: PathBuf,
    name: String,
    names: BTreeMap<String, u64>,
    files: BTreeMap<u64, Vec<u8>>,
    /// A file without a name.
    unlinked: Option<(File, Vec<u8>)>,
    random: Random,
    serial: u64,
    error: Option<String>,
}

/// A mount's turns at the shared file.
struct Turns {
    mount: usize,
    count: u64,
    error: Option<String>,
}

impl Workload {
    /// Starts on mounts of one volume.
    pub(crate) fn start(mounts: &[&Path], seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let done: Vec<Arc<AtomicU64>> = mounts.iter().map(|_| Arc::default()).collect();
        fs::create_dir(mounts[0].join("turns")).unwrap();
        File::create_new(mounts[0].join("turns/log")).unwrap();
        File::create_new(mounts[0].join("turns/lock")).unwrap();
        sleep(SEEN);
        let (mut folders, mut turns) = (Vec::new(), Vec::new());
        for (mount, mnt) in mounts.iter().enumerate() {
            for number in 0..FOLDERS {
                let mut folder = Folder::new(mnt, format!("load-{mount}-{number}"), seed);
                let (stop, done) = (stop.clone(), done[mount].clone());
                folders.push(std::thread::spawn(move || {
                    folder.work(&stop, &done);
                    // An open file would keep its mount busy.
                    folder.unlinked = None;
                    folder
                }));
            }
            let (mnt, stop, done) = (mnt.to_path_buf(), stop.clone(), done[mount].clone());
            turns.push(std::thread::spawn(move || take_turns(&mnt.join("turns"), mount, &stop, &done)));
        }
        Self { stop, done, folders, turns }
    }

    /// Steps of each mount so far.
    pub(crate) fn counts(&self) -> Vec<u64> {
        self.done.iter().map(|done| done.load(Ordering::Relaxed)).collect()
    }

    /// Waits until each mount has done some more.
    pub(crate) fn goes_on(&self, limit: Duration, what: &str) {
        let before = self.counts();
        let folders = self.folders.iter().any(JoinHandle::is_finished);
        let gave_up = folders || self.turns.iter().any(JoinHandle::is_finished);
        assert!(!gave_up, "{what}: a program gave up, its own words are above");
        let went = || self.counts().iter().zip(&before).all(|(now, before)| *now > before + 20);
        assert!(
            soon(limit, went),
            "{what}: the workload stands still at {before:?}, now {:?}",
            self.counts()
        );
    }

    /// Stops it. Time for the last steps is `limit`, recovery of servers included.
    pub(crate) fn end(self, limit: Duration) -> Ended {
        self.stop.store(true, Ordering::Relaxed);
        let counts = self.counts();
        let ended = within(limit, "the end of the workload", move || Ended {
            folders: self.folders.into_iter().map(|thread| thread.join().unwrap()).collect(),
            turns: self.turns.into_iter().map(|thread| thread.join().unwrap()).collect(),
        });
        let turns: Vec<u64> = ended.turns.iter().map(|turns| turns.count).collect();
        eprintln!("steps of each mount {counts:?}, turns {turns:?}");
        ended
    }
}

impl Ended {
    /// No program met an error.
    pub(crate) fn no_errors(&self) {
        let folders = self.folders.iter().filter_map(|folder| folder.error.as_ref());
        let turns = self.turns.iter().filter_map(|turns| turns.error.as_ref());
        let errors: Vec<&String> = folders.chain(turns).collect();
        assert!(errors.is_empty(), "programs met errors: {errors:#?}");
    }

    /// Everything is there as it must be, seen from each of these mounts, and nothing else.
    pub(crate) fn check(&self, mounts: &[&Path]) {
        sleep(SEEN);
        for mnt in mounts {
            for folder in &self.folders {
                folder.check(mnt);
            }
            self.check_turns(&mnt.join("turns/log"));
        }
    }

    /// Each turn is there once, in order, each mount's own numbers too.
    fn check_turns(&self, log: &Path) {
        let bytes = fs::read(log).unwrap();
        let mut own = vec![0; self.turns.len()];
        for (serial, found) in bytes.chunks(RECORD).enumerate() {
            let text = String::from_utf8_lossy(found).into_owned();
            let numbers: Vec<usize> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
            let [mount, number, total] = numbers[..] else { panic!("turn {serial}: {text:?}") };
            assert_eq!((total, number), (serial, own[mount]), "turn {serial}: {text:?}");
            own[mount] += 1;
        }
        for turns in &self.turns {
            assert_eq!(own[turns.mount] as u64, turns.count, "turns of mount {}", turns.mount);
        }
    }
}

impl Folder {
    fn new(mnt: &Path, name: String, seed: u64) -> Self {
        fs::create_dir(mnt.join(&name)).unwrap();
        let seed = name.bytes().fold(seed, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let (names, files) = (BTreeMap::new(), BTreeMap::new());
        let random = Random::new(seed);
        Self { mnt: mnt.into(), name, names, files, unlinked: None, random, serial: 0, error: None }
    }

    fn work(&mut self, stop: &AtomicBool, done: &AtomicU64) {
        while !stop.load(Ordering::Relaxed) {
            if let Err((what, error)) = self.step() {
                let error = format!("{}: {what}: {error}", self.name);
                eprintln!("{error}");
                self.error = Some(error);
                return;
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.mnt.join(&self.name).join(name)
    }

    /// One call or two that change something, or look at it.
    fn step(&mut self) -> Result<(), (String, io::Error)> {
        self.serial += 1;
        let fresh = format!("file-{}", self.serial);
        let picked = match self.names.len() {
            0 => None,
            count => self.names.keys().nth(self.random.index(count)).cloned(),
        };
        let Some(name) = picked else { return told("create", &fresh, self.create(&fresh)) };
        let is_full = self.names.len() >= FILES_MAX;
        match self.random.below(16) {
            0..3 if !is_full => told("create", &fresh, self.create(&fresh)),
            3 if !is_full => told("link", &fresh, self.link(&name, &fresh)),
            0..5 => told("remove", &name, self.remove(&name)),
            5 => told("rename", &name, self.rename(&name)),
            6 | 7 => told("append", &name, self.append(&name)),
            8 | 9 => told("overwrite", &name, self.overwrite(&name)),
            10 => told("truncate", &name, self.truncate(&name)),
            11 => told("unlink open", &name, self.unlink_open(&name)),
            12 => told("folder", &fresh, self.folder(&fresh)),
            13 | 14 => told("read", &name, self.read(&name)),
            _ => told("list", &self.name, self.list()),
        }
    }

    fn content(&mut self, most: usize) -> Vec<u8> {
        // Mostly small, some larger than what goes inline, a few of several segments.
        let most = most.min([2_000, 2_000, 40_000, FILE_BYTES_MAX][self.random.index(4)]);
        pattern(self.random.next() >> 20, 1 + self.random.index(most))
    }

    fn sync_some(&mut self, file: &File) -> io::Result<()> {
        if self.random.chance(1, 3) { file.sync_all() } else { Ok(()) }
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let bytes = self.content(FILE_BYTES_MAX);
        let mut file = File::create_new(self.path(name))?;
        file.write_all(&bytes)?;
        self.sync_some(&file)?;
        self.files.insert(self.serial, bytes);
        self.names.insert(name.to_owned(), self.serial);
        Ok(())
    }

    fn link(&mut self, name: &str, other: &str) -> io::Result<()> {
        fs::hard_link(self.path(name), self.path(other))?;
        self.names.insert(other.to_owned(), self.names[name]);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))?;
        self.forget(name);
        Ok(())
    }

    fn forget(&mut self, name: &str) {
        let id = self.names.remove(name).unwrap();
        if !self.names.values().any(|other| *other == id) {
            self.files.remove(&id);
        }
    }

    /// To a new name or over another one.
    fn rename(&mut self, name: &str) -> io::Result<()> {
        let over = self.names.keys().nth(self.random.index(self.names.len())).cloned().unwrap();
        let other = if self.random.chance(1, 2) { over } else { format!("moved-{}", self.serial) };
        fs::rename(self.path(name), self.path(&other))?;
        let id = self.names[name];
        if self.names.get(&other) == Some(&id) {
            // Two names of one file: rename(2) does nothing.
            return Ok(());
        }
        if self.names.contains_key(&other) {
            self.forget(&other);
        }
        self.names.remove(name);
        self.names.insert(other, id);
        Ok(())
    }

    fn append(&mut self, name: &str) -> io::Result<()> {
        let room = FILE_BYTES_MAX - self.bytes(name).len();
        let bytes = self.content(room.max(1));
        let mut file = OpenOptions::new().append(true).open(self.path(name))?;
        file.write_all(&bytes)?;
        self.sync_some(&file)?;
        self.bytes(name).extend(bytes);
        Ok(())
    }

    fn overwrite(&mut self, name: &str) -> io::Result<()> {
        let size = self.bytes(name).len();
        let (bytes, at) = (self.content(100_000), self.random.index(size + 1));
        let file = OpenOptions::new().write(true).open(self.path(name))?;
        file.write_all_at(&bytes, at as u64)?;
        self.sync_some(&file)?;
        let content = self.bytes(name);
        content.resize(size.max(at + bytes.len()), 0);
        content[at..at + bytes.len()].copy_from_slice(&bytes);
        Ok(())
    }

    fn truncate(&mut self, name: &str) -> io::Result<()> {
        let most = self.bytes(name).len() + 5_000;
        let size = self.random.index(most);
        let file = OpenOptions::new().write(true).open(self.path(name))?;
        file.set_len(size as u64)?;
        self.bytes(name).resize(size, 0);
        Ok(())
    }

    /// A file is read through its handle after its name has gone.
    fn unlink_open(&mut self, name: &str) -> io::Result<()> {
        if let Some((mut file, wanted)) = self.unlinked.take() {
            let mut found = Vec::new();
            file.read_to_end(&mut found)?;
            same(&found, &wanted)?;
        }
        let file = File::open(self.path(name))?;
        let (id, content) = (self.names[name], self.bytes(name).clone());
        self.remove(name)?;
        // With other names it would be written to.
        self.unlinked = (!self.files.contains_key(&id)).then_some((file, content));
        Ok(())
    }

    fn folder(&mut self, name: &str) -> io::Result<()> {
        fs::create_dir(self.path(name))?;
        fs::set_permissions(self.path(name), std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        fs::remove_dir(self.path(name))
    }

    fn read(&mut self, name: &str) -> io::Result<()> {
        let found = fs::read(self.path(name))?;
        same(&found, self.bytes(name))
    }

    fn list(&self) -> io::Result<()> {
        let found = listed(&self.mnt.join(&self.name))?;
        if found.iter().eq(self.names.keys()) { Ok(()) } else { Err(io::Error::other(format!("{found:?}"))) }
    }

    fn bytes(&mut self, name: &str) -> &mut Vec<u8> {
        self.files.get_mut(&self.names[name]).unwrap()
    }

    fn check(&self, mnt: &Path) {
        let folder = mnt.join(&self.name);
        let found = listed(&folder).unwrap();
        assert!(found.iter().eq(self.names.keys()), "{folder:?}: {found:?}, wanted {:?}", self.names);
        for (name, id) in &self.names {
            let path = folder.join(name);
            let found = fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            same(&found, &self.files[id]).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            let links = self.names.values().filter(|other| *other == id).count();
            assert_eq!(fs::metadata(&path).unwrap().nlink(), links as u64, "links of {path:?}");
        }
    }
}

/// Adds numbered records to the shared file, one at a time under a lock.
fn take_turns(folder: &Path, mount: usize, stop: &AtomicBool, done: &AtomicU64) -> Turns {
    let mut turns = Turns { mount, count: 0, error: None };
    while !stop.load(Ordering::Relaxed) {
        if let Err(error) = take_turn(folder, mount, turns.count) {
            let error = format!("turn {} of mount {mount}: {error}", turns.count);
            eprintln!("{error}");
            turns.error = Some(error);
            break;
        }
        turns.count += 1;
        done.fetch_add(1, Ordering::Relaxed);
        sleep(TURN_PAUSE);
    }
    turns
}

fn take_turn(folder: &Path, mount: usize, number: u64) -> io::Result<()> {
    let lock = OpenOptions::new().read(true).write(true).open(folder.join("lock"))?;
    fcntl(&lock, FcntlArg::F_SETLKW(&posix(libc::F_WRLCK, 0, 0)))?;
    // Opened under the lock: what others wrote before they let go is seen.
    let mut log = OpenOptions::new().read(true).append(true).open(folder.join("log"))?;
    let mut before = Vec::new();
    log.read_to_end(&mut before)?;
    if before.len() % RECORD != 0 {
        return Err(io::Error::other(format!("half a record: {} bytes", before.len())));
    }
    let record = format!("{mount:>3} {number:>12} {:>14}\n", before.len() / RECORD);
    log.write_all(record.as_bytes())?;
    if number.is_multiple_of(4) {
        log.sync_all()?;
    }
    drop(log);
    fcntl(&lock, FcntlArg::F_SETLK(&posix(libc::F_UNLCK, 0, 0)))?;
    Ok(())
}

fn listed(folder: &Path) -> io::Result<Vec<String>> {
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().into_string().unwrap()));
    let mut names: Vec<String> = names.collect::<io::Result<_>>()?;
    names.sort();
    Ok(names)
}

fn same(found: &[u8], wanted: &[u8]) -> io::Result<()> {
    let differs = found.iter().zip(wanted).position(|(found, wanted)| found != wanted);
    if found.len() == wanted.len() && differs.is_none() {
        return Ok(());
    }
    let (found, wanted) = (found.len(), wanted.len());
    Err(io::Error::other(format!("other content: {found} bytes of {wanted}, differs at {differs:?}")))
}

fn told(what: &str, name: &str, result: io::Result<()>) -> Result<(), (String, io::Error)> {
    result.map_err(|error| (format!("{what} {name}"), error))
}
