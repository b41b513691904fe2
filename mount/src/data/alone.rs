//! How many readers wait at once for pages that come without their segments.

use std::sync::atomic::{AtomicU64, Ordering};

/// Parts of one that the mean is kept in, and reads it is taken over.
const PARTS: u64 = 16;
/// Readers from which on links have no time for what nobody asked for.
const BUSY_MIN: u64 = 2;

/// Counts reads of pages.
#[derive(Debug, Default)]
pub(super) struct Alone {
    /// On their way.
    now: AtomicU64,
    /// How many there were when the last ones began: a mean that moves. Two that write it at once lose one of them, which does no harm.
    mean: AtomicU64,
}

/// A read of pages on its way.
pub(super) struct Going<'a>(&'a Alone);

impl Alone {
    /// One more is on its way, until this is dropped.
    pub(super) fn begin(&self) -> Going<'_> {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        let mean = self.mean.load(Ordering::Relaxed);
        self.mean.store(mean - mean / PARTS + now, Ordering::Relaxed);
        Going(self)
    }

    /// Whether several wait at once, lately.
    pub(super) fn is_busy(&self) -> bool {
        self.mean.load(Ordering::Relaxed) >= BUSY_MIN * PARTS
    }
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reader_is_not_many_and_many_are_forgotten() {
        let alone = Alone::default();
        let one = |alone: &Alone| (0..100).for_each(|_| drop(alone.begin()));
        one(&alone);
        assert!(!alone.is_busy());
        for _ in 0..10 {
            let all: Vec<_> = (0..8).map(|_| alone.begin()).collect();
            assert_eq!(all.len(), 8);
        }
        assert!(alone.is_busy());
        one(&alone);
        assert!(!alone.is_busy());
    }
}
