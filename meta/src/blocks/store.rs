//! Blocks that were read a moment ago: their open files and indexes, a few hundred per core.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use flexfs_wire::block::{BlockError, HEAD_BYTES_MAX, Index};
use flexfs_wire::id::BlockId;

use super::folder::Folders;
use super::path;
use crate::front::File;

/// Bytes of a block that are read at first: header, index and checks of one of 4 MiB (9,760), in whole pages.
const HEAD_BYTES: usize = 12 << 10;
/// Open files per core.
const FILES_MAX: usize = 256;
/// A file nobody read for so long is closed: a collected block must give its space back.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Buffers kept per core.
const SPARE_MAX: usize = 8;
/// Their sizes in bytes: blocks are 4 MiB as a rule, and small ones cost little.
const SPARE_BYTES: Range<usize> = 1 << 20..5 << 20;
/// How often idle files are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(2);

/// An open block.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) index: Index,
    used: Cell<Instant>,
}

/// What one core keeps of blocks.
#[derive(Debug, Default)]
pub(crate) struct Store {
    opened: RefCell<HashMap<PathBuf, Rc<Opened>>>,
    swept: Cell<Option<Instant>>,
    folders: Folders,
    /// The file system of the blocks refuses `O_DIRECT`.
    through_cache: Cell<bool>,
    /// Buffers of blocks that were written; fresh ones cost a page fault for each of their pages.
    spare: RefCell<Vec<Vec<u8>>>,
}

impl Store {
    /// Whether large blocks are written past the page cache.
    pub(super) fn writes_directly(&self) -> bool {
        !self.through_cache.get()
    }

    /// They cannot be.
    pub(super) fn write_through_cache(&self) {
        self.through_cache.set(true);
    }

    /// A buffer for a block of `bytes` that comes in, if it is large and one is spare.
    pub(crate) fn take_spare(&self, bytes: usize) -> Vec<u8> {
        let is_large = bytes >= SPARE_BYTES.start;
        is_large.then(|| self.spare.borrow_mut().pop()).flatten().unwrap_or_default()
    }

    /// A block's buffer is done with.
    pub(super) fn give_spare(&self, buffer: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_MAX && SPARE_BYTES.contains(&buffer.capacity()) {
            spare.push(buffer);
        }
    }

    pub(super) fn folders(&self) -> &Folders {
        &self.folders
    }

    /// A block, opened and its index checked.
    ///
    /// # Errors
    /// `NotFound`; `InvalidData` when the index is damaged.
    pub(super) async fn open(&self, blocks: &Path, block: BlockId, now: Instant) -> io::Result<Rc<Opened>> {
        self.sweep(now);
        let file = path::file(blocks, block);
        if let Some(opened) = self.opened.borrow().get(&file) {
            opened.used.set(now);
            return Ok(opened.clone());
        }
        let opened = File::open(&file).await?;
        let index = match Index::parse(&opened.read_head(HEAD_BYTES).await?) {
            Err(BlockError::Short { .. }) => Index::parse(&opened.read_head(HEAD_BYTES_MAX).await?),
            other => other,
        };
        let index = index.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        let opened = Rc::new(Opened { file: opened, index, used: Cell::new(now) });
        self.keep(file, opened.clone());
        Ok(opened)
    }

    fn keep(&self, file: PathBuf, opened: Rc<Opened>) {
        let mut all = self.opened.borrow_mut();
        if all.len() >= FILES_MAX {
            // Once in FILES_MAX opens at worst: half of them go, the oldest.
            let mut ages: Vec<Instant> = all.values().map(|opened| opened.used.get()).collect();
            let middle = ages.len() / 2;
            let (_, oldest_kept, _) = ages.select_nth_unstable(middle);
            let oldest_kept = *oldest_kept;
            all.retain(|_, opened| opened.used.get() > oldest_kept);
        }
        all.insert(file, opened);
    }

    fn sweep(&self, now: Instant) {
        let due = self.swept.get().is_none_or(|at| now.saturating_duration_since(at) >= SWEEP_EVERY);
        if due {
            self.swept.set(Some(now));
            // While blocks come in it is soon back; else nothing is kept for long.
            drop(self.spare.borrow_mut().pop());
            self.opened
                .borrow_mut()
                .retain(|_, opened| now.saturating_duration_since(opened.used.get()) < IDLE_MAX);
        }
    }

    /// Closes files that are idle; called by the core's own clock too, for a core that reads nothing any more.
    pub(crate) fn rest(&self, now: Instant) {
        self.sweep(now);
    }
}
