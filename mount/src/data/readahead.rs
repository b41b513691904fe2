//! Sequential readers, and what they will want next; random ones, and what is worth having around them.
//!
//! Detection is per file: several readers of one file are told apart by where each will go on. A reader that goes
//! on where it was gets a window ahead of it, doubled as long as it does; one that jumps gets none. Where several jumps end in
//! one block of the file, more will: the rest of that block is fetched at once, which costs less than the round trips to come.

use std::ops::Range;

/// Readers of one file that are told apart.
const STREAMS: usize = 4;
/// First window, in bytes: what a sequential reader of a cold file costs at most when it stops at once.
const WINDOW_BYTES_MIN: u64 = 512 << 10;
/// Largest window, in bytes: 16 MiB are 13 ms at 10 Gbit/s, a multiple of any round trip.
pub(crate) const WINDOW_BYTES_MAX: u64 = 16 << 20;
/// How far requests of one sequential reader overtake one another, in bytes: one largest FUSE read.
const OVERTAKE_BYTES_MAX: u64 = 1 << 20;
/// Misses in one block after which all of it is fetched: of the usual 64 segments at most 16 times of what was asked for.
const MISSES: u8 = 4;
/// Blocks whose misses are counted, each in the place of its number: a file of 1 GiB in blocks of 4 MiB.
const PLACES: u64 = 256;

/// The sequential readers of a file.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    streams: [Stream; STREAMS],
    clock: u32,
    /// Numbers of blocks of the file, and misses in each.
    misses: Vec<(u64, u8)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    /// Where the reader goes on.
    next: u64,
    /// Where the bytes asked for ahead of it end.
    ahead: u64,
    window: u64,
    used: u32,
}

impl Streams {
    /// A reader got `offset .. end`. What to fetch ahead of it, with windows of at most `window_max` bytes.
    pub(crate) fn advance(&mut self, offset: u64, end: u64, window_max: u64) -> Option<Range<u64>> {
        self.clock = self.clock.wrapping_add(1);
        let clock = self.clock;
        // A reader at the start of a file will probably read on.
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.goes_on_at(offset)) else {
            let window = if offset == 0 { WINDOW_BYTES_MIN } else { 0 };
            let oldest = self.streams.iter_mut().max_by_key(|stream| clock.wrapping_sub(stream.used))?;
            *oldest = Stream { next: end, ahead: end, window: window.min(window_max), used: clock };
            return None;
        };
        stream.used = clock;
        stream.next = stream.next.max(end);
        stream.ahead = stream.ahead.max(end);
        if stream.window == 0 {
            stream.window = WINDOW_BYTES_MIN.min(window_max);
        }
        // Asked for in halves, so that requests are large and the reader never meets the end of the window.
        if stream.ahead - end > stream.window / 2 {
            return None;
        }
        let from = stream.ahead;
        stream.ahead = end + stream.window;
        stream.window = (stream.window * 2).min(window_max);
        (from < stream.ahead).then_some(from..stream.ahead)
    }
}

impl Streams {
    /// A reader that jumps wanted a part of a segment at `offset`, and it was not here. The block of the file to be fetched
    /// whole, if it is time; once.
    pub(crate) fn miss(&mut self, offset: u64, block_bytes: u64) -> Option<Range<u64>> {
        let block = offset / block_bytes;
        if self.misses.is_empty() {
            self.misses = (0..PLACES).map(|_| (u64::MAX, 0)).collect();
        }
        let index = usize::try_from(block % PLACES).unwrap_or(0);
        let place = self.misses.get_mut(index)?;
        if place.0 != block {
            *place = (block, 0);
        }
        place.1 = place.1.saturating_add(1);
        let start = block * block_bytes;
        (place.1 == MISSES).then_some(start..start + block_bytes)
    }
}

impl Stream {
    /// Whether a read at `offset` is this reader's next. Once it is known as sequential, its requests may
    /// overtake one another on their way through the cores.
    fn goes_on_at(&self, offset: u64) -> bool {
        self.used > 0
            && (self.next == offset || self.window > 0 && self.next.abs_diff(offset) <= OVERTAKE_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: u64 = 128 << 10;

    #[test]
    fn a_sequential_reader_is_ahead_of_itself() {
        let mut streams = Streams::default();
        let mut fetched = 0;
        for number in 0..1_000 {
            let (start, end) = (number * READ, (number + 1) * READ);
            if let Some(range) = streams.advance(start, end, WINDOW_BYTES_MAX) {
                assert!(range.start >= end && range.start >= fetched, "nothing is fetched twice");
                assert!(range.end - end <= WINDOW_BYTES_MAX);
                fetched = range.end;
            }
            assert!(number < 2 || fetched >= end, "at {number}");
        }
        assert!(fetched - 1_000 * READ >= WINDOW_BYTES_MAX / 2);
    }

    #[test]
    fn a_random_reader_gets_nothing() {
        let mut streams = Streams::default();
        for number in 1..1_000_u64 {
            let start = number * 7_919 % 1_000 * READ + 4096;
            assert_eq!(streams.advance(start, start + 4096, WINDOW_BYTES_MAX), None);
        }
    }

    #[test]
    fn blocks_that_are_jumped_into_often_are_fetched_once() {
        let mut streams = Streams::default();
        let block = 4 << 20;
        let mut miss = |offset| streams.miss(offset, block);
        for number in 0..3 {
            assert_eq!(miss(9 * block + number * 70_000), None);
            assert_eq!(miss(2 * block + number), None);
        }
        assert_eq!(miss(10 * block - 1), Some(9 * block..10 * block));
        assert_eq!(miss(9 * block), None, "once");
        // Another block in its place.
        assert_eq!(miss((9 + PLACES) * block), None);
        assert_eq!(miss(2 * block), Some(2 * block..3 * block));
    }

    #[test]
    fn several_readers_are_told_apart() {
        let mut streams = Streams::default();
        let mut asked = [0; 3];
        for number in 0..50 {
            for (reader, asked) in (1..).zip(&mut asked) {
                let start = (reader << 32) + number * READ;
                *asked += u32::from(streams.advance(start, start + READ, WINDOW_BYTES_MAX).is_some());
            }
        }
        assert!(asked.iter().all(|asked| *asked > 3), "{asked:?}");
    }
}
