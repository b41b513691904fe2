//! Blocks: who may read and store them, and when their files may go.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use flexfs_wire::errno::Errno;
use flexfs_wire::id::{BlockId, Commit, Ino, SessionId};
use flexfs_wire::time::Time;

use super::context::BlockState;
use super::machine::Namespace;
use super::record::{BlockRecord, decode, encode};
use super::txn::Txn;
use crate::engine::key::{self, Tag};
use crate::engine::{Batch, Store};

/// How long a block's first file may read what it does not refer to any more, seconds: longer than any read takes.
const OLD_LAYOUT_SECS: i64 = 60;
/// Files that share a block, looked at to find out whether its first file still does. With more of them it may read it.
const SHARERS_MAX: usize = 1_024;

impl<S: Store> Namespace<S> {
    /// Whether a file refers to a block, so that its bytes may be given to who may read the file.
    ///
    /// # Errors
    /// `ENOENT` when it does not (any more): the client reads the layout anew. `ESTALE`, `EIO`.
    pub fn check_read_block(&mut self, now: Time, ino: Ino, block: BlockId) -> Result<(), Errno> {
        let txn = self.begin(now);
        self.inode(&txn, ino)?;
        let record = self.block(&txn, block)?.ok_or(Errno::ENOENT)?;
        if self.refers_to(&txn, ino, block, &record)? { Ok(()) } else { Err(Errno::ENOENT) }
    }

    /// Whether a file may read a block: bytes of it are its own. The block's first file may a moment longer, for one who
    /// reads by a layout of before; not for as long as the block is kept, for the file may have gone to others since.
    pub(super) fn refers_to(
        &self,
        txn: &Txn,
        ino: Ino,
        block: BlockId,
        record: &BlockRecord,
    ) -> Result<bool, Errno> {
        if record.first != ino {
            return Ok(self.share(txn, block, ino)? > 0);
        }
        match record.garbage {
            Some(since) => Ok(txn.now.secs.saturating_sub(since) <= OLD_LAYOUT_SECS),
            None => self.has_first_live(txn, block, record),
        }
    }

    /// Whether live bytes of a block are its first file's: more than the others have together.
    fn has_first_live(&self, txn: &Txn, block: BlockId, record: &BlockRecord) -> Result<bool, Errno> {
        let (from, to) = key::rows(Tag::Share, block.0);
        let pending = txn.shares.range((block, Ino(0))..=(block, Ino(u64::MAX)));
        let mut others: u64 = pending.map(|(_, live)| *live).sum();
        let (mut seen, mut result) = (0, Ok(()));
        self.store.scan(&from, &to, &mut |key, value| {
            seen += 1;
            let sharer = Ino(key::number(key, 9).unwrap_or(0));
            if !txn.shares.contains_key(&(block, sharer)) {
                match decode::<u64>(value) {
                    Ok(live) => others = others.saturating_add(live),
                    Err(errno) => result = Err(errno),
                }
            }
            if seen < SHARERS_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result.map(|()| others < record.live || seen >= SHARERS_MAX)
    }

    /// Whether a session may store a block: its number was granted to it.
    ///
    /// # Errors
    /// `EACCES`.
    pub fn check_put_block(&mut self, session: SessionId, block: BlockId) -> Result<(), Errno> {
        if self.roster.has_block(session, block.0) { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// The bytes of a small block that came with the write that names it: it has no file.
    ///
    /// # Errors
    /// `EIO`.
    pub fn carried_block(&self, block: BlockId) -> Result<Option<Vec<u8>>, Errno> {
        self.store.get(&key::carried(block))
    }

    /// What is known of a block's file. While a recovery runs nothing is a stray: a replay may refer to it.
    ///
    /// # Errors
    /// `EIO`.
    pub fn block_state(&mut self, block: BlockId) -> Result<BlockState, Errno> {
        let txn = self.begin(Time::default());
        if self.block(&txn, block)?.is_some() {
            return Ok(BlockState::Kept);
        }
        let may_come = self.is_recovering() || self.roster.is_block_granted(block.0);
        Ok(if may_come { BlockState::Granted } else { BlockState::Stray })
    }

    /// Phase one of collection: at most `count` blocks that have been without live bytes for `retention` seconds (-1: for
    /// ever), and such as nobody can refer to. They cannot come back to life. Their files are deleted by the caller, which then calls [`Self::collected`];
    /// until then they are handed out again. Nothing is collected while a recovery runs.
    ///
    /// The files may be deleted when `durable()` has reached the commit given back: before that a crash could bring back
    /// an extent that refers to one of them.
    ///
    /// # Errors
    /// `ENOSPC`, `EIO`.
    pub fn collect(
        &mut self,
        now: Time,
        retention: i64,
        count: usize,
    ) -> Result<(Vec<BlockId>, Commit), Errno> {
        if self.is_recovering() {
            return Ok((Vec::new(), self.durable().current()));
        }
        let mut blocks = if retention < 0 { Vec::new() } else { self.old_garbage(now, retention, count)? };
        let garbage: BTreeSet<BlockId> = blocks.iter().copied().collect();
        let going = self.idle.going(count.saturating_sub(blocks.len()));
        blocks.extend(going.filter(|block| !garbage.contains(block)));
        if blocks.is_empty() {
            return Ok((blocks, self.durable().current()));
        }
        let txn = self.begin(now);
        let mut batch = Batch::default();
        batch.set_vital();
        for block in &blocks {
            match self.block(&txn, *block)? {
                Some(record) if record.collecting => {}
                Some(record) => {
                    batch.put(key::block(*block), encode(&BlockRecord { collecting: true, ..record }));
                }
                None if garbage.contains(block) => return Err(super::record::damaged("garbage")),
                // Never named; its number is spent.
                None => {}
            }
        }
        let commit = self.store.commit(batch)?;
        Ok((blocks, commit))
    }

    /// At most `count` blocks from the list of garbage, oldest first.
    fn old_garbage(&mut self, now: Time, retention: i64, count: usize) -> Result<Vec<BlockId>, Errno> {
        let to = key::garbage(now.secs.saturating_sub(retention).saturating_add(1), BlockId(0));
        let mut blocks = Vec::new();
        let mut first = None;
        self.store.scan(&self.garbage_from, &to, &mut |key, _| {
            if first.is_none() {
                first = Some(key.to_vec());
            }
            blocks.extend(key::number(key, 9).map(BlockId));
            if blocks.len() < count { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if let Some(first) = first {
            self.garbage_from = first;
        }
        Ok(blocks)
    }

    /// Phase two: the files of these blocks are gone, and so are their rows.
    ///
    /// # Errors
    /// `EIO`.
    pub fn collected(&mut self, blocks: &[BlockId]) -> Result<(), Errno> {
        let mut batch = Batch::default();
        batch.set_vital();
        let mut gone = Vec::new();
        for block in blocks {
            if let Some(row) = self.store.get(&key::block(*block))? {
                let record: BlockRecord = decode(&row)?;
                if !record.collecting || record.live > 0 {
                    continue;
                }
                // A number stands for one content for ever: others may still have what they read under it.
                self.roster.spend_block(block.0, &mut batch);
                batch.remove(key::block(*block));
                batch.remove(key::carried(*block));
                if let Some(since) = record.garbage {
                    batch.remove(key::garbage(since, *block));
                }
            }
            if self.idle.contains(*block) {
                batch.remove(key::idle(*block));
                gone.push(*block);
            }
        }
        self.store.commit(batch)?;
        gone.into_iter().for_each(|block| self.idle.remove(block));
        Ok(())
    }

    /// A clock that went back lists garbage below where the scan begins.
    pub(super) fn watch_garbage(&mut self, txn: &Txn) {
        for (block, pending) in &txn.blocks {
            if let Some(since) = pending.record.garbage {
                let key = key::garbage(since, *block);
                if key < self.garbage_from {
                    self.garbage_from = key;
                }
            }
        }
    }

    /// Number of rows on the list of garbage, for tests and figures: a scan.
    ///
    /// # Errors
    /// `EIO`.
    pub fn garbage(&self) -> Result<u64, Errno> {
        let (from, to) = key::table(Tag::Garbage);
        let mut count = 0;
        self.store.scan(&from, &to, &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        })?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use flexfs_wire::extent::Extent;
    use flexfs_wire::message::Write;

    use super::super::fixture::{Fixture, ROOT};
    use super::*;

    #[test]
    fn garbage_waits_and_goes_in_two_phases() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let one = t.write_ranges(file, &[(0, 100)]);
        let two = t.write_ranges(file, &[(0, 100)]);
        let three = t.write_ranges(file, &[(0, 100)]);
        let now = t.context.now;
        assert_eq!(t.ns.collect(now, -1, 10).unwrap().0, []);
        assert_eq!(t.ns.collect(now, 100, 10).unwrap().0, []);
        assert_eq!(t.ns.collect(now, 1, 10).unwrap().0, [one]);
        assert_eq!(t.ns.collect(now, 0, 10).unwrap().0, [one, two], "again until it is gone");
        assert_eq!(t.ns.block_state(one), Ok(BlockState::Kept));
        t.verify();
        // It cannot come back to life.
        let extents = vec![Extent { offset: 0, length: 10, block: one, block_offset: 0 }];
        assert_eq!(t.write(file, Write { extents, ..Write::default() }), Err(Errno::EAGAIN));
        t.ns.collected(&[one, three]).unwrap();
        assert_eq!(t.ns.collect(now, 0, 10).unwrap().0, [two]);
        t.ns.collected(&[two]).unwrap();
        assert_eq!((t.ns.garbage(), t.ns.block_state(one)), (Ok(0), Ok(BlockState::Stray)));
        assert_eq!(t.ns.check_read_block(now, file, three), Ok(()));
        t.verify();
        // A clock that went back.
        t.context.now.secs = -50;
        t.write_ranges(file, &[(0, 100)]);
        let now = t.context.now;
        assert_eq!(t.ns.collect(now, 0, 10).unwrap().0, [three]);
        t.verify();
    }

    #[test]
    fn a_collected_number_is_not_used_again() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let blocks: Vec<BlockId> = (0..5).map(|_| t.write_ranges(file, &[(0, 100)])).collect();
        let (now, session) = (t.context.now, t.context.session);
        for block in [blocks[1], blocks[0], blocks[3]] {
            assert_eq!(t.ns.check_put_block(session, block), Ok(()));
            t.ns.collect(now, 0, 10).unwrap();
            t.ns.collected(&[block]).unwrap();
            assert_eq!(t.ns.check_put_block(session, block), Err(Errno::EACCES));
        }
        t.ns.store_mut().sync(usize::MAX);
        let mut t = t.crash(0);
        for (index, block) in blocks.iter().enumerate() {
            let expected = if [0, 1, 3].contains(&index) { Err(Errno::EACCES) } else { Ok(()) };
            assert_eq!(t.ns.check_put_block(session, *block), expected, "{index}");
        }
        t.verify();
    }

    /// What was taken out of a file before it came to others was to be read for as long as its block was kept.
    #[test]
    fn what_was_in_a_file_is_not_read_for_as_long_as_it_is_kept() {
        let mut t = Fixture::new();
        let (file, copy) = (t.file(ROOT, "file"), t.file(ROOT, "copy"));
        let (secret, shared) = (t.write_ranges(file, &[(0, 100)]), t.write_ranges(file, &[(100, 100)]));
        let request = flexfs_wire::message::Request::CopyRange {
            source: Fixture::node(file),
            source_offset: 100,
            target: Fixture::node(copy),
            target_offset: 0,
            length: 100,
        };
        t.call(request).unwrap();
        let later = Time { secs: t.context.now.secs + OLD_LAYOUT_SECS + 2, nanos: 0 };
        for block in [secret, shared] {
            assert_eq!(t.ns.check_read_block(later, file, block), Ok(()));
        }
        t.truncate(file, 0).unwrap();
        assert_eq!(t.ns.check_read_block(t.context.now, file, secret), Ok(()), "one who reads right now");
        assert_eq!(t.ns.check_read_block(later, file, secret), Err(Errno::ENOENT));
        assert_eq!(t.ns.check_read_block(later, file, shared), Err(Errno::ENOENT), "others keep it alive");
        assert_eq!(t.ns.check_read_block(later, copy, shared), Ok(()));
        // Nor by referring to it anew.
        let session = t.join();
        (t.context.session, t.context.now) = (session, later);
        for block in [secret, shared] {
            let extents = vec![Extent { offset: 0, length: 10, block, block_offset: 0 }];
            assert_eq!(t.write(file, Write { extents, ..Write::default() }), Err(Errno::EINVAL));
        }
        t.verify();
    }

    #[test]
    fn a_block_without_use_is_garbage_until_it_gets_one() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let new = t.block();
        t.write(file, Write { blocks: vec![new], ..Write::default() }).unwrap();
        assert_eq!(t.ns.garbage(), Ok(1));
        t.verify();
        let extents = vec![Extent { offset: 0, length: 10, block: new.block, block_offset: 0 }];
        t.write(file, Write { extents, ..Write::default() }).unwrap();
        assert_eq!(t.ns.garbage(), Ok(0));
        t.verify();
    }

    #[test]
    fn strays_are_those_nobody_can_name() {
        let mut t = Fixture::new();
        let new = t.block();
        let session = t.context.session;
        assert_eq!(t.ns.block_state(new.block), Ok(BlockState::Granted));
        assert_eq!(t.ns.check_put_block(session, new.block), Ok(()));
        let other = t.join();
        assert_eq!(t.ns.check_put_block(other, new.block), Err(Errno::EACCES));
        let now = t.context.now;
        assert!(t.ns.end_session(now, session).unwrap().is_empty());
        assert_eq!(t.ns.block_state(new.block), Ok(BlockState::Stray));
        t.verify();
    }
}
