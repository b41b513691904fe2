//! New content of a file.

use flexfs_wire::errno::Errno;
use flexfs_wire::extent::{Extent, ZERO_BLOCK};
use flexfs_wire::id::{BlockId, Ino};
use flexfs_wire::limits::{BLOCK_BYTES_MAX, EXTENTS_PER_WRITE_MAX, FILE_BYTES_MAX};
use flexfs_wire::message::{Reply, Write};

use super::context::Context;
use super::machine::Namespace;
use super::record::{BlockRecord, StoredExtent};
use super::txn::{PendingBlock, Txn};
use crate::engine::Store;

impl<S: Store> Namespace<S> {
    pub(super) fn write(
        &mut self,
        context: &Context,
        txn: &mut Txn,
        ino: Ino,
        write: &Write,
    ) -> Result<Reply, Errno> {
        let mut inode = self.file(txn, ino)?;
        check_extents(&write.extents)?;
        self.add_blocks(context, txn, ino, write)?;
        let inline = write.inline.as_ref().filter(|inline| !inline.bytes.is_empty());
        if let Some(inline) = inline {
            self.write_inline(txn, &mut inode, inline)?;
        }
        if inline.is_some() || !write.extents.is_empty() {
            inode.touch_written(context.now, write.time);
            if write.kill_privileges {
                inode.kill_privileges();
            }
        }
        for extent in &write.extents {
            self.check_block(context, txn, ino, extent)?;
            self.clear_extents(txn, &mut inode, extent.offset, extent.end())?;
            let extent = StoredExtent {
                start: extent.offset,
                end: extent.end(),
                block: extent.block,
                block_offset: extent.block_offset,
                version: inode.version,
            };
            self.insert_extent(txn, &mut inode, extent)?;
        }
        self.trim_inline(txn, &mut inode, &write.extents)?;
        let inline_end = inline.map_or(0, |inline| u64::from(inline.offset) + inline.bytes.len() as u64);
        let extents_end = write.extents.last().map_or(0, Extent::end);
        inode.size = inode.size.max(inline_end).max(extents_end);
        txn.set_inode(inode);
        Ok(Reply::Attr(inode.attr()))
    }

    /// Rows for the blocks that come with this write.
    fn add_blocks(&self, context: &Context, txn: &mut Txn, ino: Ino, write: &Write) -> Result<(), Errno> {
        for new in &write.blocks {
            let granted = self.roster.has_block(context.session, new.block.0);
            let sane = new.block != ZERO_BLOCK && (1..=BLOCK_BYTES_MAX).contains(&new.raw_bytes);
            if !granted || !sane || self.block(txn, new.block)?.is_some() {
                return Err(Errno::EINVAL);
            }
            let record = BlockRecord {
                raw_bytes: new.raw_bytes,
                stored_bytes: new.stored_bytes,
                live: 0,
                first: ino,
                garbage: None,
                collecting: false,
            };
            txn.blocks.insert(new.block, PendingBlock { record, listed: None });
        }
        Ok(())
    }

    /// Whether an extent may refer to its block: it came with this write, or with one to this file, or was made by this
    /// session (a block shared by several files).
    fn check_block(&self, context: &Context, txn: &Txn, ino: Ino, extent: &Extent) -> Result<(), Errno> {
        if extent.block == ZERO_BLOCK {
            return Ok(());
        }
        let record = self.block(txn, extent.block)?.ok_or(Errno::EINVAL)?;
        if u64::from(extent.block_offset) + u64::from(extent.length) > u64::from(record.raw_bytes) {
            return Err(Errno::EINVAL);
        }
        if record.collecting {
            // Its file is being deleted: the client writes the bytes anew, as after any refused write.
            return Err(Errno::EAGAIN);
        }
        let is_his = self.refers_to(txn, ino, extent.block, &record)?
            || self.roster.has_block(context.session, extent.block.0);
        if is_his { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// Whether a file may read a block: it is the block's first file, or shares it.
    pub(super) fn refers_to(
        &self,
        txn: &Txn,
        ino: Ino,
        block: BlockId,
        record: &BlockRecord,
    ) -> Result<bool, Errno> {
        Ok(record.first == ino || self.share(txn, block, ino)? > 0)
    }
}

/// Ascending, not overlapping, within the largest file.
fn check_extents(extents: &[Extent]) -> Result<(), Errno> {
    if extents.len() > EXTENTS_PER_WRITE_MAX {
        return Err(Errno::E2BIG);
    }
    let mut last = 0;
    for extent in extents {
        let end = extent.offset.checked_add(u64::from(extent.length)).ok_or(Errno::EFBIG)?;
        if end > FILE_BYTES_MAX {
            return Err(Errno::EFBIG);
        }
        if extent.length == 0 || extent.offset < last {
            return Err(Errno::EINVAL);
        }
        last = end;
    }
    Ok(())
}
