//! One bound for all memory that file data takes: dirty bytes, bytes on their way, the cache.
//!
//! ```text
//! |<----------------------------- limit ------------------------------------>|
//! | writers: dirty and on their way | layouts, reads | blocks being encoded   |
//!   \__ what writers leave, the segment cache takes; it gives way at once
//! ```
//! Writers that find their part used up wait; nothing grows. A request in progress may pass the bound by its own
//! size once (a writer is let in while anything is left), which is bounded by the number of FUSE entries.

use std::sync::atomic::{AtomicU64, Ordering};

use event_listener::Event;
use flexfs_wire::errno::Errno;
use flexfs_wire::limits::{IDLE_BYTES_MAX, INLINE_BYTES_MAX, SEGMENT_BYTES};

use crate::cancel::Cancel;
use crate::cancel::or_cancel;

/// Default part of the memory there is: one in this many.
const MEMORY_PART: u64 = 8;
/// Most memory taken by default, in bytes.
const LIMIT_DEFAULT_MAX: u64 = 4 << 30;
/// Least memory to work with, in blocks: one being filled, one sent, one encoded, one read.
const LIMIT_BLOCKS_MIN: u64 = 4;
/// Most blocks encoded and sent at once. More only queue at the links; 16 x 4 MiB cover 100 Gbit/s for 5 ms.
const PUTS_MAX: u64 = 16;

// What is under way is never more than the server lets a session have stored before files refer to it: see there.
const _: () =
    assert!(LIMIT_DEFAULT_MAX * (SEGMENT_BYTES as u64).div_ceil(INLINE_BYTES_MAX as u64) <= IDLE_BYTES_MAX);

/// See the module.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    writers_max: u64,
    puts_max: usize,
    written: AtomicU64,
    cached: AtomicU64,
    freed: Event,
}

impl Budget {
    /// Of `capacity` bytes, 0 for the default.
    pub(crate) fn new(capacity: u64, available: u64, block_bytes: u32) -> Self {
        let block_bytes = u64::from(block_bytes);
        let wanted = if capacity == 0 { (available / MEMORY_PART).min(LIMIT_DEFAULT_MAX) } else { capacity };
        let limit = wanted.max(LIMIT_BLOCKS_MIN * block_bytes);
        let puts = (limit / 4 / block_bytes).clamp(1, PUTS_MAX);
        Self {
            limit,
            writers_max: limit - puts * block_bytes - limit / 8,
            puts_max: usize::try_from(puts).expect("bounded by PUTS_MAX"),
            written: AtomicU64::new(0),
            cached: AtomicU64::new(0),
            freed: Event::new(),
        }
    }

    /// All of it, in bytes.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Blocks that may be encoded and sent at once.
    pub(crate) fn puts_max(&self) -> usize {
        self.puts_max
    }

    /// Bytes that are dirty or on their way.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Bytes in the segment cache.
    pub(crate) fn cached(&self) -> u64 {
        self.cached.load(Ordering::Relaxed)
    }

    /// Most bytes that the segment cache may have now.
    pub(crate) fn cache_max(&self) -> u64 {
        // The parts of reads and of encoding are not the cache's.
        self.writers_max.saturating_sub(self.written())
    }

    /// Whether dirty data should be sent although nobody asked for it yet.
    pub(crate) fn is_pressed(&self) -> bool {
        self.written() >= self.writers_max / 2
    }

    /// Lets a writer in when anything is left.
    fn try_take(&self, bytes: u64) -> bool {
        self.written
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |written| {
                (written < self.writers_max).then_some(written + bytes)
            })
            .is_ok()
    }

    /// Takes memory for a writer; waits while none is left. `full` is called before each wait.
    pub(crate) async fn take(
        &self,
        bytes: u64,
        cancel: Option<&Cancel>,
        full: impl Fn(),
    ) -> Result<(), Errno> {
        loop {
            if self.try_take(bytes) {
                return Ok(());
            }
            let freed = self.freed.listen();
            if self.try_take(bytes) {
                return Ok(());
            }
            full();
            or_cancel(freed, cancel).await?;
        }
    }

    /// What was taken turned out to be more or less.
    pub(crate) fn settle(&self, taken: u64, needed: u64) {
        if needed > taken {
            self.written.fetch_add(needed - taken, Ordering::SeqCst);
        } else {
            self.give(taken - needed);
        }
    }

    /// Gives memory back and lets writers in.
    pub(crate) fn give(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.written.fetch_sub(bytes, Ordering::SeqCst);
        self.freed.notify(usize::MAX);
    }

    /// The segment cache grew.
    pub(crate) fn cache_grew(&self, bytes: u64) {
        self.cached.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The segment cache shrank.
    pub(crate) fn cache_shrank(&self, bytes: u64) {
        self.cached.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use flexfs_uring::{Shard, ShardConfig, spawn, yield_now};

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn parts_add_up() {
        for (capacity, available, block) in [(0, 64 << 30, 4), (0, 32 * MIB, 8), (1, 1, 8), (100 * MIB, 1, 4)]
        {
            let budget = Budget::new(capacity, available, block << 20);
            let encoded = budget.puts_max() as u64 * u64::from(block) * MIB;
            assert!(budget.writers_max + encoded < budget.limit(), "{budget:?}");
            assert!(budget.writers_max >= u64::from(block) * MIB, "{budget:?}");
        }
        assert_eq!(Budget::new(0, 64 << 30, 4 << 20).limit(), 4 << 30);
        assert_eq!(Budget::new(0, 8 << 30, 4 << 20).limit(), 1 << 30);
    }

    #[test]
    fn writers_wait_and_can_be_stopped() {
        let shard = Shard::new(&ShardConfig { recv_buffers: 0, ..ShardConfig::default() }).unwrap();
        shard.block_on(async {
            let budget = Rc::new(Budget::new(MIB, 1, 256 << 10));
            let all = budget.writers_max;
            budget.take(all, None, || ()).await.unwrap();
            assert_eq!(budget.cache_max(), 0);
            let cancel = Cancel::new();
            cancel.arm(1);
            cancel.raise_running();
            assert_eq!(budget.take(1, Some(&cancel), || ()).await, Err(Errno::EINTR));
            let waiting = Rc::clone(&budget);
            let writer = spawn(async move { waiting.take(5, None, || ()).await });
            yield_now().await;
            yield_now().await;
            assert!(!writer.is_finished());
            budget.give(1);
            writer.await.unwrap();
            assert_eq!(budget.written(), all + 4);
            budget.settle(5, 1);
            assert_eq!(budget.written(), all);
        });
    }
}
