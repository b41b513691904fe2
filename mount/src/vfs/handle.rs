//! Open files: what the kernel calls `fh`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flexfs_wire::errno::Errno;
use slab::Slab;

use super::inode::Inode;
use super::stream::Writer;

/// Locks of the table; a power of two.
const SHARDS: usize = 64;
/// Most open files of one mount: ten times what the largest users asked for, some 64 bytes each.
const HANDLES_MAX: usize = 1 << 20;

/// One open file description.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) inode: Arc<Inode>,
    /// Reads change its access time.
    pub(crate) touches_atime: bool,
    /// The kernel keeps no pages for it.
    pub(crate) direct: bool,
    /// The server was not told of this very open.
    pub(crate) quiet: bool,
    /// Counted by `Passing`, and whether the kernel reads it by itself.
    pub(crate) passed: Option<bool>,
    /// Of a descriptor that only writes.
    pub(crate) writer: Option<Writer>,
}

/// The table of handles. A handle's number holds its shard and its place; 0 is none.
#[derive(Debug)]
pub(crate) struct Handles {
    shards: Box<[Mutex<Slab<Arc<Handle>>>]>,
    count: AtomicUsize,
    turn: AtomicUsize,
}

impl Handles {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            count: AtomicUsize::new(0),
            turn: AtomicUsize::new(0),
        }
    }

    /// # Errors
    /// `ENFILE` when there are too many.
    pub(crate) fn insert(&self, handle: Handle) -> Result<u64, Errno> {
        if self.count.fetch_add(1, Ordering::Relaxed) >= HANDLES_MAX {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return Err(Errno::ENFILE);
        }
        let shard = self.turn.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let place = self.shard(shard).insert(Arc::new(handle));
        Ok((place as u64 + 1) * SHARDS as u64 + shard as u64)
    }

    /// # Errors
    /// `ESTALE` for a number that was not given out, or was given back.
    pub(crate) fn get(&self, fh: u64) -> Result<Arc<Handle>, Errno> {
        let (shard, place) = locate(fh).ok_or(Errno::ESTALE)?;
        self.shard(shard).get(place).map(Arc::clone).ok_or(Errno::ESTALE)
    }

    /// Gives a number back.
    pub(crate) fn remove(&self, fh: u64) -> Option<Arc<Handle>> {
        let (shard, place) = locate(fh)?;
        let handle = self.shard(shard).try_remove(place)?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        Some(handle)
    }

    /// Files open.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn shard(&self, index: usize) -> MutexGuard<'_, Slab<Arc<Handle>>> {
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn locate(fh: u64) -> Option<(usize, usize)> {
    let shard = usize::try_from(fh % SHARDS as u64).ok()?;
    let place = usize::try_from((fh / SHARDS as u64).checked_sub(1)?).ok()?;
    Some((shard, place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::inode::InodeTable;
    use flexfs_wire::id::Ino;
    use flexfs_wire::seal::Node;

    #[test]
    fn numbers_are_given_and_taken_back() {
        let table = InodeTable::new(Node { ino: Ino(1), seal: 0 });
        let handles = Handles::new();
        let numbers: Vec<u64> = (0..1000)
            .map(|_| {
                handles
                    .insert(Handle {
                        inode: table.get(1).unwrap(),
                        touches_atime: true,
                        direct: false,
                        quiet: false,
                        passed: None,
                        writer: None,
                    })
                    .unwrap()
            })
            .collect();
        let distinct: std::collections::HashSet<_> = numbers.iter().collect();
        assert_eq!((distinct.len(), handles.count()), (1000, 1000));
        assert!(numbers.iter().all(|&fh| fh != 0 && handles.get(fh).is_ok()));
        assert!(numbers.iter().all(|&fh| handles.remove(fh).is_some()));
        assert!(numbers.iter().all(|&fh| handles.remove(fh).is_none()));
        assert_eq!((handles.get(numbers[0]).err(), handles.count()), (Some(Errno::ESTALE), 0));
        assert!([0, 1, 63, u64::MAX].iter().all(|&fh| handles.get(fh).is_err()));
    }
}
