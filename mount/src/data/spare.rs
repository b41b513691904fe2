//! Buffers of one segment that nobody needs at the moment. A fresh one costs a page fault for each of its 16 pages, a third of
//! the CPU that reading takes; one that was used before is there, and often still in the processor's cache.

use std::sync::{Mutex, MutexGuard, PoisonError};

use flexfs_wire::limits::SEGMENT_BYTES;

use super::readahead::WINDOW_BYTES_MAX;

/// Bytes of a buffer.
const SEGMENT: usize = SEGMENT_BYTES as usize;
/// Most that are kept: what one sequential reader has ahead of it, so that it goes on in the buffers it is done with.
const KEPT_MAX: usize = 256;

const _: () = assert!((KEPT_MAX * SEGMENT) as u64 == WINDOW_BYTES_MAX);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    buffers: Vec<Vec<u8>>,
    /// Fewest there were since the last look: so many nobody needed.
    fewest: usize,
}

impl Spare {
    /// A buffer that holds anything.
    pub(crate) fn take(&self) -> Vec<u8> {
        let taken = {
            let mut kept = self.kept();
            let taken = kept.buffers.pop();
            kept.fewest = kept.fewest.min(kept.buffers.len());
            taken
        };
        taken.unwrap_or_else(|| Vec::with_capacity(SEGMENT))
    }

    /// A buffer is done with. Of another size than a segment's, or beyond what is kept, it is freed.
    pub(crate) fn give(&self, buffer: Vec<u8>) {
        if buffer.capacity() == SEGMENT {
            let mut kept = self.kept();
            if kept.buffers.len() < KEPT_MAX {
                kept.buffers.push(buffer);
            }
        }
    }

    /// Frees those that nobody needed since the last call. Bytes.
    pub(crate) fn shrink(&self) -> u64 {
        let unneeded = {
            let mut kept = self.kept();
            // The longest unused are at the front.
            let fewest = kept.fewest.min(kept.buffers.len());
            let unneeded: Vec<_> = kept.buffers.drain(..fewest).collect();
            kept.fewest = kept.buffers.len();
            unneeded
        };
        (unneeded.len() * SEGMENT) as u64
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_kept_up_to_a_bound() {
        let spare = Spare::default();
        let mut first = spare.take();
        first.resize(SEGMENT, 7);
        let place = first.as_ptr();
        spare.give(first);
        spare.give(vec![0; 100]);
        let again = spare.take();
        assert_eq!((again.as_ptr(), again.capacity()), (place, SEGMENT));
        for _ in 0..2 * KEPT_MAX {
            spare.give(Vec::with_capacity(SEGMENT));
        }
        assert_eq!(spare.kept().buffers.len(), KEPT_MAX);
    }

    #[test]
    fn what_nobody_needs_is_freed() {
        let spare = Spare::default();
        for _ in 0..8 {
            spare.give(Vec::with_capacity(SEGMENT));
        }
        assert_eq!(spare.shrink(), 0, "they came since the last look");
        let taken = [(); 3].map(|()| spare.take());
        taken.into_iter().for_each(|buffer| spare.give(buffer));
        assert_eq!(spare.shrink(), 5 * SEGMENT as u64, "three were needed");
        assert_eq!(spare.kept().buffers.len(), 3);
        assert_eq!(spare.shrink(), 3 * SEGMENT as u64);
        assert_eq!(spare.shrink(), 0);
    }
}
