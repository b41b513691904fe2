//! Attributes that the server has told, for what the kernel asks although it was told: the time of birth, which it does not keep
//! (`statx(2)` of programs written in Rust, `ls` of coreutils).
//!
//! They count while the lease stands that they came with, and this mount changes nothing about the inode. Of directories, and of
//! files that were opened here, more is known elsewhere (`content`, `data`).

use std::borrow::Borrow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use flexfs_wire::attr::Attr;

use super::inode::Inode;
use super::state::{Grant, Vfs};
use crate::lease::Asked;

impl Vfs {
    /// Changes of attributes by this mount, begun and ended.
    pub(super) fn own_changes(&self) -> u64 {
        self.own_changes.load(Ordering::SeqCst)
    }

    /// This mount is about to change these, or just did: what was told, and what is on its way, may be from before.
    /// Returns how many there were by then, this one included.
    pub(super) fn note_change<I: Borrow<Arc<Inode>>>(&self, changed: impl IntoIterator<Item = I>) -> u64 {
        let before = self.own_changes.fetch_add(1, Ordering::SeqCst);
        for inode in changed {
            inode.borrow().set_told(None);
        }
        before + 1
    }

    /// The server told them under a lease.
    pub(super) fn note_told(&self, inode: &Inode, attr: &Attr, grant: Grant) {
        if inode.is_dir() {
            return;
        }
        inode.set_told(Some((*attr, grant.asked, self.remote.recalls().life())));
        // In this order: a change that begins now takes it away, one that began is seen here.
        if grant.own != self.own_changes() {
            inode.set_told(None);
        }
    }

    /// Attributes as they are, if that is known, and when they were asked for. Taken after a recall was heard it may be what was true before; so is what
    /// the kernel itself keeps until it is told.
    pub(super) fn told(&self, inode: &Inode) -> Option<(Attr, Asked)> {
        self.told_under_lease(inode).filter(|_| !self.files.knows(inode.ino()))
    }

    /// Attributes as the server told them last, and when that was asked, as long as no recall of the inode was heard since.
    pub(super) fn told_under_lease(&self, inode: &Inode) -> Option<(Attr, Asked)> {
        let (attr, asked, life) = inode.told()?;
        let recalls = self.remote.recalls();
        (recalls.life() == life && recalls.is_good(inode.ino(), asked)).then_some((attr, asked))
    }
}
