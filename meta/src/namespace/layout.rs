//! Where the bytes of a file are.

use flexfs_wire::errno::Errno;
use flexfs_wire::extent::Layout;
use flexfs_wire::id::Ino;
use flexfs_wire::message::Reply;

use super::context::Context;
use super::machine::Namespace;
use super::record::Inode;
use super::txn::Txn;
use crate::engine::Store;

/// Extents looked at for one answer: some 50 KiB of it, and 1 ms of the volume's thread.
const LAYOUT_EXTENTS_MAX: usize = 2_048;

impl<S: Store> Namespace<S> {
    pub(super) fn read_layout(
        &mut self,
        context: &Context,
        ino: Ino,
        start: u64,
        end: u64,
    ) -> Result<Reply, Errno> {
        let txn = self.begin(context.now);
        let inode = self.file(&txn, ino)?;
        if start > end {
            return Err(Errno::EINVAL);
        }
        Ok(Reply::Layout(self.layout(&txn, &inode, start, end)?))
    }

    /// The layout of `start .. end`, or of its first part. Extents are given whole, also where they reach out of the range.
    pub(super) fn layout(&self, txn: &Txn, inode: &Inode, start: u64, end: u64) -> Result<Layout, Errno> {
        let mut layout = Layout { start, end: u64::MAX, version: inode.version, ..Layout::default() };
        if inode.inline_bytes > 0 {
            layout.inline = self.data(txn, inode.ino)?;
        }
        if inode.extents == 0 {
            return Ok(layout);
        }
        let dead = self.dead_ranges(txn, inode)?;
        let stored = self.stored_extents(txn, inode.ino, start, end, LAYOUT_EXTENTS_MAX)?;
        let reached = stored.last().map_or(start, |extent| extent.end);
        layout.end = match () {
            () if stored.len() == LAYOUT_EXTENTS_MAX => reached,
            // `u64::MAX` says that nothing follows, and nothing does when all was asked for.
            () => end.max(reached),
        };
        let live = stored.iter().filter(|extent| !extent.is_dead(&dead));
        layout.extents = live.map(super::record::StoredExtent::extent).collect();
        Ok(layout)
    }
}
