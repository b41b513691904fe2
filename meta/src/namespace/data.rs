//! The inline part of a file: its first bytes, in one row. Extents win over it, it wins over holes.

use flexfs_wire::errno::Errno;
use flexfs_wire::extent::Extent;
use flexfs_wire::limits::INLINE_BYTES_MAX;
use flexfs_wire::message::Inline;

use super::machine::Namespace;
use super::record::Inode;
use super::txn::Txn;
use crate::engine::Store;

impl<S: Store> Namespace<S> {
    /// Puts bytes into the inline part; a gap before them reads as zeros.
    ///
    /// # Errors
    /// `EAGAIN` when the file has extents, or they would pass the bound.
    pub(super) fn write_inline(
        &mut self,
        txn: &mut Txn,
        inode: &mut Inode,
        inline: &Inline,
    ) -> Result<(), Errno> {
        let start = inline.offset as usize;
        let end = start.checked_add(inline.bytes.len()).ok_or(Errno::EAGAIN)?;
        if end > INLINE_BYTES_MAX || self.has_extents(txn, inode)? {
            return Err(Errno::EAGAIN);
        }
        let mut data = self.data(txn, inode.ino)?;
        if data.len() < end {
            data.resize(end, 0);
        }
        data[start..end].copy_from_slice(&inline.bytes);
        set_data(txn, inode, data);
        Ok(())
    }

    /// Whether extents may lie over the inline part. Dead ones do not count, and those far behind do no harm: a file whose
    /// many extents were cut off is small again before the last of them is removed.
    fn has_extents(&self, txn: &Txn, inode: &Inode) -> Result<bool, Errno> {
        if inode.extents == 0 || !inode.dead {
            return Ok(inode.extents > 0);
        }
        self.has_living(txn, inode, 0, INLINE_BYTES_MAX as u64)
    }

    /// Drops inline bytes from `size` on.
    pub(super) fn cut_inline(&self, txn: &mut Txn, inode: &mut Inode, size: u64) -> Result<(), Errno> {
        if u64::from(inode.inline_bytes) <= size {
            return Ok(());
        }
        let mut data = self.data(txn, inode.ino)?;
        data.truncate(usize::try_from(size).unwrap_or(usize::MAX));
        set_data(txn, inode, data);
        Ok(())
    }

    /// Makes inline bytes of `from .. to` zeros, so that they cannot show up again under a hole.
    pub(super) fn clear_inline(
        &self,
        txn: &mut Txn,
        inode: &mut Inode,
        from: u64,
        to: u64,
    ) -> Result<(), Errno> {
        let length = u64::from(inode.inline_bytes);
        if from >= length {
            return Ok(());
        }
        if to >= length {
            return self.cut_inline(txn, inode, from);
        }
        let mut data = self.data(txn, inode.ino)?;
        let range = usize::try_from(from).unwrap_or(0)..usize::try_from(to).unwrap_or(0);
        data[range].fill(0);
        set_data(txn, inode, data);
        Ok(())
    }

    /// Drops the end of the inline part that extents of this write lie over.
    pub(super) fn trim_inline(
        &self,
        txn: &mut Txn,
        inode: &mut Inode,
        extents: &[Extent],
    ) -> Result<(), Errno> {
        for extent in extents.iter().rev() {
            if extent.end() >= u64::from(inode.inline_bytes) {
                self.cut_inline(txn, inode, extent.offset)?;
            }
        }
        Ok(())
    }
}

pub(super) fn set_data(txn: &mut Txn, inode: &mut Inode, data: Vec<u8>) {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    txn.state.bytes = (txn.state.bytes + u64::from(length)).saturating_sub(u64::from(inode.inline_bytes));
    inode.inline_bytes = length;
    txn.data.insert(inode.ino, (!data.is_empty()).then_some(data));
}
