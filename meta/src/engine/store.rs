//! What an engine is.

use std::ops::ControlFlow;

use flexfs_wire::errno::Errno;
use flexfs_wire::id::Commit;

use super::Durable;

/// Key under which every engine keeps the sequence of its last commit (u64, little-endian). No other key starts with 0.
pub(crate) const SEQUENCE_KEY: &[u8] = &[0];

/// The sequence jumps by this much when a store is opened: commits that were answered but lost in a crash are never
/// numbered again, so a client cannot take the durability of a new commit for that of a lost one.
/// Bounds what may be visible and not yet durable; at 100 k commits a second that is half a day of a hung disk.
pub(crate) const SEQUENCE_JUMP: u64 = 1 << 32;

/// What a scan calls with each key and value.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// An ordered map of bytes with atomic batches. Keys are not empty, do not start with 0 and are at most 1 KiB.
///
/// One thread uses it; only [`Durable`] is shared.
pub trait Store: Send + std::fmt::Debug {
    /// Value of a key.
    ///
    /// # Errors
    /// `EIO` when the engine cannot read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Errno>;

    /// Visits the pairs with `from <= key < to`, ascending, until `visit` breaks. Both are keys of one tag, or `to` is the end of it.
    ///
    /// # Errors
    /// `EIO` when the engine cannot read.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), Errno>;

    /// Applies a batch, all or nothing. It is visible at once and durable when [`Durable::current`] has reached the
    /// sequence given back. Sequences ascend, survive a restart and are never given twice.
    ///
    /// # Errors
    /// `ENOSPC` when the disk is nearly full and the batch is not vital; `EIO` when the engine cannot write
    /// (it then refuses every later batch too). Nothing was applied.
    fn commit(&mut self, batch: Batch) -> Result<Commit, Errno>;

    /// Somebody waits until this commit is durable: it is made so at once. Others may be gathered for some milliseconds.
    fn want(&self, _commit: Commit) {}

    /// The watch on durability, to be cloned and shared. At first it stands at what was found when the store was opened.
    fn durable(&self) -> &Durable;

    /// Makes everything durable and ends.
    ///
    /// # Errors
    /// `EIO` when that failed; what is not durable is then lost.
    fn close(self) -> Result<(), Errno>
    where
        Self: Sized;
}

/// Changes that are applied together. Later ones win over earlier ones on the same key.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub(crate) changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub(crate) vital: bool,
    pub(crate) lazy: bool,
}

impl Batch {
    /// Sets a key.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        if self.changes.capacity() == 0 {
            // What most calls need.
            self.changes.reserve(16);
        }
        debug_assert!(key.first().is_some_and(|first| *first != 0), "the engine's own key");
        self.changes.push((key, Some(value)));
    }

    /// Removes a key, absent or not.
    pub fn remove(&mut self, key: Vec<u8>) {
        self.changes.push((key, None));
    }

    /// Marks it as one that frees space, or that nobody could free space without: accepted on a disk that is nearly full.
    pub fn set_vital(&mut self) {
        self.vital = true;
    }

    /// Marks it as one that nobody waits for: it becomes durable with the next that is not, or within a second or two.
    pub fn set_lazy(&mut self) {
        self.lazy = true;
    }

    /// Number of changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}
