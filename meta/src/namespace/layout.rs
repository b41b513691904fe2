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
        let stored = self.stored_extents(txn, inode.ino, start, end, self.bounds.layout_extents)?;
        let reached = stored.last().map_or(start, |extent| extent.end);
        layout.end = match () {
            () if stored.len() == self.bounds.layout_extents => reached,
            // `u64::MAX` says that nothing follows, and nothing does when all was asked for.
            () => end.max(reached),
        };
        let live = stored.iter().filter(|extent| !extent.is_dead(&dead));
        layout.extents = live.map(super::record::StoredExtent::extent).collect();
        Ok(layout)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fixture, ROOT};

    #[test]
    fn parts_lead_on_to_the_next() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let ranges: Vec<(u64, u32)> = (0..4_000u64).map(|index| (index * 100, 50)).collect();
        t.write_ranges(file, &ranges);
        let (mut start, mut found, mut parts) = (0, Vec::new(), 0);
        while start != u64::MAX {
            let layout = t.layout(file, start, u64::MAX);
            assert_eq!(layout.start, start);
            assert!(layout.end > start && layout.extents.len() <= t.ns.bounds.layout_extents);
            found.extend(layout.extents.iter().map(|extent| (extent.offset, extent.length)));
            start = layout.end;
            parts += 1;
        }
        assert_eq!((found, parts), (ranges, 2));
        let part = t.layout(file, 120, 230);
        let offsets: Vec<u64> = part.extents.iter().map(|extent| extent.offset).collect();
        assert_eq!((offsets, part.end), (vec![100, 200], 250));
        assert_eq!(t.layout(file, 160, 190).extents, []);
    }
}
