//! Sequential readers, and what they will want next; random ones, and what is worth having around them.
//!
//! Detection is per file: several readers of one file are told apart by where each will go on. A reader that goes
//! on where it was gets a window ahead of it, doubled as long as it does; one that jumps gets none, unless its jumps are all alike, forward
//! or backward (rows of a matrix, a file read from its end): then the next ones are known. A jump gets its pages alone; the third one
//! into a segment all of that. Where several jumps end in one block of the file, more will: the rest of that block is fetched at once,
//! which costs less than the round trips to come, unless there are so many readers that links have no time for it.

use std::ops::Range;

use flexfs_wire::limits::{BLOCK_BYTES_MAX, SEGMENT_BYTES};

/// Readers of one file that are told apart.
const STREAMS: usize = 4;
/// First window, in bytes: what a sequential reader of a cold file costs at most when it stops at once.
const WINDOW_BYTES_MIN: u64 = 512 << 10;
/// Largest window, in bytes: 16 MiB are 13 ms at 10 Gbit/s, a multiple of any round trip.
pub(crate) const WINDOW_BYTES_MAX: u64 = 16 << 20;
/// How far requests of one sequential reader overtake one another, in bytes: one largest FUSE read.
const OVERTAKE_BYTES_MAX: u64 = 1 << 20;
/// Misses in one block after which all of it is fetched, while links are idle between them: by a reader that waits for each of its reads.
const MISSES: u8 = 4;
/// The same while many read at once, so that links have no time for what nobody asked for: a quarter of the usual block's pages. Of two CPUs
/// each page that comes alone takes 0.04 ms then, and a block about 5.
const MISSES_BUSY: u8 = 255;
/// Blocks whose misses are counted, each in the place of its number: a file of 1 GiB in blocks of 4 MiB.
const PLACES: u64 = 256;

/// Jumps of one length after which the next ones are fetched.
const ALIKE: u8 = 2;
/// Jumps that are fetched ahead, at first and at most.
const JUMPS: (u64, u64) = (4, 64);

/// What to fetch that nobody asked for yet: ranges of one length, each a step behind (or before) the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ahead {
    pub(crate) first: Range<u64>,
    pub(crate) step: i64,
    pub(crate) count: u64,
}

impl Ahead {
    fn one(first: Range<u64>) -> Self {
        Self { first, step: 0, count: 1 }
    }

    /// Bytes in them.
    pub(crate) fn bytes(&self) -> u64 {
        (self.first.end - self.first.start) * self.count
    }

    /// The ranges, but for those that begin before the file does.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        let (length, first, step) = (self.first.end - self.first.start, self.first.start, self.step);
        let at = move |number: u64| first.checked_add_signed(step.checked_mul(i64::try_from(number).ok()?)?);
        (0..self.count).filter_map(at).map(move |start| start..start.saturating_add(length))
    }
}

/// One reader that jumps.
#[derive(Clone, Copy, Debug, Default)]
struct Jumps {
    /// Where it was last, and how much it read.
    last: u64,
    length: u64,
    /// How it came there, and how many times in a row.
    step: i64,
    alike: u8,
    /// Jumps ahead of it that were fetched, and how many there are to be.
    fetched: u64,
    depth: u64,
}

impl Jumps {
    /// Whether a read at `offset` would be as far from the last as that was from the one before.
    fn is_next(&self, offset: u64) -> bool {
        self.step != 0 && offset.checked_signed_diff(self.last) == Some(self.step)
    }

    /// It reads `offset .. end` now.
    fn jump(&mut self, offset: u64, end: u64, window_max: u64) -> Option<Ahead> {
        let step = offset.checked_signed_diff(self.last).unwrap_or(0);
        let length = end - offset;
        if step == 0 || step != self.step || length != self.length {
            *self = Self { last: offset, length, step, depth: JUMPS.0, ..Self::default() };
            return None;
        }
        self.last = offset;
        self.alike = self.alike.saturating_add(1);
        self.fetched = self.fetched.saturating_sub(1);
        let depth = self.depth.min(window_max / length.max(1));
        // In halves, as windows are.
        if self.alike < ALIKE || self.fetched > depth / 2 || self.fetched >= depth {
            return None;
        }
        let from = i64::try_from(self.fetched + 1).ok()?;
        let count = depth - self.fetched;
        self.fetched = depth;
        self.depth = (self.depth * 2).min(JUMPS.1);
        if step.checked_neg().and_then(|back| u64::try_from(back).ok()) == Some(length) {
            // Backward without a gap: one range, so that a segment is asked for once.
            let end = offset.checked_add_signed(step.checked_mul(from)?)?.saturating_add(length);
            return Some(Ahead::one(end.saturating_sub(length * count)..end));
        }
        let first = offset.checked_add_signed(step.checked_mul(from)?)?;
        Some(Ahead { first: first..first.saturating_add(length), step, count })
    }
}

/// The sequential readers of a file.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    streams: [Stream; STREAMS],
    clock: u32,
    jumps: Jumps,
    /// Blocks of the file that were jumped into.
    places: Vec<Jumped>,
}

/// A block that was jumped into.
#[derive(Clone, Copy, Debug)]
struct Jumped {
    /// Its number in the file.
    block: u64,
    /// Reads in it that found nothing here.
    misses: u8,
    /// All of it was asked for.
    is_fetched: bool,
    /// Its segments that were read in once, and those twice, a bit each.
    once: u128,
    twice: u128,
}

const _: () = assert!(BLOCK_BYTES_MAX / SEGMENT_BYTES <= u128::BITS);

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
    pub(crate) fn advance(&mut self, offset: u64, end: u64, window_max: u64) -> Option<Ahead> {
        self.clock = self.clock.wrapping_add(1);
        let clock = self.clock;
        // A reader at the start of a file will probably read on.
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.goes_on_at(offset)) else {
            let window = if offset == 0 { WINDOW_BYTES_MIN } else { 0 };
            let oldest = self.streams.iter_mut().max_by_key(|stream| clock.wrapping_sub(stream.used))?;
            *oldest = Stream { next: end, ahead: end, window: window.min(window_max), used: clock };
            return self.jumps.jump(offset, end, window_max);
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
        (from < stream.ahead).then(|| Ahead::one(from..stream.ahead))
    }

    /// A reader that jumps wanted a part of a segment at `offset`, and it was not here; `busy`: many do at this moment. The block of the
    /// file to be fetched whole, if it is time; once.
    pub(crate) fn miss(&mut self, offset: u64, block_bytes: u64, busy: bool) -> Option<Range<u64>> {
        let block = offset / block_bytes;
        let place = self.jumped(block)?;
        place.misses = place.misses.saturating_add(1);
        if place.is_fetched || place.misses < if busy { MISSES_BUSY } else { MISSES } {
            return None;
        }
        place.is_fetched = true;
        let start = block * block_bytes;
        Some(start..start + block_bytes)
    }

    /// Whether a reader jumps to a part of one segment, and nothing says that it will read on there: three pages cost what the segment
    /// does, so readers were there twice at most, or, when `busy`, any number of times until the block is due.
    pub(crate) fn is_alone(&mut self, range: Range<u64>, block_bytes: u64, busy: bool) -> bool {
        let segment = u64::from(SEGMENT_BYTES);
        let Range { start, end } = range;
        // A reader at the start of a file will probably read on.
        let is_jump = start > 0 && start < end && !self.streams.iter().any(|stream| stream.goes_on_at(start));
        if !is_jump || start / segment != (end - 1) / segment || self.jumps.is_next(start) {
            return false;
        }
        let Some(place) = self.jumped(start / block_bytes) else { return false };
        let bit = 1 << (start % block_bytes / segment);
        let is_alone = busy || place.twice & bit == 0;
        place.twice |= place.once & bit;
        place.once |= bit;
        is_alone
    }

    /// What is known of jumps into a block of the file.
    fn jumped(&mut self, block: u64) -> Option<&mut Jumped> {
        let index = usize::try_from(block % PLACES).ok()?;
        let none = Jumped { block: u64::MAX, misses: 0, is_fetched: false, once: 0, twice: 0 };
        if self.places.len() <= index {
            self.places.resize(index + 1, none);
        }
        let place = self.places.get_mut(index)?;
        if place.block != block {
            *place = Jumped { block, ..none };
        }
        Some(place)
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
            if let Some(ahead) = streams.advance(start, end, WINDOW_BYTES_MAX) {
                let range = ahead.first;
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
        let mut random = 1u64;
        for _ in 1..1_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let start = (random >> 33) % 1_000 * READ + 4096;
            assert_eq!(streams.advance(start, start + 4096, WINDOW_BYTES_MAX), None);
        }
    }

    /// Reads `count` pages from `start` on, a step apart: how many of them were fetched before they were wanted, and all that was fetched.
    fn stride(start: u64, step: i64, count: u64) -> (usize, Vec<Range<u64>>) {
        let (mut streams, mut fetched, mut met) = (Streams::default(), Vec::<Range<u64>>::new(), 0);
        for number in 0..count {
            let at = start.checked_add_signed(step * i64::try_from(number).unwrap()).unwrap();
            met += usize::from(fetched.iter().any(|range| range.contains(&at)));
            if let Some(ahead) = streams.advance(at, at + 4096, WINDOW_BYTES_MAX) {
                assert!(ahead.bytes() <= WINDOW_BYTES_MAX);
                fetched.extend(ahead.ranges());
            }
        }
        (met, fetched)
    }

    #[test]
    fn jumps_that_are_alike_are_foreseen() {
        for step in [5 << 20, -(5 << 20), 8192, -8192] {
            let (met, fetched) = stride(1 << 40, step, 200);
            assert!(met >= 196, "{step}: {met} of 200");
            assert!(fetched.len() <= 200 + 64 && fetched.iter().all(|range| range.end - range.start == 4096));
        }
        // A file from its end: one range each time.
        let (met, fetched) = stride(999 * 4096, -4096, 1_000);
        assert!(met >= 996 && fetched.len() < 100, "{met}, {}", fetched.len());
        assert_eq!(fetched.iter().map(|range| range.start).min(), Some(0));
        let bytes: u64 = fetched.iter().map(|range| range.end - range.start).sum();
        assert!(bytes <= 1_000 * 4096, "nothing is fetched twice");
        // A large read takes the window, not so many jumps.
        let mut streams = Streams::default();
        let large = |number: u64| (number * (64 << 20), number * (64 << 20) + (8 << 20));
        let most =
            (1..20).map(large).filter_map(|(start, end)| streams.advance(start, end, WINDOW_BYTES_MAX));
        assert!(most.into_iter().all(|ahead| ahead.count <= 2));
    }

    #[test]
    fn blocks_that_are_jumped_into_often_are_fetched_once() {
        let mut streams = Streams::default();
        let block = 4 << 20;
        let mut miss = |offset| streams.miss(offset, block, false);
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
    fn while_many_read_a_block_is_fetched_when_that_pays() {
        let mut streams = Streams::default();
        let mut miss = |busy| streams.miss(5 << 20, 4 << 20, busy);
        assert!((1..MISSES_BUSY).all(|_| miss(true).is_none()));
        assert_eq!(miss(true), Some(4 << 20..8 << 20));
        assert_eq!((miss(true), miss(false)), (None, None), "once");
        let mut streams = Streams::default();
        let mut miss = |busy| streams.miss(5 << 20, 4 << 20, busy);
        assert!((0..2 * MISSES).all(|_| miss(true).is_none()));
        assert_eq!(miss(false), Some(4 << 20..8 << 20), "when it is quiet again");
    }

    #[test]
    fn jumps_come_alone_until_there_are_several_in_a_segment() {
        let (block, page) = (4 << 20, 4096);
        let mut streams = Streams::default();
        let mut read = |at: u64| {
            let alone = streams.is_alone(at..at + page, block, false);
            streams.advance(at, at + page, WINDOW_BYTES_MAX);
            alone
        };
        assert!(!read(0), "who begins at the start reads on");
        assert!(read(10 * block + 77 * page) && read(9 * block + 33 * page));
        assert!(!read(9 * block + 34 * page), "and so does who goes on");
        assert!(read(10 * block + 70 * page), "the second in its segment");
        assert!(!read(10 * block + 65 * page), "the third");
        assert!(read(10 * block + 129 * page), "another segment");
        let again = 10 * block + 75 * page;
        assert!(streams.is_alone(again..again + page, block, true), "while many read");
        assert!(!streams.is_alone(block - 1..block + 1, block, false), "two segments");
        // Rows of a matrix are foreseen.
        let mut streams = Streams::default();
        let alone: Vec<bool> = (1..6)
            .map(|row| (7 + row * 999) * page)
            .map(|at| {
                let alone = streams.is_alone(at..at + page, block, false);
                streams.advance(at, at + page, WINDOW_BYTES_MAX);
                alone
            })
            .collect();
        assert_eq!(alone, [true, true, false, false, false], "a step like the one before");
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
