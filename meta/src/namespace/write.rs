//! New content of a file.

use flexfs_wire::errno::Errno;
use flexfs_wire::extent::{Extent, ZERO_BLOCK};
use flexfs_wire::id::Ino;
use flexfs_wire::limits::{BLOCK_BYTES_MAX, CARRIED_BYTES_MAX, EXTENTS_PER_WRITE_MAX, FILE_BYTES_MAX};
use flexfs_wire::message::{Carried, Reply, Write};

use super::context::Context;
use super::machine::Namespace;
use super::record::{BlockRecord, StoredExtent};
use super::txn::{Effect, PendingBlock, Txn};
use crate::engine::key::Granted;
use crate::engine::{Store, key};

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
            if write.kill_privileges || context.is_guarded() {
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
        if let Some(carried) = &write.carried {
            self.store_carried(txn, write, carried)?;
        }
        self.note_named(txn, write);
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
            txn.effects.push(Effect::Used(Granted::Blocks, new.block.0));
        }
        Ok(())
    }

    /// A block that comes with the write that names it: a row of the same batch, so one is there when the other is. It must be new, and
    /// the file must refer to it: what nobody refers to would count nowhere.
    fn store_carried(&self, txn: &mut Txn, write: &Write, carried: &Carried) -> Result<(), Errno> {
        let block = carried.block;
        let new = write.blocks.iter().find(|new| new.block == block).ok_or(Errno::EINVAL)?;
        let is_used = txn.blocks.get(&block).is_some_and(|pending| pending.record.live > 0);
        let fits =
            carried.bytes.len() <= CARRIED_BYTES_MAX && carried.bytes.len() == new.stored_bytes as usize;
        if !is_used || !fits || self.idle.contains(block) {
            return Err(Errno::EINVAL);
        }
        txn.batch.put(key::carried(block), carried.bytes.clone());
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
        let is_his = self.roster.has_block(context.session, extent.block.0)
            || self.refers_to(txn, ino, extent.block, &record)?;
        if is_his { Ok(()) } else { Err(Errno::EINVAL) }
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

#[cfg(test)]
mod tests {
    use flexfs_wire::attr::{S_ISUID, SetAttr};
    use flexfs_wire::extent::NewBlock;
    use flexfs_wire::id::BlockId;
    use flexfs_wire::message::Inline;
    use flexfs_wire::time::Time;

    use super::super::context::Limits;
    use super::super::fixture::{BLOCK_BYTES, Fixture, ROOT};
    use super::*;
    use crate::engine::memory::Memory;

    #[test]
    fn inline_bytes_then_extents_over_them() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let attr = t.write_inline(file, 2, b"abc").unwrap();
        assert_eq!((attr.size, attr.blocks, attr.version), (5, 1, 2));
        assert_eq!(t.layout(file, 0, 5).inline, b"\0\0abc");
        assert_eq!(t.write_inline(file, 16_383, b"xy"), Err(Errno::EAGAIN));
        assert_eq!(t.write_inline(file, u32::MAX, b"x"), Err(Errno::EAGAIN));
        t.write_ranges(file, &[(3, 10)]);
        let layout = t.layout(file, 0, 100);
        assert_eq!(
            (layout.inline.as_slice(), layout.version),
            (&b"\0\0a"[..], 3),
            "what lies under an extent is dropped"
        );
        assert_eq!(t.write_inline(file, 0, b"x"), Err(Errno::EAGAIN));
        assert_eq!(t.attr(file).size, 13);
        t.verify();
        t.truncate(file, 0).unwrap();
        t.write_inline(file, 0, b"small again").unwrap();
        t.verify();
    }

    #[test]
    fn overwriting_splits_cuts_and_frees() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let first = t.write_ranges(file, &[(0, 1000)]);
        t.write_ranges(file, &[(200, 100), (400, 100)]);
        assert_eq!(
            t.extents(file),
            [(0, 200, 0), (200, 100, 0), (300, 100, 300), (400, 100, 100), (500, 500, 500)]
        );
        t.write_ranges(file, &[(900, 200)]);
        assert_eq!(t.extents(file).last(), Some(&(900, 200, 0)));
        assert_eq!((t.attr(file).size, t.attr(file).blocks), (1100, 3));
        t.verify();
        t.write_ranges(file, &[(0, 1100)]);
        assert_eq!(t.extents(file), [(0, 1100, 0)]);
        assert_eq!(t.ns.garbage(), Ok(3));
        assert_eq!(
            t.ns.check_read_block(t.context.now, file, first),
            Ok(()),
            "a reader with an old layout may finish"
        );
        t.verify();
    }

    #[test]
    fn blocks_must_be_granted_and_the_ranges_in_order() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let new = t.block();
        let extent = |offset, length, block_offset| Extent { offset, length, block: new.block, block_offset };
        let write =
            |extents: Vec<Extent>, blocks: Vec<NewBlock>| Write { extents, blocks, ..Write::default() };
        let bad = [
            write(vec![extent(0, 10, 0)], vec![]),
            write(vec![extent(0, 10, BLOCK_BYTES - 9)], vec![new]),
            write(vec![extent(0, 0, 0)], vec![new]),
            write(vec![extent(10, 10, 0), extent(19, 10, 0)], vec![new]),
            write(vec![extent(0, 10, 0)], vec![new, new]),
            write(vec![], vec![NewBlock { block: BlockId(1 << 50), ..new }]),
            write(vec![], vec![NewBlock { raw_bytes: 0, ..new }]),
        ];
        for write in bad {
            assert_eq!(t.write(file, write.clone()), Err(Errno::EINVAL), "{write:?}");
        }
        let far = write(vec![extent(FILE_BYTES_MAX, 1, 0)], vec![new]);
        assert_eq!(t.write(file, far), Err(Errno::EFBIG));
        let far = write(vec![extent(u64::MAX, 1, 0)], vec![new]);
        assert_eq!(t.write(file, far), Err(Errno::EFBIG));
        let block = t.write_ranges(file, &[(0, 10)]);
        // Another session knows the number; it may not read the block through a file of its own.
        t.context.session = t.join();
        let (range, _) = t.ns.grant_inodes(t.context.session, 1).unwrap();
        let mut make = t.request_make(ROOT, Some("other"), flexfs_wire::attr::S_IFREG);
        if let flexfs_wire::message::Request::Make { make, .. } = &mut make {
            make.ino = Ino(range.start);
        }
        t.call(make).unwrap();
        let steal = write(vec![Extent { offset: 0, length: 10, block, block_offset: 0 }], vec![]);
        assert_eq!(t.write(Ino(range.start), steal), Err(Errno::EINVAL));
        assert_eq!(t.ns.check_read_block(t.context.now, Ino(range.start), block), Err(Errno::ENOENT));
        t.verify();
    }

    /// As a mount sends it: the extent, its block, and the block's bytes.
    fn carrying(new: NewBlock, bytes: &[u8]) -> Write {
        let new = NewBlock { stored_bytes: u32::try_from(bytes.len()).unwrap(), ..new };
        let extents = vec![Extent { offset: 0, length: 10, block: new.block, block_offset: 0 }];
        let carried = Some(Carried { block: new.block, bytes: bytes.to_vec() });
        Write { extents, blocks: vec![new], carried, ..Write::default() }
    }

    #[test]
    fn a_small_block_is_there_when_what_names_it_is() {
        let mut t = Fixture::on(Memory::lazy());
        let file = t.file(ROOT, "file");
        t.ns.store_mut().sync(usize::MAX);
        let (first, second) = (t.block(), t.block());
        t.write(file, carrying(first, b"first")).unwrap();
        t.write(file, carrying(second, b"second")).unwrap();
        assert_eq!(t.ns.carried_block(first.block), Ok(Some(b"first".to_vec())));
        t.verify();
        // The server dies, and one of the two outlives it.
        let mut t = t.crash(1);
        t.ns.finish_recovery(t.context.now).unwrap();
        assert_eq!(t.layout(file, 0, 10).extents[0].block, first.block);
        assert_eq!(t.ns.carried_block(first.block), Ok(Some(b"first".to_vec())));
        assert_eq!(t.ns.carried_block(second.block), Ok(None));
        t.verify();
        // Its bytes go with its row.
        t.truncate(file, 0).unwrap();
        t.ns.store_mut().sync(usize::MAX);
        assert_eq!(t.ns.collect(t.context.now, 0, 10).unwrap().0, [first.block]);
        t.ns.collected(&[first.block]).unwrap();
        assert_eq!(t.ns.carried_block(first.block), Ok(None));
        t.verify();
    }

    #[test]
    fn a_small_block_is_new_and_used_and_as_long_as_said() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let new = t.block();
        let good = carrying(new, b"bytes");
        let (elsewhere, stored) = (t.block().block, t.block());
        let bytes = |bytes: &[u8]| Some(Carried { block: new.block, bytes: bytes.to_vec() });
        let long = vec![0; CARRIED_BYTES_MAX + 1];
        let bad = [
            Write { extents: vec![], ..good.clone() },
            Write { blocks: vec![], ..good.clone() },
            Write { carried: bytes(b"byte"), ..good.clone() },
            Write { carried: Some(Carried { block: elsewhere, bytes: b"bytes".to_vec() }), ..good.clone() },
            carrying(new, &long),
        ];
        for write in bad {
            assert_eq!(t.write(file, write), Err(Errno::EINVAL));
        }
        t.ns.put_block(t.context.session, stored.block, 5).unwrap();
        assert_eq!(t.write(file, carrying(stored, b"bytes")), Err(Errno::EINVAL), "it is stored");
        assert_eq!(t.ns.carried_block(new.block), Ok(None));
        t.write(file, good.clone()).unwrap();
        assert_eq!(t.write(file, good), Err(Errno::EINVAL), "a number stands for one content");
        t.ns.set_limits(Limits { bytes_max: 10, ..Limits::new(BLOCK_BYTES, 0, 0) });
        let mut more = carrying(t.block(), b"more");
        more.extents[0].offset = 10;
        let block = more.blocks[0].block;
        assert_eq!(t.write(file, more), Err(Errno::ENOSPC));
        assert_eq!(t.ns.carried_block(block), Ok(None));
        t.verify();
    }

    #[test]
    fn times_and_privileges_and_quota() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        t.set(file, SetAttr { mode: Some(0o4755), ..SetAttr::default() }).unwrap();
        let before = t.attr(file);
        let wrote = Time { secs: before.mtime.secs - 1, nanos: 3 };
        let inline = |time| Write {
            inline: Some(Inline { offset: 0, bytes: vec![1] }),
            kill_privileges: true,
            time,
            ..Write::default()
        };
        let attr = t.write(file, inline(Some(wrote))).unwrap();
        assert_eq!((attr.mtime, attr.ctime, attr.mode & S_ISUID), (wrote, before.ctime, 0));
        let attr = t.write(file, inline(Some(Time { secs: i64::MAX, nanos: 0 }))).unwrap();
        assert_eq!((attr.mtime, attr.ctime), (t.context.now, t.context.now));
        t.ns.set_limits(Limits { bytes_max: 100, ..Limits::new(BLOCK_BYTES, 0, 0) });
        assert_eq!(t.write_inline(file, 0, &[1; 101]), Err(Errno::ENOSPC));
        t.write_inline(file, 0, &[1; 100]).unwrap();
        t.write_inline(file, 0, &[2; 100]).unwrap();
        assert_eq!((t.attr(file).size, t.ns.figures().bytes), (100, 100));
        t.verify();
    }

    #[test]
    fn a_refused_commit_changes_nothing() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let before = (t.attr(file), t.attr(ROOT), t.ns.figures());
        for errno in [Errno::ENOSPC, Errno::EIO] {
            t.ns.store_mut().fail_after(0, errno);
            assert_eq!(t.write_inline(file, 0, b"lost"), Err(errno));
            t.ns.store_mut().fail_after(0, errno);
            assert_eq!(t.remove(ROOT, "file", false), Err(errno));
        }
        assert_eq!((t.attr(file), t.attr(ROOT), t.ns.figures()), before);
        assert_eq!(t.lookup(ROOT, "file"), Ok(file));
        t.write_inline(file, 0, b"kept").unwrap();
        t.verify();
    }
}
