//! What one request is about to change. Nothing of it is seen by others until it is committed; an error just drops it.

use std::collections::BTreeMap;

use flexfs_wire::id::{BlockId, Ino, RequestId, SessionId};
use flexfs_wire::name::Name;
use flexfs_wire::time::Time;

use super::record::{BlockRecord, DeadRange, Dentry, Inode, State, StoredExtent, encode};
use crate::engine::key::Granted;
use crate::engine::{Batch, key};
use crate::few::Few;

/// Changes to be committed together. Reads of the machine look here first.
#[derive(Debug)]
pub(super) struct Txn {
    pub(super) now: Time,
    /// The program was told already; such calls come in any order.
    pub(super) is_told: bool,
    pub(super) state: State,
    pub(super) inodes: Few<Ino, Option<Inode>>,
    pub(super) dentries: Few<(Ino, Name), Option<Dentry>>,
    pub(super) extents: BTreeMap<(Ino, u64), Option<StoredExtent>>,
    pub(super) data: BTreeMap<Ino, Option<Vec<u8>>>,
    pub(super) dead: BTreeMap<Ino, Vec<DeadRange>>,
    pub(super) blocks: BTreeMap<BlockId, PendingBlock>,
    pub(super) shares: BTreeMap<(BlockId, Ino), u64>,
    /// Rows that are written and never read back within a request.
    pub(super) batch: Batch,
    pub(super) effects: Vec<Effect>,
    /// Dedup rows removed along; put back into the queue when the commit fails.
    pub(super) pruned: Vec<(SessionId, RequestId)>,
}

/// A block row and the garbage row that stands in the store.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingBlock {
    pub(super) record: BlockRecord,
    pub(super) listed: Option<i64>,
}

/// Changes of memory that follow a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// The session has it open once more, for writing if so.
    Opened(Ino, bool),
    /// It has no name any more, or was made without.
    Orphaned(Ino),
    /// It stays for a while, though nobody has it open.
    Lingers(Ino),
    /// It got a name, or is gone.
    Unorphaned(Ino),
    /// It has dead ranges.
    Dying(Ino),
    /// It has none any more.
    Dead(Ino),
    /// The session has used this number.
    Used(Granted, u64),
    /// A write names this block, and refers to it or does not.
    Named(BlockId, bool),
}

impl Txn {
    pub(super) fn new(now: Time, state: State) -> Self {
        Self {
            now,
            is_told: false,
            state,
            inodes: Few::new(),
            dentries: Few::new(),
            extents: BTreeMap::new(),
            data: BTreeMap::new(),
            dead: BTreeMap::new(),
            blocks: BTreeMap::new(),
            shares: BTreeMap::new(),
            batch: Batch::default(),
            effects: Vec::new(),
            pruned: Vec::new(),
        }
    }

    pub(super) fn set_inode(&mut self, inode: Inode) {
        self.inodes.insert(inode.ino, Some(inode));
    }

    pub(super) fn set_orphan(&mut self, ino: Ino) {
        self.batch.put(key::orphan(ino), Vec::new());
        self.effects.push(Effect::Orphaned(ino));
    }

    pub(super) fn unset_orphan(&mut self, ino: Ino) {
        self.batch.remove(key::orphan(ino));
        self.effects.push(Effect::Unorphaned(ino));
    }

    /// Everything as one batch. `committed` are the counters that stand in the store.
    pub(super) fn take_batch(&mut self, committed: &State) -> Batch {
        let mut batch = std::mem::take(&mut self.batch);
        if self.state != *committed {
            batch.put(key::state(), encode(&self.state));
        }
        for (ino, inode) in self.inodes.iter() {
            set(&mut batch, key::inode(*ino), inode.as_ref().map(encode));
        }
        for ((dir, name), dentry) in self.dentries.iter() {
            set(&mut batch, key::dentry(*dir, name.as_bytes()), dentry.as_ref().map(encode));
        }
        for ((ino, end), extent) in &self.extents {
            set(&mut batch, key::extent(*ino, *end), extent.as_ref().map(encode));
        }
        for (ino, data) in &mut self.data {
            set(&mut batch, key::data(*ino), data.take());
        }
        for (ino, dead) in &self.dead {
            set(&mut batch, key::dead(*ino), (!dead.is_empty()).then(|| encode(dead)));
        }
        for ((block, ino), live) in &self.shares {
            set(&mut batch, key::share(*block, *ino), (*live > 0).then(|| encode(live)));
        }
        for (block, pending) in &mut self.blocks {
            pending.settle(*block, self.now, &mut batch);
        }
        batch
    }
}

impl PendingBlock {
    /// Puts the block on the list of garbage or takes it off, as its live bytes say, and writes its row.
    fn settle(&mut self, block: BlockId, now: Time, batch: &mut Batch) {
        let record = &mut self.record;
        record.garbage = (record.live == 0).then(|| self.listed.unwrap_or(now.secs));
        if self.listed != record.garbage {
            if let Some(since) = self.listed {
                batch.remove(key::garbage(since, block));
            }
            if let Some(since) = record.garbage {
                batch.put(key::garbage(since, block), Vec::new());
            }
        }
        batch.put(key::block(block), encode(record));
    }
}

fn set(batch: &mut Batch, key: Vec<u8>, value: Option<Vec<u8>>) {
    match value {
        Some(value) => batch.put(key, value),
        None => batch.remove(key),
    }
}
