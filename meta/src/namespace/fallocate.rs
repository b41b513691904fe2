//! `fallocate(2)`: allocate, punch, zero.

use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::limits::{FILE_BYTES_MAX, INLINE_BYTES_MAX};
use flexfs_wire::message::{FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, Reply};

use super::data::set_data;
use super::machine::Namespace;
use super::record::Inode;
use super::txn::Txn;
use crate::engine::Store;

/// Extents in a range that is to be allocated or zeroed; with more of them it would hold the volume's thread too long.
const FILLED_EXTENTS_MAX: usize = 65_536;
const PUNCH: u32 = FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE;

impl<S: Store> Namespace<S> {
    pub(super) fn fallocate(
        &mut self,
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
            FALLOC_ZERO_RANGE => self.zero(txn, &mut inode, offset, end)?,
            _ => self.allocate(txn, &mut inode, offset, end)?,
        }
        if !keep_size {
            inode.size = inode.size.max(end);
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

    fn zero(&mut self, txn: &mut Txn, inode: &mut Inode, from: u64, to: u64) -> Result<(), Errno> {
        if inode.extents == 0 && to <= INLINE_BYTES_MAX as u64 {
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
        if self.stored_extents(txn, inode.ino, from, to, FILLED_EXTENTS_MAX)?.len() == FILLED_EXTENTS_MAX {
            return Err(Errno::EOPNOTSUPP);
        }
        self.clear_extents(txn, inode, from, to)?;
        inode.touch_data(txn.now);
        self.insert_zeros(txn, inode, from, to)?;
        self.clear_inline(txn, inode, from, to)
    }

    /// Fills the holes with allocated zeros; what is there stays.
    fn allocate(&mut self, txn: &mut Txn, inode: &mut Inode, from: u64, to: u64) -> Result<(), Errno> {
        let extents = self.stored_extents(txn, inode.ino, from, to, FILLED_EXTENTS_MAX)?;
        if extents.len() == FILLED_EXTENTS_MAX {
            return Err(Errno::EOPNOTSUPP);
        }
        let dead = self.dead_ranges(txn, inode)?;
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
}
