//! `fallocate(2)`: allocate, punch, zero.

use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::limits::{FILE_BYTES_MAX, INLINE_BYTES_MAX};
use flexfs_wire::message::{FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, Reply};

use super::context::Context;
use super::data::set_data;
use super::machine::Namespace;
use super::record::{DeadRange, Inode, StoredExtent};
use super::txn::Txn;
use crate::engine::Store;

/// Extents in a range that is to be allocated or zeroed; with more of them it would hold the volume's thread too long.
const FILLED_EXTENTS_MAX: usize = 65_536;
const PUNCH: u32 = FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE;

impl<S: Store> Namespace<S> {
    pub(super) fn fallocate(
        &mut self,
        context: &Context,
        txn: &mut Txn,
        ino: Ino,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> Result<Reply, Errno> {
        let keep_size = mode & FALLOC_KEEP_SIZE != 0;
        if !matches!(mode & !FALLOC_KEEP_SIZE, 0 | FALLOC_ZERO_RANGE) && mode != PUNCH {
            return Err(Errno::EOPNOTSUPP);
        }
        if length == 0 {
            return Err(Errno::EINVAL);
        }
        let end = offset.checked_add(length).filter(|end| *end <= FILE_BYTES_MAX).ok_or(Errno::EFBIG)?;
        let mut inode = match self.file(txn, ino) {
            Err(Errno::EINVAL) => return Err(Errno::ENODEV),
            other => other?,
        };
        match mode & !FALLOC_KEEP_SIZE {
            FALLOC_PUNCH_HOLE => self.punch(txn, &mut inode, offset, end)?,
            FALLOC_ZERO_RANGE => self.zero(txn, &mut inode, offset, end, keep_size)?,
            _ => self.allocate(txn, &mut inode, offset, end)?,
        }
        if !keep_size {
            inode.size = inode.size.max(end);
        }
        if context.kills_privileges() {
            inode.kill_privileges();
        }
        txn.set_inode(inode);
        Ok(Reply::Attr(inode.attr()))
    }

    fn punch(&mut self, txn: &mut Txn, inode: &mut Inode, from: u64, to: u64) -> Result<(), Errno> {
        self.kill_extents(txn, inode, from, to)?;
        self.clear_inline(txn, inode, from, to)?;
        inode.touch_data(txn.now);
        Ok(())
    }

    fn zero(
        &mut self,
        txn: &mut Txn,
        inode: &mut Inode,
        from: u64,
        to: u64,
        keep_size: bool,
    ) -> Result<(), Errno> {
        // The inline part never reaches beyond the end of the file.
        let fits_inline = to <= INLINE_BYTES_MAX as u64 && (!keep_size || to <= inode.size);
        if fits_inline && !self.has_living(txn, inode, 0, u64::MAX)? {
            let mut data = self.data(txn, inode.ino)?;
            let (from, to) = (usize::try_from(from).unwrap_or(0), usize::try_from(to).unwrap_or(0));
            if data.len() < to {
                data.resize(to, 0);
            }
            data[from..to].fill(0);
            set_data(txn, inode, data);
            inode.touch_data(txn.now);
            return Ok(());
        }
        // Zeros lie where the extents were, so that those must go now, not later.
        self.not_too_many_extents(txn, inode, from, to)?;
        self.clear_extents(txn, inode, from, to)?;
        inode.touch_data(txn.now);
        self.insert_zeros(txn, inode, from, to)?;
        self.clear_inline(txn, inode, from, to)
    }

    /// Fills the holes with allocated zeros; what is there stays.
    fn allocate(&mut self, txn: &mut Txn, inode: &mut Inode, from: u64, to: u64) -> Result<(), Errno> {
        let (extents, dead) = self.not_too_many_extents(txn, inode, from, to)?;
        inode.touch_data(txn.now);
        // Inline bytes are allocated already.
        let mut hole = from.max(u64::from(inode.inline_bytes));
        for extent in extents {
            if extent.is_dead(&dead) {
                self.remove_extent(txn, inode, &extent)?;
                continue;
            }
            if hole < extent.start {
                self.insert_zeros(txn, inode, hole, extent.start)?;
            }
            hole = hole.max(extent.end);
        }
        if hole < to {
            self.insert_zeros(txn, inode, hole, to)?;
        }
        Ok(())
    }

    /// Stored extents of a range, with the dead ranges. Only living ones count: a replay may find more dead ones.
    fn not_too_many_extents(
        &self,
        txn: &Txn,
        inode: &Inode,
        from: u64,
        to: u64,
    ) -> Result<(Vec<StoredExtent>, Vec<DeadRange>), Errno> {
        let dead = self.dead_ranges(txn, inode)?;
        let extents = self.stored_extents(txn, inode.ino, from, to, usize::MAX)?;
        let living = extents.iter().filter(|extent| !extent.is_dead(&dead)).count();
        if living > FILLED_EXTENTS_MAX { Err(Errno::EOPNOTSUPP) } else { Ok((extents, dead)) }
    }
}

#[cfg(test)]
mod tests {
    use flexfs_wire::attr::Attr;
    use flexfs_wire::message::Request;

    use super::super::fixture::{Fixture, ROOT};
    use super::*;

    fn fallocate(t: &mut Fixture, ino: Ino, mode: u32, offset: u64, length: u64) -> Result<Attr, Errno> {
        match t.call(Request::Fallocate { node: Fixture::node(ino), mode, offset, length })? {
            Reply::Attr(attr) => Ok(attr),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn allocates_the_holes() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        t.write_ranges(file, &[(100, 100), (300, 100)]);
        let attr = fallocate(&mut t, file, 0, 50, 1000).unwrap();
        assert_eq!((attr.size, attr.blocks), (1050, 2));
        assert_eq!(
            t.extents(file).iter().map(|e| (e.0, e.1)).collect::<Vec<_>>(),
            [(50, 50), (100, 100), (200, 100), (300, 100), (400, 650)]
        );
        let attr = fallocate(&mut t, file, FALLOC_KEEP_SIZE, 0, 1 << 40).unwrap();
        assert_eq!((attr.size, attr.blocks), (1050, (1 << 40) / 512));
        t.verify();
        t.truncate(file, 1049).unwrap();
        assert_eq!(t.attr(file).blocks, 3, "what was allocated beyond the end goes with a cut");
        t.verify();
    }

    #[test]
    fn punches_and_zeros_both_parts() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        t.write_inline(file, 0, &[b'x'; 100]).unwrap();
        fallocate(&mut t, file, PUNCH, 10, 20).unwrap();
        assert_eq!(t.layout(file, 0, 1).inline[8..32], [&b"xx"[..], &[0; 20], &b"xx"[..]].concat());
        fallocate(&mut t, file, PUNCH, 90, 1000).unwrap();
        assert_eq!((t.layout(file, 0, 1).inline.len(), t.attr(file).size), (90, 100));
        let attr = fallocate(&mut t, file, FALLOC_ZERO_RANGE, 80, 100).unwrap();
        assert_eq!((attr.size, t.layout(file, 0, 1).inline.len()), (180, 180));
        t.verify();
        fallocate(&mut t, file, FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE, 100, 1 << 20).unwrap();
        assert_eq!((t.attr(file).size, t.layout(file, 0, 1).inline.len()), (180, 100));
        t.write_ranges(file, &[(0, 1000)]);
        fallocate(&mut t, file, PUNCH, 0, 500).unwrap();
        let layout = t.layout(file, 0, u64::MAX);
        assert_eq!(layout.inline, b"", "what an extent had covered does not come back");
        assert_eq!(layout.extents[0].offset, 500);
        t.verify();
    }

    #[test]
    fn refusals() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let fifo = t.make(ROOT, "fifo", flexfs_wire::attr::S_IFIFO);
        assert_eq!(fallocate(&mut t, file, 0, 0, 0), Err(Errno::EINVAL));
        assert_eq!(fallocate(&mut t, file, 0, u64::MAX, 1), Err(Errno::EFBIG));
        assert_eq!(fallocate(&mut t, file, 0, FILE_BYTES_MAX, 1), Err(Errno::EFBIG));
        assert_eq!(fallocate(&mut t, file, FALLOC_PUNCH_HOLE, 0, 1), Err(Errno::EOPNOTSUPP));
        assert_eq!(fallocate(&mut t, file, 0x08, 0, 1), Err(Errno::EOPNOTSUPP));
        assert_eq!(fallocate(&mut t, fifo, 0, 0, 1), Err(Errno::ENODEV));
        assert_eq!(fallocate(&mut t, ROOT, 0, 0, 1), Err(Errno::EISDIR));
    }

    #[test]
    fn a_hole_of_many_extents_shows_at_once() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let ranges: Vec<(u64, u32)> = (0..4_000u64).map(|index| (index * 100, 50)).collect();
        t.write_ranges(file, &ranges);
        fallocate(&mut t, file, PUNCH, 20, 399_900 - 20).unwrap();
        assert_eq!(t.extents(file).iter().map(|e| (e.0, e.1)).collect::<Vec<_>>(), [(0, 20), (399_900, 50)]);
        t.verify();
        fallocate(&mut t, file, FALLOC_ZERO_RANGE, 0, 400_000).unwrap();
        t.verify();
        t.settle();
        assert_eq!(t.extents(file), [(0, 400_000, 0)]);
        t.verify();
    }
}
