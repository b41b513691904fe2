//! What the kernel gave back, for handles that outlive it.
//!
//! `name_to_handle_at(2)` makes a handle out of an inode's number. When it is used, the kernel may long have forgotten the
//! inode and asks by the number alone, but the server knows nobody by a number without its seal. So the seals of inodes
//! given back are kept for a while: the server gave them to this mount, which may use them as long as it lives.

use std::sync::{Mutex, MutexGuard, PoisonError};

use flexfs_wire::id::Ino;
use flexfs_wire::seal::Node;

/// Locks of the table; a power of two.
const SHARDS: usize = 64;
/// Places of a shard. 131072 in all, of 24 bytes each; memory is taken when a place is used first.
const PLACES: usize = 2048;

/// A place: number, seal, and number of the directory it was in. All 0: free, for no inode has number 0.
type Place = [u64; 3];

/// The table. Each number has one place, which keeps the last one that came: numbers come in runs, so runs are kept.
#[derive(Debug)]
pub(crate) struct Forgotten {
    shards: Box<[Mutex<Box<[Place]>>]>,
}

impl Forgotten {
    pub(crate) fn new() -> Self {
        let places = || Mutex::new(vec![Place::default(); PLACES].into_boxed_slice());
        Self { shards: (0..SHARDS).map(|_| places()).collect() }
    }

    /// The kernel gave the last lookup of an inode back; `parent` is where it was found.
    pub(crate) fn note(&self, node: Node, parent: Ino) {
        let (shard, place) = locate(node.ino);
        self.shard(shard)[place] = [node.ino.0, node.seal, parent.0];
    }

    /// An inode by its number, and the directory it was in.
    pub(crate) fn find(&self, ino: Ino) -> Option<(Node, Ino)> {
        let (shard, place) = locate(ino);
        let [number, seal, parent] = self.shard(shard)[place];
        (number == ino.0 && number != 0).then_some((Node { ino, seal }, Ino(parent)))
    }

    fn shard(&self, index: usize) -> MutexGuard<'_, Box<[Place]>> {
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn locate(ino: Ino) -> (usize, usize) {
    let index = |value: u64, of: usize| usize::try_from(value % of as u64).unwrap_or(0);
    (index(ino.0, SHARDS), index(ino.0 / SHARDS as u64, PLACES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_keeps_the_last_that_came() {
        let table = Forgotten::new();
        assert_eq!((table.find(Ino(0)), table.find(Ino(7))), (None, None));
        let node = |ino: u64| Node { ino: Ino(ino), seal: ino * 3 };
        let again = 7 + (SHARDS * PLACES) as u64;
        for ino in [7, 8, again - 1] {
            table.note(node(ino), Ino(ino + 100));
        }
        assert_eq!(table.find(Ino(7)), Some((node(7), Ino(107))));
        table.note(node(again), Ino(1));
        assert_eq!((table.find(Ino(7)), table.find(Ino(again))), (None, Some((node(again), Ino(1)))));
        assert_eq!(table.find(Ino(8)), Some((node(8), Ino(108))));
    }
}
