//! The decision at each open, and the end of it.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flexfs_uring::file::File;
use flexfs_uring::fuse::Backing;
use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::seal::Node;
use serde::Serialize;

use super::place::{Name, Place};
use super::table::{Mode, Table};
use crate::data::Files;
use crate::disk::Disk;
use crate::link::Remote;
use crate::lru::Lru;

/// Smaller files are in the kernel's pages after one request, and most have no block at all.
pub(super) const BYTES_MIN: u64 = 64 << 10;
/// Plain files that are known to be whole, each with a descriptor.
const READY_MAX: u64 = 1024;
/// Files that are put together at the same time.
const ASSEMBLIES_MAX: usize = 2;

/// Figures for `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Whether opens may pass through.
    pub on: bool,
    /// Bytes of plain files, which the disk cache's quota counts.
    pub bytes: u64,
    /// Plain files.
    pub files: usize,
    /// Open descriptors that pass through.
    pub passed_now: usize,
    /// Opens that passed through.
    pub passed: u64,
    /// Files that were put together.
    pub assembled: u64,
    /// Files of an earlier mount that were found whole.
    pub verified: u64,
    /// Files of an earlier mount that were damaged, and put together anew.
    pub damaged: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) passed: AtomicU64,
    pub(super) assembled: AtomicU64,
    pub(super) verified: AtomicU64,
    pub(super) damaged: AtomicU64,
}

/// A plain file that is whole.
#[derive(Clone, Debug)]
pub(super) struct Plain {
    pub(super) name: Name,
    pub(super) file: File,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) table: Table<Plain, Backing>,
    /// All plain files on the disk, by their last use; weighed by bytes.
    pub(super) kept: Lru<Name, ()>,
    /// Inodes whose files are being put together or verified: one at a time each, also when it is closed and opened meanwhile.
    pub(super) busy: HashSet<Ino>,
    /// Bytes of those that are being put together.
    reserved: u64,
    /// Those that the table has; weighed as one each.
    pub(super) ready: Lru<Ino, ()>,
}

/// See the module above. Any core may call.
#[derive(Debug)]
pub struct Passing {
    pub(super) remote: Arc<Remote>,
    pub(super) files: Arc<Files<Remote>>,
    pub(super) disk: Arc<Disk>,
    pub(super) place: Place,
    pub(super) counters: Counters,
    pub(super) permits: async_lock::Semaphore,
    device: Arc<OwnedFd>,
    state: Mutex<State>,
    off: AtomicBool,
    /// The session's generation that all of it was found good in.
    generation: AtomicU64,
}

impl Passing {
    /// For a mount whose kernel has agreed to it, on `device`.
    ///
    /// # Errors
    /// The folder's.
    pub fn new(
        remote: &Arc<Remote>,
        files: &Arc<Files<Remote>>,
        disk: &Arc<Disk>,
        device: &Arc<OwnedFd>,
    ) -> std::io::Result<Arc<Self>> {
        let place = Place::open(&disk.plain_folder(), disk.volume())?;
        let mut left = place.list()?;
        left.sort_unstable_by_key(|left| left.used);
        let mut state = State::default();
        for left in left {
            state.kept.insert(left.name, (), left.bytes);
        }
        disk.set_plain(state.kept.weight());
        let passing = Self {
            remote: Arc::clone(remote),
            files: Arc::clone(files),
            disk: Arc::clone(disk),
            place,
            counters: Counters::default(),
            permits: async_lock::Semaphore::new(ASSEMBLIES_MAX),
            device: Arc::clone(device),
            state: Mutex::new(state),
            off: AtomicBool::new(false),
            generation: AtomicU64::new(remote.generation()),
        };
        Ok(Arc::new(passing))
    }

    /// A file of `size` bytes is opened for reading: the number to be named in the answer, if it passes through. Each call is
    /// followed by one of [`Self::close`]. On a shard.
    pub(crate) fn open(self: &Arc<Self>, node: Node, size: u64) -> Option<i32> {
        let is_on = !self.off.load(Ordering::SeqCst);
        let mode = {
            let mut state = self.state();
            let mode = state.table.open(node, |plain| if is_on { self.number(plain) } else { None });
            if matches!(mode, Mode::Passed(_)) {
                state.ready.touch(&node.ino);
            }
            mode
        };
        match mode {
            Mode::Passed(number) => {
                self.counters.passed.fetch_add(1, Ordering::Relaxed);
                return Some(number);
            }
            Mode::Cached { wanted } if wanted && is_on && size >= BYTES_MIN => {
                let passing = Arc::clone(self);
                drop(flexfs_uring::spawn(async move { passing.assemble(node, size).await }));
            }
            Mode::Cached { .. } => {}
        }
        None
    }

    /// The open is over.
    pub(crate) fn close(&self, ino: Ino, was_passed: bool) {
        self.state().table.close(ino, was_passed);
    }

    fn number(&self, plain: &Plain) -> Option<(Backing, i32)> {
        match Backing::open(&self.device, &plain.file) {
            Ok(backing) => {
                let number = backing.id();
                Some((backing, number))
            }
            Err(error) => {
                if !self.off.swap(true, Ordering::SeqCst) {
                    tracing::warn!(%error, "the kernel takes no file of the disk cache; all is read through this program");
                }
                None
            }
        }
    }

    /// A plain file is whole, of what the layout said in `generation`.
    pub(super) fn set_ready(&self, node: Node, plain: Plain, bytes: u64, generation: u64) {
        let mut state = self.state();
        state.kept.insert(plain.name, (), bytes);
        // A loss of the session that comes now finds it in the table.
        if self.is_off() || self.remote.generation() != generation {
            return;
        }
        state.table.set_ready(node, plain);
        state.ready.insert(node.ino, (), 1);
        // Each is looked at once: those in use stay.
        for _ in 0..READY_MAX {
            if state.ready.weight() <= READY_MAX {
                break;
            }
            let Some((ino, (), weight)) = state.ready.evict() else { break };
            if !state.table.take_ready(ino) {
                state.ready.insert(ino, (), weight);
            }
        }
    }

    /// Makes room for `bytes` more, at the cost of plain files that were not used for long and are not in use. False: there is none.
    pub(super) async fn make_room(&self, bytes: u64) -> bool {
        let (fits, victims) = self.take_room(bytes);
        for name in &victims {
            self.place.unlink(name).await;
        }
        fits
    }

    fn take_room(&self, bytes: u64) -> (bool, Vec<Name>) {
        let mut victims = Vec::new();
        let mut state = self.state();
        for _ in 0..=state.kept.count() {
            if state.kept.weight() + state.reserved + bytes <= self.disk.plain_max() {
                break;
            }
            let Some((name, (), weight)) = state.kept.evict() else { break };
            if state.table.take_ready(name.ino) {
                state.ready.remove(&name.ino);
                victims.push(name);
            } else {
                state.kept.insert(name, (), weight);
            }
        }
        let fits = state.kept.weight() + state.reserved + bytes <= self.disk.plain_max();
        if fits {
            state.reserved += bytes;
        }
        self.disk.set_plain(state.kept.weight() + state.reserved);
        (fits, victims)
    }

    /// What [`Self::make_room`] made for so many bytes is used, or not needed.
    pub(super) fn settle(&self, bytes: u64) {
        let mut state = self.state();
        state.reserved = state.reserved.saturating_sub(bytes);
        self.disk.set_plain(state.kept.weight() + state.reserved);
    }

    /// A plain file is of no use.
    pub(super) async fn discard(&self, name: &Name) {
        self.state().kept.remove(name);
        self.place.unlink(name).await;
        self.settle(0);
    }

    /// Whether it was given up.
    pub(super) fn is_off(&self) -> bool {
        self.off.load(Ordering::SeqCst)
    }

    /// Somebody is to change an inode after all. Not on a shard: it may take a moment.
    pub(crate) fn handle_recall(&self, ino: Ino) {
        // What is not passed through is recalled like any file, and put together under another name.
        if self.state().table.is_passed(ino) {
            self.give_up("the metadata server recalled one of them: is the volume no longer read-only?");
        }
    }

    /// All leases are void: the token has ended, the session was lost, or the server is silent. A mount that ends by being unmounted
    /// leaves its files to the next. True: what is passed through must be compared with the server's word ([`Self::compare`]), for
    /// others may have had the volume meanwhile. Not on a shard.
    pub(crate) fn handle_dropped(&self) -> bool {
        if self.remote.ended() == Some(Errno::EACCES) {
            self.give_up("the token has ended");
            return false;
        }
        let generation = self.remote.generation();
        if self.generation.swap(generation, Ordering::SeqCst) == generation {
            return false;
        }
        if !self.remote.is_unchanging() {
            self.give_up("the session was lost, and the volume is no longer read-only");
            return false;
        }
        // Those in no use are looked for anew, by what the layout says then.
        let mut state = self.state();
        state.table.forget_ready();
        state.table.passed() > 0
    }

    /// Looks whether what is passed through is still what the server has. On a shard.
    pub(crate) async fn compare(self: Arc<Self>) {
        let passed = self.state().table.all_passed();
        for (node, plain) in passed {
            let identity = self.files.identity(node, true).await;
            let is_same = matches!(identity, Ok(Some((identity, _))) if identity == plain.name.identity);
            if !is_same && self.state().table.is_passed(node.ino) {
                return self.give_up("the session was lost, and a file is not what it was");
            }
        }
    }

    /// Empties what descriptors pass through to, for it may be old or no longer theirs, and passes through nothing more.
    fn give_up(&self, why: &str) {
        self.off.store(true, Ordering::SeqCst);
        let (passed, descriptors) = {
            let mut state = self.state();
            state.table.forget_ready();
            (state.table.all_passed(), state.table.passed())
        };
        if passed.is_empty() {
            return;
        }
        tracing::error!(
            files = passed.len(),
            descriptors,
            why,
            "files that the kernel reads by itself are taken away: programs that have them open see an end of file; \
             they must open them again, and no file is read that way until the volume is mounted anew"
        );
        for (_, plain) in passed {
            if let Err(error) = rustix::fs::ftruncate(&plain.file, 0) {
                tracing::error!(%error, ino = plain.name.ino.0, "a file could not be emptied: its readers may see what is old");
            }
            self.state().kept.remove(&plain.name);
            self.place.remove(&plain.name);
        }
        self.settle(0);
    }

    /// For `status`.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let state = self.state();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            on: !self.is_off(),
            bytes: state.kept.weight(),
            files: state.kept.count(),
            passed_now: state.table.passed(),
            passed: get(&self.counters.passed),
            assembled: get(&self.counters.assembled),
            verified: get(&self.counters.verified),
            damaged: get(&self.counters.damaged),
        }
    }

    /// Where plain files are, for the log.
    pub(super) fn folder(&self) -> PathBuf {
        self.disk.plain_folder()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds this in a half-changed state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
