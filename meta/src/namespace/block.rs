//! Blocks: who may read and store them, and when their files may go.

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

impl<S: Store> Namespace<S> {
    /// Whether a file refers to a block, so that its bytes may be given to who may read the file.
    ///
    /// # Errors
    /// `ENOENT` when it does not (any more): the client reads the layout anew. `ESTALE`, `EIO`.
    pub fn check_read_block(&mut self, ino: Ino, block: BlockId) -> Result<(), Errno> {
        let txn = self.begin(Time::default());
        self.inode(&txn, ino)?;
        let record = self.block(&txn, block)?.ok_or(Errno::ENOENT)?;
        if self.refers_to(&txn, ino, block, &record)? { Ok(()) } else { Err(Errno::ENOENT) }
    }

    /// Whether a session may store a block: its number was granted to it.
    ///
    /// # Errors
    /// `EACCES`.
    pub fn check_put_block(&mut self, session: SessionId, block: BlockId) -> Result<(), Errno> {
        if self.roster.has_block(session, block.0) { Ok(()) } else { Err(Errno::EACCES) }
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
    /// ever). They cannot come back to life. Their files are deleted by the caller, which then calls [`Self::collected`];
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
        if retention < 0 || self.is_recovering() {
            return Ok((Vec::new(), self.durable().current()));
        }
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
        if blocks.is_empty() {
            return Ok((blocks, self.durable().current()));
        }
        let txn = self.begin(now);
        let mut batch = Batch::default();
        batch.set_frees();
        for block in &blocks {
            let record = self.block(&txn, *block)?.ok_or_else(|| super::record::damaged("garbage"))?;
            if !record.collecting {
                batch.put(key::block(*block), encode(&BlockRecord { collecting: true, ..record }));
            }
        }
        let commit = self.store.commit(batch)?;
        Ok((blocks, commit))
    }

    /// Phase two: the files of these blocks are gone, and so are their rows.
    ///
    /// # Errors
    /// `EIO`.
    pub fn collected(&mut self, blocks: &[BlockId]) -> Result<(), Errno> {
        let mut batch = Batch::default();
        batch.set_frees();
        for block in blocks {
            let Some(row) = self.store.get(&key::block(*block))? else { continue };
            let record: BlockRecord = decode(&row)?;
            if record.collecting && record.live == 0 {
                batch.remove(key::block(*block));
                if let Some(since) = record.garbage {
                    batch.remove(key::garbage(since, *block));
                }
            }
        }
        self.store.commit(batch).map(|_| ())
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
