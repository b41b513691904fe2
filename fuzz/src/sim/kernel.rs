//! A model of the kernel's caches over FUSE: pages that are kept while nobody drops them and locked while they are read,
//! attributes, names.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flexfs_uring::timer;
use flexfs_wire::attr::Attr;
use flexfs_wire::id::Ino;

pub(crate) const PAGE: u64 = 4096;
/// Linux does not take in a size that was asked for before an `INVAL_INODE` and came after it; a read through pages then
/// ends where the file did before, whatever was appended and completed meanwhile. Nothing that this program could do about
/// it is known; with `true` the simulation shows it.
const DROPS_SIZES: bool = false;

#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    /// Writes under way that hold the page; memory pressure leaves it alone, an `INVAL_INODE` does not.
    pub(crate) held: u32,
    pub(crate) bytes: Vec<u8>,
    pub(crate) uptodate: bool,
    pub(crate) locked: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Cached {
    /// Attributes that need not be asked for.
    pub(crate) attr: Option<Attr>,
    /// The size has been set once.
    pub(crate) is_known: bool,
    /// `i_size`.
    pub(crate) size: u64,
    /// What was asked for before this is not taken in (`fi->attr_version`).
    version: u64,
    pub(crate) pages: BTreeMap<u64, Page>,
    /// Somebody writes (`i_rwsem`).
    writing: bool,
    /// Changes by others that were noticed, and the last after which the pages were dropped.
    pub(crate) seen: u64,
    pub(crate) told: u64,
    /// Ranges that are being dropped.
    pub(crate) dropping: u32,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) inodes: BTreeMap<Ino, Cached>,
    /// Names of the root: present or absent, as long as they need not be looked up.
    pub(crate) names: BTreeMap<String, Option<Ino>>,
    /// `fc->attr_version`.
    clock: u64,
    /// `fc->epoch`: names that were asked for before it was raised are old.
    pub(crate) epoch: u64,
    /// Who looks something up in the root, and whether somebody changes names there (`i_rwsem`).
    looking: u32,
    changing: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Kernel(Mutex<State>);

/// Waits a little longer each time.
#[derive(Debug)]
pub(crate) struct Patience(Duration);

impl Patience {
    pub(crate) fn new() -> Self {
        Self(Duration::from_micros(20))
    }

    pub(crate) async fn wait(&mut self) {
        timer::sleep(self.0).await;
        self.0 = (self.0 * 2).min(Duration::from_millis(2));
    }
}

impl Kernel {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Now, for a question about attributes.
    pub(crate) fn attr_clock(&self) -> u64 {
        self.state().clock
    }

    /// Attributes came that were asked for then.
    pub(crate) fn take_attr(&self, attr: &Attr, asked: u64, keep: bool) {
        let mut state = self.state();
        let inode = state.inodes.entry(attr.ino).or_default();
        if inode.version > asked && (DROPS_SIZES || !inode.is_known) {
            inode.size = if inode.is_known { inode.size } else { attr.size };
            inode.is_known = true;
            return;
        }
        inode.is_known = true;
        let keep = keep && inode.version <= asked;
        if attr.size < inode.size {
            inode.pages.retain(|index, _| index * PAGE < attr.size);
        }
        inode.size = attr.size;
        inode.attr = keep.then_some(*attr);
    }

    /// Drops attributes; false when the inode is not known.
    pub(crate) fn forget_attr(&self, ino: Ino) {
        let mut state = self.state();
        state.clock += 1;
        let clock = state.clock;
        if let Some(inode) = state.inodes.get_mut(&ino) {
            inode.attr = None;
            inode.version = clock;
        }
    }

    /// This client wrote up to there.
    pub(crate) fn note_written(&self, ino: Ino, end: u64) {
        self.forget_attr(ino);
        if let Some(inode) = self.state().inodes.get_mut(&ino) {
            inode.size = inode.size.max(end);
        }
    }

    /// Drops pages of a range, or all; waits for those that are locked.
    pub(crate) async fn forget_pages(&self, ino: Ino, range: Option<Range<u64>>) {
        self.forget_attr(ino);
        let mut at = range.as_ref().map_or(0, |range| range.start / PAGE);
        let end = range.map_or(u64::MAX, |range| range.end.div_ceil(PAGE));
        let mut patience = Patience::new();
        loop {
            {
                let mut state = self.state();
                let Some(inode) = state.inodes.get_mut(&ino) else { return };
                loop {
                    let Some((index, page)) = inode.pages.range(at..).next() else { return };
                    if *index >= end {
                        return;
                    }
                    at = *index;
                    if page.locked {
                        break;
                    }
                    inode.pages.remove(&at);
                }
            }
            patience.wait().await;
        }
    }

    /// What is locked.
    pub(crate) fn describe(&self) -> String {
        let state = self.state();
        let locked = state.inodes.iter().map(|(ino, inode)| {
            let pages: Vec<u64> =
                inode.pages.iter().filter(|(_, page)| page.locked).map(|(index, _)| *index).collect();
            (ino.0, inode.writing, pages)
        });
        let locked: Vec<_> = locked.filter(|(_, writing, pages)| *writing || !pages.is_empty()).collect();
        format!("locked {locked:?}, directory {} {}", state.looking, state.changing)
    }

    /// Memory is short: pages go that nobody has locked or holds.
    pub(crate) fn drop_pages(&self, ino: Ino) {
        if let Some(inode) = self.state().inodes.get_mut(&ino) {
            inode.pages.retain(|_, page| page.locked || page.held > 0);
        }
    }

    /// Everything of all inodes but their pages, and all names.
    pub(crate) fn forget_names(&self) {
        let mut state = self.state();
        state.epoch += 1;
        state.names.clear();
    }

    /// Drops a name; waits for whoever looks something up or changes names.
    pub(crate) async fn forget_name(&self, name: &str) {
        let _dir = self.lock_dir(true).await;
        self.state().names.remove(name);
    }

    /// Takes a name that was asked for in that epoch.
    pub(crate) fn take_name(&self, name: &str, found: Option<Ino>, epoch: u64) {
        let mut state = self.state();
        if state.epoch == epoch {
            state.names.insert(name.to_owned(), found);
        }
    }

    pub(crate) async fn lock_dir(&self, changes: bool) -> Dir<'_> {
        let mut patience = Patience::new();
        loop {
            {
                let mut state = self.state();
                if !state.changing && (!changes || state.looking == 0) {
                    state.changing = changes;
                    state.looking += u32::from(!changes);
                    return Dir { kernel: self, changes };
                }
            }
            patience.wait().await;
        }
    }

    pub(crate) async fn lock_inode(&self, ino: Ino) -> Writing<'_> {
        let mut patience = Patience::new();
        loop {
            {
                let mut state = self.state();
                let inode = state.inodes.entry(ino).or_default();
                if !inode.writing {
                    inode.writing = true;
                    return Writing { kernel: self, ino };
                }
            }
            patience.wait().await;
        }
    }
}

/// Somebody writes to an inode.
pub(crate) struct Writing<'a> {
    kernel: &'a Kernel,
    ino: Ino,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if let Some(inode) = self.kernel.state().inodes.get_mut(&self.ino) {
            inode.writing = false;
        }
    }
}

/// Somebody is at work in the root.
pub(crate) struct Dir<'a> {
    kernel: &'a Kernel,
    changes: bool,
}

impl Drop for Dir<'_> {
    fn drop(&mut self) {
        let mut state = self.kernel.state();
        if self.changes {
            state.changing = false;
        } else {
            state.looking -= 1;
        }
    }
}
