//! What shards and the filler's thread share.

use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flexfs_uring::clock;
use flexfs_wire::id::BlockId;

use super::figures::Counters;
use super::folder::Folder;
use super::index::Index;
use super::slot::{SLOT_BYTES, Volume};

/// Buffers of a slot that are kept for the next one: a fresh one costs a page fault for each of its pages.
const SPARE_MAX: usize = 256;
/// How long a disk that did not answer in time is left alone.
const PASS_BY: Duration = Duration::from_secs(10);

/// How the cache is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    /// What an earlier mount left is looked through.
    Scanning = 0,
    /// As it should be.
    On = 1,
    /// Its file system has less to spare than the quota.
    Full = 2,
    /// Its disk failed, or the mount ends: nothing is read or written.
    Off = 3,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) folder: Folder,
    pub(super) volume: Volume,
    /// Whole files in plain form may be of use to this mount; else those of an earlier one go.
    pub(super) keeps_plain: bool,
    /// Most bytes.
    pub(super) quota: u64,
    pub(super) index: Index,
    /// Bytes of whole files in plain form beside the blocks (`plain`), which the quota counts.
    pub(super) plain: AtomicU64,
    pub(super) counters: Counters,
    state: AtomicU8,
    /// Blocks whose files are to go.
    condemned: Mutex<Vec<BlockId>>,
    spare: Mutex<Vec<Vec<u8>>>,
    /// Until when a slow disk is left alone.
    passed_by: Mutex<Option<Instant>>,
}

impl Shared {
    /// Nothing is known of what is in the folder.
    pub(super) fn new(folder: Folder, volume: Volume, quota: u64, keeps_plain: bool) -> Self {
        Self {
            folder,
            volume,
            keeps_plain,
            quota,
            index: Index::new(),
            plain: AtomicU64::new(0),
            counters: Counters::default(),
            state: AtomicU8::new(State::Scanning as u8),
            condemned: Mutex::default(),
            spare: Mutex::default(),
            passed_by: Mutex::default(),
        }
    }

    /// Bytes of all that is known to be there.
    pub(super) fn held(&self) -> u64 {
        self.index.held() + self.plain.load(Ordering::Relaxed)
    }

    /// How it is.
    pub(super) fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            0 => State::Scanning,
            1 => State::On,
            2 => State::Full,
            _ => State::Off,
        }
    }

    /// It is otherwise now. `Off` is for good. True when it was something else before.
    pub(super) fn set_state(&self, state: State) -> bool {
        let change = |now| (now != State::Off as u8 && now != state as u8).then_some(state as u8);
        self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).is_ok()
    }

    /// The disk failed: the cache is off until the volume is mounted anew.
    pub(super) fn fail(&self, doing: &str, error: &io::Error) {
        if self.set_state(State::Off) {
            tracing::error!(
                folder = %self.folder.path().display(), doing, %error,
                "the disk cache is off until the volume is mounted anew; all is read from the server"
            );
        }
    }

    /// A segment is damaged, `why`: its block is fetched again.
    pub(super) fn condemn(&self, block: BlockId, segment: u32, why: &dyn std::fmt::Display) {
        self.counters.damaged.add(1);
        tracing::debug!(%block, segment, %why, "a block in the disk cache is not what was put there; dropped");
        self.drop_later(block);
    }

    /// The file of a block is of no use.
    pub(super) fn drop_later(&self, block: BlockId) {
        if self.index.condemn(block) {
            lock(&self.condemned).push(block);
        }
    }

    /// Takes the blocks whose files are to go.
    pub(super) fn take_condemned(&self) -> Vec<BlockId> {
        std::mem::take(&mut *lock(&self.condemned))
    }

    /// The disk did not answer in time.
    pub(super) fn pass_by(&self) {
        let until = clock::now() + PASS_BY;
        if lock(&self.passed_by).replace(until).is_none() {
            tracing::warn!(
                folder = %self.folder.path().display(),
                "the disk cache does not answer in time; while that is so, all is read from the server"
            );
        }
    }

    /// Whether reads may be tried.
    pub(super) fn is_readable(&self) -> bool {
        if self.state() == State::Off {
            return false;
        }
        let mut passed_by = lock(&self.passed_by);
        if passed_by.is_some_and(|until| clock::now() < until) {
            return false;
        }
        *passed_by = None;
        true
    }

    /// A buffer of a slot's size, empty.
    pub(super) fn buffer(&self) -> Vec<u8> {
        lock(&self.spare).pop().unwrap_or_else(|| Vec::with_capacity(SLOT_BYTES))
    }

    /// A buffer is done with.
    pub(super) fn recycle(&self, mut buffer: Vec<u8>) {
        let mut spare = lock(&self.spare);
        if buffer.capacity() >= SLOT_BYTES && spare.len() < SPARE_MAX {
            buffer.clear();
            spare.push(buffer);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these in a half-changed state.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
