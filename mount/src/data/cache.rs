//! Opened segments of blocks. Blocks are immutable, so an entry is never wrong; it only becomes useless.
//!
//! Two kinds of reads fill it: those that want a part of a segment, and readahead. Whole segments are decoded where
//! the reader wants them and leave no copy here, and those that were fetched ahead of a reader go when he has read all of
//! one: the kernel keeps its own pages of them.
//! A segment that is being fetched is *claimed*: others wait for that fetch instead of making their own.
//!
//! The budget bounds what is kept; what nobody has asked for in a while goes before that, for the memory of a node is its
//! programs', and the kernel can take its own pages back when they need them, but not ours.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_listener::Event;
use flexfs_wire::errno::Errno;
use flexfs_wire::id::BlockId;

use super::budget::Budget;
use super::spare::Spare;
use crate::cancel::Cancel;
use crate::cancel::or_cancel;
use crate::lru::Lru;

/// Shards of the table: locks are held for a look-up, and this many cores seldom meet.
const SHARDS: usize = 64;
/// What an entry costs beside its bytes.
const ENTRY_COST: u64 = 160;
/// How often is looked for segments that nobody needs.
pub(super) const AGE_EVERY: Duration = Duration::from_secs(5);
/// A segment that nobody wanted within so many of these looks goes: 30 to 35 seconds, within which a program that reads here
/// and there has come back to a segment of 64 KiB that it needs more of.
const AGES_KEPT: u32 = 6;

/// A segment: block and number in it.
pub(crate) type Key = (BlockId, u32);
/// Raw bytes of a segment.
pub(crate) type Bytes = Arc<Vec<u8>>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Cache {
    budget: Arc<Budget>,
    shards: Vec<Mutex<Shard>>,
    spare: Spare,
    /// Looks for segments that nobody needs, so far.
    age: AtomicU32,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    bytes: Bytes,
    /// The cache's age when it was wanted last.
    wanted: u32,
}

#[derive(Debug, Default)]
struct Shard {
    entries: Lru<Key, Entry>,
    claimed: HashMap<Key, Arc<Fetch>>,
}

/// What a look-up finds.
#[derive(Debug)]
pub(crate) enum Found {
    /// The segment.
    Here(Bytes),
    /// Somebody fetches it.
    Coming(Arc<Fetch>),
    /// Nobody does.
    Absent,
}

/// A segment being fetched.
#[derive(Debug, Default)]
pub(crate) struct Fetch {
    outcome: Mutex<Outcome>,
    done: Event,
}

#[derive(Clone, Debug, Default)]
enum Outcome {
    #[default]
    Open,
    Here(Bytes),
    Failed,
}

/// The duty to fetch a segment. Dropped without bytes, those who wait fetch it on their own.
#[derive(Debug)]
pub(crate) struct Claim {
    cache: Arc<Cache>,
    key: Key,
    fetch: Arc<Fetch>,
}

impl Cache {
    /// Empty, within `budget`.
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        let [hits, misses] = [(); 2].map(|()| AtomicU64::new(0));
        Self { budget, shards, spare: Spare::default(), age: AtomicU32::new(0), hits, misses }
    }

    /// Look-ups that found their segment, and those that did not.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    /// Looks for a segment a reader wants.
    pub(crate) fn find(&self, key: Key) -> Found {
        let mut shard = self.shard(key);
        if let Some(entry) = shard.entries.touch(&key) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            entry.wanted = self.age.load(Ordering::Relaxed);
            return Found::Here(Arc::clone(&entry.bytes));
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        match shard.claimed.get(&key) {
            Some(fetch) => Found::Coming(Arc::clone(fetch)),
            None => Found::Absent,
        }
    }

    /// Claims a segment, unless it is here or somebody fetches it.
    pub(crate) fn claim(self: &Arc<Self>, key: Key) -> Option<Claim> {
        let mut shard = self.shard(key);
        if shard.entries.contains(&key) || shard.claimed.contains_key(&key) {
            return None;
        }
        let fetch = Arc::new(Fetch::default());
        shard.claimed.insert(key, Arc::clone(&fetch));
        Some(Claim { cache: Arc::clone(self), key, fetch })
    }

    /// A reader was given all of a segment, `bytes`: the kernel has it now.
    pub(crate) fn release(&self, key: Key, bytes: Bytes) {
        let removed = self.shard(key).entries.remove(&key);
        if let Some((kept, weight)) = removed {
            self.budget.cache_shrank(weight);
            self.recycle(kept.bytes);
        }
        self.recycle(bytes);
    }

    /// A buffer for a segment, which holds anything.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        self.spare.take()
    }

    /// Keeps the buffer for the next segment when nobody else has it.
    pub(crate) fn recycle(&self, bytes: Bytes) {
        if let Some(buffer) = Arc::into_inner(bytes) {
            self.spare.give(buffer);
        }
    }

    /// Evicts until what is kept is within its bound.
    pub(crate) fn fit(&self) {
        self.fit_from(0);
    }

    fn fit_from(&self, first: usize) {
        let mut empty = 0;
        for number in (0..SHARDS).cycle().skip(first) {
            if self.budget.cached() <= self.budget.cache_max() || empty >= SHARDS {
                return;
            }
            // One from each in turn: the shards fill evenly, so the coldest of each is about as cold.
            match lock(&self.shards[number]).entries.evict() {
                Some((_, entry, weight)) => {
                    empty = 0;
                    self.budget.cache_shrank(weight);
                    self.recycle(entry.bytes);
                }
                None => empty += 1,
            }
        }
    }

    /// Looks of [`Cache::grow_older`] so far.
    pub(crate) fn age(&self) -> u32 {
        self.age.load(Ordering::Relaxed)
    }

    /// Whether nobody has wanted for long what was wanted last at that age.
    pub(crate) fn is_old(&self, wanted: u32) -> bool {
        self.age().wrapping_sub(wanted) > AGES_KEPT
    }

    /// To be called each [`AGE_EVERY`]: what nobody has wanted for long goes.
    pub(crate) fn grow_older(&self) {
        self.age.fetch_add(1, Ordering::Relaxed);
        let is_old = |entry: &Entry| self.is_old(entry.wanted);
        self.spare.shrink();
        for shard in &self.shards {
            loop {
                let mut shard = lock(shard);
                if !shard.entries.coldest().is_some_and(is_old) {
                    break;
                }
                let Some((_, entry, weight)) = shard.entries.evict() else { break };
                // Others may go on between two of them.
                drop(shard);
                self.budget.cache_shrank(weight);
                drop(entry);
            }
        }
    }

    fn insert(&self, key: Key, bytes: Bytes) {
        let weight = bytes.capacity() as u64 + ENTRY_COST;
        if weight > self.budget.cache_max() {
            return;
        }
        self.budget.cache_grew(weight);
        let wanted = self.age.load(Ordering::Relaxed);
        self.shard(key).entries.insert(key, Entry { bytes, wanted }, weight);
        self.fit_from(place(key));
    }

    fn shard(&self, key: Key) -> MutexGuard<'_, Shard> {
        lock(&self.shards[place(key)])
    }
}

impl Fetch {
    /// Waits for the fetch. `None`: it failed, and tells nothing about another try.
    pub(crate) async fn wait(&self, cancel: Option<&Cancel>) -> Result<Option<Bytes>, Errno> {
        loop {
            let done = self.done.listen();
            match lock(&self.outcome).clone() {
                Outcome::Here(bytes) => return Ok(Some(bytes)),
                Outcome::Failed => return Ok(None),
                Outcome::Open => {}
            }
            or_cancel(done, cancel).await?;
        }
    }

    fn end(&self, outcome: Outcome) {
        let mut place = lock(&self.outcome);
        if matches!(*place, Outcome::Open) {
            *place = outcome;
            drop(place);
            self.done.notify(usize::MAX);
        }
    }
}

impl Claim {
    /// Number of the segment in its block.
    pub(crate) fn segment(&self) -> u32 {
        self.key.1
    }

    /// The fetch succeeded.
    pub(crate) fn fill(self, mut bytes: Bytes) {
        // The end of a file: not a whole buffer for a few bytes.
        if bytes.len() < bytes.capacity() / 2 {
            let short = Arc::new(bytes.to_vec());
            self.cache.recycle(std::mem::replace(&mut bytes, short));
        }
        self.cache.insert(self.key, Arc::clone(&bytes));
        self.fetch.end(Outcome::Here(bytes));
        // Dropping takes the claim away, after the entry is there.
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.cache.shard(self.key).claimed.remove(&self.key);
        self.fetch.end(Outcome::Failed);
    }
}

fn place(key: Key) -> usize {
    // Neighbours in different shards: multiplied by 2^64 / golden ratio, upper bits taken.
    let mixed = (key.0.0 << 7 | u64::from(key.1)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(mixed >> 58).expect("six bits")
}

const _: () = assert!(SHARDS == 1 << 6);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these in a half-changed state.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use flexfs_uring::{Shard as Core, ShardConfig, spawn, yield_now};

    use super::*;

    fn cache() -> Arc<Cache> {
        Arc::new(Cache::new(Arc::new(Budget::new(1 << 20, 1, 256 << 10))))
    }

    fn put(cache: &Arc<Cache>, key: Key) {
        cache.claim(key).unwrap().fill(Arc::new(vec![0; 65_536]));
    }

    #[test]
    fn stays_within_the_budget_and_gives_way_to_writers() {
        let cache = cache();
        for number in 0..100 {
            put(&cache, (BlockId(number), 0));
            assert!(cache.budget.cached() <= cache.budget.cache_max());
        }
        assert!(cache.budget.cached() > 5 * 65_536);
        let shard = Core::new(&ShardConfig { recv_buffers: 0, ..ShardConfig::default() }).unwrap();
        let all = cache.budget.cache_max();
        shard.block_on(cache.budget.take(all, None, || ())).unwrap();
        cache.fit();
        assert_eq!(cache.budget.cached(), 0);
        put(&cache, (BlockId(7), 0));
        assert_eq!(cache.budget.cached(), 0);
    }

    #[test]
    fn what_nobody_wants_goes_after_a_while() {
        let cache = cache();
        let [wanted, other] = [(BlockId(1), 0), (BlockId(2), 0)];
        put(&cache, wanted);
        put(&cache, other);
        for _ in 0..AGES_KEPT {
            cache.grow_older();
            assert!(matches!(cache.find(wanted), Found::Here(_)));
        }
        assert!(cache.shard(other).entries.contains(&other), "too early");
        cache.grow_older();
        assert!(matches!(cache.find(other), Found::Absent));
        assert!(matches!(cache.find(wanted), Found::Here(_)));
        for _ in 0..=AGES_KEPT {
            cache.grow_older();
        }
        assert_eq!(cache.budget.cached(), 0);
    }

    #[test]
    fn one_fetch_serves_all_who_wait() {
        let shard = Core::new(&ShardConfig { recv_buffers: 0, ..ShardConfig::default() }).unwrap();
        shard.block_on(async {
            let cache = cache();
            let key = (BlockId(1), 3);
            let claim = cache.claim(key).unwrap();
            assert!(cache.claim(key).is_none());
            let waiters = [(); 2].map(|()| {
                let Found::Coming(fetch) = cache.find(key) else { panic!("claimed") };
                spawn(async move { fetch.wait(None).await })
            });
            yield_now().await;
            claim.fill(Arc::new(b"bytes".to_vec()));
            for waiter in waiters {
                assert_eq!(waiter.await.unwrap().unwrap()[..], *b"bytes");
            }
            assert!(matches!(cache.find(key), Found::Here(_)));
            let other = (BlockId(2), 0);
            let claim = cache.claim(other).unwrap();
            let Found::Coming(fetch) = cache.find(other) else { panic!("claimed") };
            drop(claim);
            assert_eq!(fetch.wait(None).await, Ok(None));
            assert!(matches!(cache.find(other), Found::Absent));
        });
    }
}
