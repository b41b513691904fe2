//! An engine in memory: for tests, for the fuzzer's world, and a model of what a crash leaves.

use std::collections::BTreeMap;
use std::ops::Bound;

use flexfs_wire::errno::Errno;
use flexfs_wire::id::Commit;

use super::store::SEQUENCE_JUMP;
use super::{Batch, Durable, Publisher, Store, Visit};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// Ordered keys in memory. What was committed is durable when [`Memory::sync`] says so, or at once.
#[derive(Debug, Default)]
pub struct Memory {
    visible: Map,
    stable: Map,
    pending: Vec<(Commit, Batch)>,
    sequence: u64,
    publisher: Publisher,
    eager: bool,
    fault: Option<(u64, Errno)>,
}

impl Memory {
    /// An empty store in which every commit is durable at once.
    #[must_use]
    pub fn eager() -> Self {
        Self { eager: true, ..Self::default() }
    }

    /// An empty store in which commits become durable by [`Memory::sync`].
    #[must_use]
    pub fn lazy() -> Self {
        Self::default()
    }

    /// Makes the oldest `count` pending commits durable.
    pub fn sync(&mut self, count: usize) {
        let count = count.min(self.pending.len());
        for (commit, batch) in self.pending.drain(..count) {
            merge(&mut self.stable, batch);
            self.publisher.publish(commit);
        }
    }

    /// Number of commits that are not durable.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// What a crash leaves when `kept` of the pending commits happened to reach the disk: a prefix, as journals give it.
    #[must_use]
    pub fn crash(mut self, kept: usize) -> Self {
        self.sync(kept);
        let durable = self.publisher.watch().current();
        Self {
            visible: self.stable.clone(),
            stable: self.stable,
            sequence: durable.0 + SEQUENCE_JUMP,
            publisher: Publisher::starting_at(durable),
            eager: self.eager,
            ..Self::default()
        }
    }

    /// Makes the commit after `commits` more ones fail with `errno`, once.
    pub fn fail_after(&mut self, commits: u64, errno: Errno) {
        self.fault = Some((commits, errno));
    }

    /// The disk under it is gone: nothing becomes durable any more, and nothing is committed.
    pub fn die(&mut self) {
        self.publisher.fail();
    }

    /// Sets a key behind the namespace's back: to show that `verify` sees the damage.
    pub fn damage(&mut self, key: &[u8], value: Option<&[u8]>) {
        let mut batch = Batch::default();
        batch.changes.push((key.to_vec(), value.map(<[u8]>::to_vec)));
        merge(&mut self.stable, batch.clone());
        merge(&mut self.visible, batch);
    }
}

impl Store for Memory {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
        Ok(self.visible.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), Errno> {
        if from >= to {
            return Ok(());
        }
        for (key, value) in self.visible.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn commit(&mut self, batch: Batch) -> Result<Commit, Errno> {
        if self.publisher.watch().has_failed() {
            return Err(Errno::EIO);
        }
        match self.fault.take() {
            Some((0, errno)) => return Err(errno),
            Some((left, errno)) => self.fault = Some((left - 1, errno)),
            None => {}
        }
        self.sequence += 1;
        let commit = Commit(self.sequence);
        merge(&mut self.visible, batch.clone());
        self.pending.push((commit, batch));
        if self.eager {
            self.sync(usize::MAX);
        }
        Ok(commit)
    }

    fn durable(&self) -> &Durable {
        self.publisher.watch()
    }

    fn close(mut self) -> Result<(), Errno> {
        self.sync(usize::MAX);
        Ok(())
    }
}

fn merge(map: &mut Map, batch: Batch) {
    for (key, value) in batch.changes {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &mut Memory, key: u8) -> Commit {
        let mut batch = Batch::default();
        batch.put(vec![key], vec![key]);
        store.commit(batch).unwrap()
    }

    #[test]
    fn a_crash_keeps_a_prefix_and_never_reuses_a_sequence() {
        let mut store = Memory::lazy();
        let first = put(&mut store, 1);
        let second = put(&mut store, 2);
        let third = put(&mut store, 3);
        store.sync(1);
        assert_eq!(store.durable().current(), first);
        let mut store = store.crash(1);
        assert_eq!(store.durable().current(), second);
        assert_eq!(store.get(&[2]).unwrap(), Some(vec![2]));
        assert_eq!(store.get(&[3]).unwrap(), None);
        assert!(put(&mut store, 4) > third);
    }
}
