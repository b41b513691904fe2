//! Blocks that are stored and that no file refers to: not yet, or never. They count against the volume's quota from the moment they
//! may be written to the moment their file is deleted, and what one session holds of them has a bound.
//!
//! ```text
//!             put            a file refers to it
//! (nothing) ------> held ------------------------> (counts with the file)
//!                    |-- a write names it without use ----------.
//!                    `-- session ended, write refused, too many --> going -- file deleted --> (nothing)
//! ```
//! Each has a row, so that a restarted server knows them. The number of one that is going is spent in the same batch (of one that was
//! named, when its file is about to be deleted): nobody refers to it any more, and a client that would is refused, and stores the bytes
//! under another number.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;

use flexfs_wire::errno::Errno;
use flexfs_wire::id::{BlockId, SessionId};
use flexfs_wire::limits::SEGMENT_BYTES;
use flexfs_wire::message::Write;

use super::machine::Namespace;
use super::record::{decode, encode};
use super::roster::Roster;
use super::txn::{Effect, Txn};
use crate::engine::key::{self, Tag};
use crate::engine::{Batch, Store};
use crate::quota::{self, Usage};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Idle {
    blocks: HashMap<BlockId, Stored>,
    held: BTreeMap<SessionId, Held>,
    going: BTreeSet<BlockId>,
    /// Of all of them, as stored.
    bytes: u64,
    serial: u64,
}

#[derive(Clone, Copy, Debug)]
struct Stored {
    /// Bytes of its file.
    bytes: u64,
    place: Place,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// This session may make a file refer to it. The serial is its place in the order of storing.
    Held(SessionId, u64),
    /// Its file is to be deleted.
    Going,
}

/// What one session holds, oldest first.
#[derive(Debug, Default)]
struct Held {
    blocks: BTreeMap<u64, BlockId>,
    /// See [`weight`].
    weight: u64,
}

/// What a block counts in its session's bound, bytes: a small one as a segment, for it takes memory here and room on the disk beside
/// its bytes.
fn weight(bytes: u64) -> u64 {
    bytes.max(SEGMENT_BYTES.into())
}

impl Idle {
    /// What the last life of the server left.
    pub(super) fn load(store: &impl Store, roster: &Roster) -> Result<Self, Errno> {
        let mut found = Vec::new();
        let mut result = Ok(());
        let (from, to) = key::table(Tag::Idle);
        store.scan(&from, &to, &mut |key, value| {
            match (key::number(key, 1), decode::<u64>(value)) {
                (Some(block), Ok(bytes)) => found.push((BlockId(block), bytes)),
                (_, Err(errno)) => result = Err(errno),
                (None, Ok(_)) => {}
            }
            ControlFlow::Continue(())
        })?;
        result?;
        let mut idle = Self::default();
        let owners = roster.block_owners();
        for (block, bytes) in found {
            let owner = owners.range(..=block.0).next_back().map(|(_, session)| *session);
            let owner = owner.filter(|session| roster.has_block(*session, block.0));
            idle.hold(owner.unwrap_or(SessionId(0)), block, bytes);
            if owner.is_none() || store.get(&key::block(block))?.is_some() {
                idle.let_go(block);
            }
        }
        Ok(idle)
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn contains(&self, block: BlockId) -> bool {
        self.blocks.contains_key(&block)
    }

    fn hold(&mut self, session: SessionId, block: BlockId, bytes: u64) {
        self.serial += 1;
        let held = self.held.entry(session).or_default();
        held.blocks.insert(self.serial, block);
        held.weight += weight(bytes);
        self.bytes += bytes;
        self.blocks.insert(block, Stored { bytes, place: Place::Held(session, self.serial) });
    }

    /// The oldest of a session that must go, for one of so many bytes more.
    fn too_many(&self, session: SessionId, bytes: u64, weight_max: u64) -> Vec<BlockId> {
        let Some(held) = self.held.get(&session) else { return Vec::new() };
        let mut left = held.weight.saturating_add(weight(bytes));
        let goes = |block: &&BlockId| {
            let is_over = left > weight_max;
            left -= self.blocks.get(block).map_or(0, |stored| weight(stored.bytes)).min(left);
            is_over
        };
        held.blocks.values().take_while(goes).copied().collect()
    }

    /// It is not its session's any more.
    fn unhold(&mut self, block: BlockId, place: Place) {
        let Some(stored) = self.blocks.get_mut(&block) else { return };
        let before = std::mem::replace(&mut stored.place, place);
        if let Place::Held(session, serial) = before
            && let Some(held) = self.held.get_mut(&session)
        {
            held.blocks.remove(&serial);
            held.weight = held.weight.saturating_sub(weight(stored.bytes));
            if held.blocks.is_empty() {
                self.held.remove(&session);
            }
        }
    }

    fn let_go(&mut self, block: BlockId) {
        self.unhold(block, Place::Going);
        self.going.insert(block);
    }

    /// A file refers to it, or its own file is gone.
    pub(super) fn remove(&mut self, block: BlockId) {
        self.unhold(block, Place::Going);
        self.going.remove(&block);
        if let Some(stored) = self.blocks.remove(&block) {
            self.bytes = self.bytes.saturating_sub(stored.bytes);
        }
    }

    /// A session ended, and what was granted to it with it.
    pub(super) fn end(&mut self, session: SessionId) {
        let Some(held) = self.held.get(&session) else { return };
        for block in held.blocks.values().copied().collect::<Vec<_>>() {
            self.let_go(block);
        }
    }

    /// Some whose files are to be deleted.
    pub(super) fn going(&self, count: usize) -> impl Iterator<Item = BlockId> {
        self.going.iter().copied().take(count)
    }

    /// A write was committed that names this block.
    pub(super) fn handle_named(&mut self, block: BlockId, live: bool) {
        if live {
            self.remove(block);
        } else {
            self.let_go(block);
        }
    }
}

impl<S: Store> Namespace<S> {
    /// A session is about to store a block of so many bytes: whether it may. From here on it counts. What the session stored first goes
    /// when it would have too much that no file refers to.
    ///
    /// # Errors
    /// `EACCES`: its number was not granted to the session. `ENOSPC`: the volume is full, or the disk. `EIO`.
    pub fn put_block(&mut self, session: SessionId, block: BlockId, bytes: u64) -> Result<(), Errno> {
        self.check_put_block(session, block)?;
        if self.idle.contains(block) || self.store.get(&key::block(block))?.is_some() {
            return Ok(());
        }
        if !self.is_recovering() {
            let before = self.state.bytes.saturating_add(self.idle.bytes());
            let max = quota::with_under_way(self.limits.bytes_max, self.limits.block_bytes);
            Usage { before, after: before.saturating_add(bytes), max }.check()?;
        }
        let mut batch = Batch::default();
        let surplus = self.idle.too_many(session, bytes, self.bounds.idle_bytes);
        for block in &surplus {
            self.roster.spend_block(block.0, &mut batch);
        }
        batch.put(key::idle(block), encode(&bytes));
        if surplus.is_empty() {
            // The block's own sync is not to wait for this one's. A `Write` that names it is a later commit; with none, and without
            // this row, it is a stray. That numbers are spent must be known before their files go.
            batch.set_lazy();
        }
        self.store.commit(batch)?;
        for block in surplus {
            self.idle.let_go(block);
        }
        self.idle.hold(session, block, bytes);
        Ok(())
    }

    /// A block could not be stored after all.
    ///
    /// # Errors
    /// `EIO`.
    pub fn unput_block(&mut self, block: BlockId) -> Result<(), Errno> {
        // What was named or let go meanwhile is the collector's.
        if matches!(self.idle.blocks.get(&block), Some(Stored { place: Place::Held(..), .. })) {
            let mut batch = Batch::default();
            batch.remove(key::idle(block));
            batch.set_vital();
            self.store.commit(batch)?;
            self.idle.remove(block);
        }
        Ok(())
    }

    /// A write names blocks: those that it refers to count with its file from now on.
    pub(super) fn note_named(&self, txn: &mut Txn, write: &Write) {
        let used = write.extents.iter().map(|extent| extent.block);
        for block in write.blocks.iter().map(|new| new.block).chain(used) {
            if !self.idle.contains(block) {
                continue;
            }
            let Some(live) = txn.blocks.get(&block).map(|pending| pending.record.live > 0) else { continue };
            if live {
                txn.batch.remove(key::idle(block));
            }
            txn.effects.push(Effect::Named(block, live));
        }
    }

    /// A write was refused: its client stores what it still wants under other numbers. In a recovery another replay may name them.
    pub(super) fn end_refused(&mut self, session: SessionId, write: &Write) {
        if self.is_recovering() {
            return;
        }
        let is_held = |block: &BlockId| {
            let place = self.idle.blocks.get(block).map(|stored| stored.place);
            matches!(place, Some(Place::Held(holder, _)) if holder == session)
        };
        let refused: Vec<BlockId> = write.blocks.iter().map(|new| new.block).filter(is_held).collect();
        if refused.is_empty() {
            return;
        }
        let mut batch = Batch::default();
        batch.set_vital();
        for block in &refused {
            self.roster.spend_block(block.0, &mut batch);
        }
        // An engine that fails says so with the next commit; they end with their session then.
        if self.store.commit(batch).is_ok() {
            refused.into_iter().for_each(|block| self.idle.let_go(block));
        }
    }
}

#[cfg(test)]
mod tests {
    use flexfs_wire::extent::{Extent, NewBlock};

    use super::super::context::{BlockState, Bounds, Limits};
    use super::super::fixture::{BLOCK_BYTES, Fixture, ROOT};
    use super::*;

    /// As large as they come in these tests.
    const BYTES: u64 = SEGMENT_BYTES as u64;

    fn put(t: &mut Fixture) -> NewBlock {
        let new = t.block();
        t.ns.put_block(t.context.session, new.block, BYTES).unwrap();
        new
    }

    fn using(new: NewBlock) -> Write {
        let extents = vec![Extent { offset: 0, length: 10, block: new.block, block_offset: 0 }];
        Write { extents, blocks: vec![new], ..Write::default() }
    }

    /// Garbage is kept for ever; these go at once. Their files are gone.
    fn collect(t: &mut Fixture) -> Vec<BlockId> {
        let (blocks, commit) = t.ns.collect(t.context.now, -1, 100).unwrap();
        assert!(commit <= t.ns.durable().current());
        t.ns.collected(&blocks).unwrap();
        blocks
    }

    #[test]
    fn they_count_until_they_are_used_or_gone() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let (used, named, left) = (put(&mut t), put(&mut t), put(&mut t));
        t.ns.put_block(t.context.session, used.block, BYTES).unwrap();
        assert_eq!(t.ns.figures().idle_bytes, 3 * BYTES, "one that is put again counts once");
        t.write(file, using(used)).unwrap();
        assert_eq!(t.ns.figures().idle_bytes, 2 * BYTES);
        t.ns.put_block(t.context.session, used.block, BYTES).unwrap();
        assert_eq!(t.ns.figures().idle_bytes, 2 * BYTES, "it counts with its file");
        t.write(file, Write { blocks: vec![named], ..Write::default() }).unwrap();
        assert_eq!(t.ns.figures().idle_bytes, 2 * BYTES, "to name it is no use of it");
        // Also in the server's next life.
        t.verify();
        let mut t = t.crash(0);
        t.ns.finish_recovery(t.context.now).unwrap();
        assert_eq!(t.ns.figures().idle_bytes, 2 * BYTES);
        assert_eq!(collect(&mut t), [named.block]);
        assert_eq!(t.ns.figures().idle_bytes, BYTES);
        // It was named and not used, and gets a use before it is collected.
        t.write(file, Write { blocks: vec![left], ..Write::default() }).unwrap();
        t.write(file, Write { blocks: vec![], ..using(left) }).unwrap();
        assert_eq!((t.ns.figures().idle_bytes, collect(&mut t)), (0, vec![]));
        let failed = put(&mut t);
        t.ns.unput_block(failed.block).unwrap();
        assert_eq!(t.ns.figures().idle_bytes, 0);
        t.verify();
    }

    #[test]
    fn a_session_takes_them_along() {
        let mut t = Fixture::new();
        let (first, second) = (put(&mut t), put(&mut t));
        let mut t = t.crash(0);
        assert_eq!(t.ns.figures().idle_bytes, 2 * BYTES);
        assert_eq!(collect(&mut t), [], "their session may come back");
        t.ns.finish_recovery(t.context.now).unwrap();
        assert_eq!(collect(&mut t), []);
        assert!(t.ns.end_session(t.context.now, t.context.session).unwrap().is_empty());
        assert_eq!(t.ns.figures().idle_bytes, 2 * BYTES, "their files are there");
        let mut t = t.crash(0);
        t.ns.finish_recovery(t.context.now).unwrap();
        assert_eq!(collect(&mut t), [first.block, second.block]);
        assert_eq!(t.ns.figures().idle_bytes, 0);
        t.verify();
        assert_eq!(t.crash(0).ns.figures().idle_bytes, 0);
    }

    #[test]
    fn the_oldest_go_when_a_session_has_too_many() {
        let mut t = Fixture::new();
        t.ns.set_bounds(Bounds { idle_bytes: 3 * BYTES, ..Bounds::default() });
        let file = t.file(ROOT, "file");
        let blocks: Vec<NewBlock> = (0..4).map(|_| put(&mut t)).collect();
        // Small ones count as a segment, so there are not more of them.
        let small = t.block();
        t.ns.put_block(t.context.session, small.block, 1).unwrap();
        assert_eq!(t.ns.figures().idle_bytes, 4 * BYTES + 1, "files of two of them are still to be deleted");
        for new in &blocks[..2] {
            assert_eq!(t.write(file, using(*new)), Err(Errno::EINVAL), "the client stores it anew");
            assert_eq!(t.ns.put_block(t.context.session, new.block, BYTES), Err(Errno::EACCES));
            assert_eq!(t.ns.block_state(new.block), Ok(BlockState::Stray));
        }
        t.verify();
        let mut t = t.crash(0);
        t.ns.finish_recovery(t.context.now).unwrap();
        assert_eq!(collect(&mut t), [blocks[0].block, blocks[1].block]);
        t.write(file, using(blocks[2])).unwrap();
        t.write(file, using(small)).unwrap();
        assert_eq!(t.ns.figures().idle_bytes, BYTES);
        // Others have a bound of their own.
        let other = t.join();
        let (range, _) = t.ns.grant_blocks(other, 3).unwrap();
        for block in range.start..range.start + range.count {
            t.ns.put_block(other, BlockId(block), BYTES).unwrap();
        }
        assert_eq!((t.ns.figures().idle_bytes, collect(&mut t)), (4 * BYTES, vec![]));
        t.verify();
    }

    #[test]
    fn they_fill_a_volume() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let max = u64::from(BLOCK_BYTES);
        t.ns.set_limits(Limits { bytes_max: max, ..Limits::new(BLOCK_BYTES, 0, 0) });
        let all = quota::with_under_way(max, BLOCK_BYTES);
        let big = t.block();
        assert_eq!(t.ns.put_block(t.context.session, big.block, all + 1), Err(Errno::ENOSPC));
        t.ns.put_block(t.context.session, big.block, all).unwrap();
        let more = t.block();
        assert_eq!(t.ns.put_block(t.context.session, more.block, 1), Err(Errno::ENOSPC));
        // A write that is refused lets go of what it would have referred to.
        let extent = |offset| Extent { offset, length: BLOCK_BYTES, block: big.block, block_offset: 0 };
        let extents = vec![extent(0), extent(max)];
        let write = Write { extents, blocks: vec![big], ..Write::default() };
        assert_eq!(t.write(file, write.clone()), Err(Errno::ENOSPC));
        assert_eq!(t.write(file, write), Err(Errno::EINVAL), "its number is spent");
        assert_eq!(t.ns.put_block(t.context.session, more.block, 1), Err(Errno::ENOSPC), "not yet deleted");
        assert_eq!(collect(&mut t), [big.block]);
        t.ns.put_block(t.context.session, more.block, 1).unwrap();
        t.verify();
    }
}
