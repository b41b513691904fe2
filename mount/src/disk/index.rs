//! What is in the cache: of each block, how many pages each of its segments takes. In memory, in the order of use.
//!
//! Only the filler's thread adds and removes blocks; shards look, and mark what they found damaged.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use flexfs_uring::file::File;
use flexfs_wire::block::SEGMENTS_MAX;
use flexfs_wire::id::BlockId;

use super::slot::PAGE;
use crate::lru::Lru;

/// Shards of the table: locks are held for a look-up.
const SHARDS: usize = 16;
/// Pages counted for a file beside its segments: its name, and the tree of its extents.
const FILE_PAGES: u64 = 1;
/// Files kept open in each shard, so that a read need not open one first; 1,024 descriptors in all.
const OPEN_MAX: u64 = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Index {
    shards: Vec<Mutex<Shard>>,
    /// Bytes of all blocks, files included.
    held: AtomicU64,
    count: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    blocks: Lru<BlockId, Block>,
    opened: Lru<BlockId, File>,
}

/// What is held of one block.
#[derive(Debug, Default)]
struct Block {
    /// By number of the segment; 0 is absent.
    pages: Vec<u8>,
    /// Something in it was damaged: it is there no more, and its file goes.
    condemned: bool,
}

/// What a look-up finds.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Pages of each segment asked for, 0 where it is absent.
    pub(super) pages: Vec<u8>,
    /// The file, if it is open.
    pub(super) file: Option<File>,
}

impl Found {
    /// Whether nothing was found.
    pub(super) fn is_empty(&self) -> bool {
        self.pages.iter().all(|pages| *pages == 0)
    }
}

impl Index {
    /// Empty.
    pub(super) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, held: AtomicU64::new(0), count: AtomicU64::new(0) }
    }

    /// Bytes held.
    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Blocks of which something is held.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Looks for segments `first ..`, `count` of them; the block was used.
    pub(super) fn find(&self, block: BlockId, first: u32, count: usize) -> Found {
        let mut shard = self.shard(block);
        let Some(found) = shard.blocks.touch(&block).filter(|found| !found.condemned) else {
            return Found::default();
        };
        let held = found.pages.iter().skip(first as usize).copied().chain(std::iter::repeat(0));
        let pages = held.take(count).collect();
        Found { pages, file: shard.opened.touch(&block).cloned() }
    }

    /// Whether a segment is there, or its block is about to go.
    pub(super) fn contains(&self, block: BlockId, number: u32) -> bool {
        let mut shard = self.shard(block);
        shard.blocks.touch(&block).is_some_and(|found| {
            found.condemned || found.pages.get(number as usize).is_some_and(|pages| *pages > 0)
        })
    }

    /// The file of a block, if it is open.
    pub(super) fn opened(&self, block: BlockId) -> Option<File> {
        self.shard(block).opened.touch(&block).cloned()
    }

    /// The file of a block was opened. Kept while the block is here.
    pub(super) fn keep_open(&self, block: BlockId, file: &File) {
        let mut shard = self.shard(block);
        if shard.blocks.contains(&block) {
            shard.opened.insert(block, file.clone(), 1);
            if shard.opened.weight() > OPEN_MAX {
                shard.opened.evict();
            }
        }
    }

    /// Bytes that one more segment of so many pages takes.
    pub(super) fn cost(&self, block: BlockId, pages: u8) -> u64 {
        let file = if self.shard(block).blocks.contains(&block) { 0 } else { FILE_PAGES };
        (u64::from(pages) + file) * PAGE as u64
    }

    /// Segments were written, or found by the scan: `(number, pages)`. Numbers that no block has are passed over.
    pub(super) fn add(&self, block: BlockId, segments: impl IntoIterator<Item = (u32, u8)>) {
        let mut shard = self.shard(block);
        let (mut found, before) = shard.blocks.remove(&block).unwrap_or_default();
        for (number, pages) in segments.into_iter().filter(|(number, _)| *number < SEGMENTS_MAX) {
            let number = number as usize;
            if found.pages.len() <= number {
                found.pages.resize(number + 1, 0);
            }
            found.pages[number] = pages;
        }
        let weight = weigh(&found);
        shard.blocks.insert(block, found, weight);
        self.count.fetch_add(u64::from(before == 0), Ordering::Relaxed);
        self.held.fetch_add(weight, Ordering::Relaxed);
        self.held.fetch_sub(before, Ordering::Relaxed);
    }

    /// A segment turned out to be a hole.
    pub(super) fn clear(&self, block: BlockId, number: u32) {
        if let Some(found) = self.shard(block).blocks.touch(&block)
            && let Some(pages) = found.pages.get_mut(number as usize)
        {
            *pages = 0;
        }
    }

    /// Something in a block is damaged: nothing of it is found from now on. True the first time.
    pub(super) fn condemn(&self, block: BlockId) -> bool {
        let mut shard = self.shard(block);
        shard.opened.remove(&block);
        shard.blocks.touch(&block).is_some_and(|found| !std::mem::replace(&mut found.condemned, true))
    }

    /// Takes a block out.
    pub(super) fn remove(&self, block: BlockId) {
        let mut shard = self.shard(block);
        shard.opened.remove(&block);
        if let Some((_, weight)) = shard.blocks.remove(&block) {
            self.shrank(weight);
        }
    }

    /// Takes a cold block out; `turn` goes round the shards, which fill evenly.
    pub(super) fn evict(&self, turn: &mut usize) -> Option<BlockId> {
        for _ in 0..SHARDS {
            *turn = (*turn + 1) % SHARDS;
            let mut shard = lock(&self.shards[*turn]);
            if let Some((block, _, weight)) = shard.blocks.evict() {
                shard.opened.remove(&block);
                self.shrank(weight);
                return Some(block);
            }
        }
        None
    }

    fn shrank(&self, weight: u64) {
        self.held.fetch_sub(weight, Ordering::Relaxed);
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    fn shard(&self, block: BlockId) -> MutexGuard<'_, Shard> {
        lock(&self.shards[usize::try_from(block.0 % SHARDS as u64).expect("below SHARDS")])
    }
}

/// Bytes that a block takes.
fn weigh(block: &Block) -> u64 {
    (block.pages.iter().map(|pages| u64::from(*pages)).sum::<u64>() + FILE_PAGES) * PAGE as u64
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these in a half-changed state.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_found_and_weighed() {
        let index = Index::new();
        assert!(index.find(BlockId(1), 0, 4).is_empty());
        assert_eq!(index.cost(BlockId(1), 17), 18 * 4096);
        index.add(BlockId(1), [(2, 17)]);
        index.add(BlockId(1), [(3, 5), (2, 17), (SEGMENTS_MAX, 9)]);
        assert_eq!(index.find(BlockId(1), 1, 4).pages, [0, 17, 5, 0]);
        assert_eq!((index.held(), index.count()), ((17 + 5 + 1) * 4096, 1));
        assert_eq!(index.cost(BlockId(1), 17), 17 * 4096);
        index.clear(BlockId(1), 2);
        assert!(!index.contains(BlockId(1), 2) && index.contains(BlockId(1), 3));
        index.remove(BlockId(1));
        assert_eq!((index.held(), index.count()), (0, 0));
    }

    #[test]
    fn the_coldest_goes_first() {
        let index = Index::new();
        // All in one shard.
        let blocks = [0, 1, 2].map(|number| BlockId(number * SHARDS as u64));
        for block in blocks {
            index.add(block, [(0, 1)]);
        }
        index.find(blocks[0], 0, 1);
        let mut turn = 0;
        let order: Vec<_> = std::iter::from_fn(|| index.evict(&mut turn)).collect();
        assert_eq!(order, [blocks[1], blocks[2], blocks[0]]);
        assert_eq!((index.held(), index.count()), (0, 0));
    }

    #[test]
    fn condemned_blocks_are_not_found_and_take_no_more() {
        let index = Index::new();
        index.add(BlockId(5), [(0, 1)]);
        assert!(index.condemn(BlockId(5)) && !index.condemn(BlockId(5)));
        assert!(index.find(BlockId(5), 0, 1).is_empty());
        assert!(index.contains(BlockId(5), 9), "nothing is added to a file that goes");
        index.remove(BlockId(5));
        assert!(!index.condemn(BlockId(5)) && !index.contains(BlockId(5), 9));
    }
}
