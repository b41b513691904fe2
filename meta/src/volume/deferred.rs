//! What waits until a commit is durable.

use std::collections::BTreeMap;

use flexfs_wire::id::Commit;

/// Things to do, each when its commit is durable.
#[derive(Debug)]
pub(super) struct Deferred<T> {
    waiting: BTreeMap<Commit, Vec<T>>,
}

impl<T> Default for Deferred<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new() }
    }
}

impl<T> Deferred<T> {
    /// Keeps `thing` until `commit` is durable.
    pub(super) fn push(&mut self, commit: Commit, thing: T) {
        self.waiting.entry(commit).or_default().push(thing);
    }

    /// Takes what is due, in the order of commits.
    pub(super) fn take_due(&mut self, durable: Commit) -> Vec<T> {
        let later = self.waiting.split_off(&Commit(durable.0 + 1));
        std::mem::replace(&mut self.waiting, later).into_values().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_in_order() {
        let mut deferred = Deferred::default();
        for (commit, thing) in [(5, "c"), (3, "a"), (3, "b"), (9, "d")] {
            deferred.push(Commit(commit), thing);
        }
        assert!(deferred.take_due(Commit(2)).is_empty());
        assert_eq!(deferred.take_due(Commit(5)), ["a", "b", "c"]);
        assert_eq!(deferred.take_due(Commit(100)), ["d"]);
    }
}
