//! Bytes written here and not yet on their way to the server.
//!
//! Byte-granular: only what was written is kept and sent, so two clients may write different bytes of one page. The
//! file is cut into regions of the volume's block size; a region that is written all over is a full block and is
//! given out at once. Within a region chunks never overlap; a write that goes on where a chunk ends makes it longer.

use std::collections::BTreeMap;
use std::ops::Range;

/// What a chunk costs beside its bytes: its place in the tables and the allocator's share. Without it, single
/// bytes written all over a file would take many times the memory they are counted with.
const CHUNK_COST: u64 = 64;

/// A run of bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Offset in the file.
    pub offset: u64,
    /// The bytes, never none.
    pub bytes: Vec<u8>,
}

impl Piece {
    /// Offset just past the run.
    pub fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }

    /// Memory it takes, in bytes.
    pub fn cost(&self) -> u64 {
        self.bytes.capacity() as u64 + CHUNK_COST
    }
}

/// The dirty bytes of a file.
#[derive(Debug, Default)]
pub struct Dirty {
    regions: BTreeMap<u64, Region>,
    bytes: u64,
    cost: u64,
}

#[derive(Debug, Default)]
struct Region {
    /// Ascending, not overlapping.
    chunks: Vec<Piece>,
    covered: u64,
}

impl Dirty {
    /// Whether nothing is dirty.
    pub fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// Memory taken, in bytes.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// Number of dirty bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Offset just past the last dirty byte; 0 when there is none.
    pub fn end(&self) -> u64 {
        self.regions.last_key_value().and_then(|(_, region)| region.chunks.last()).map_or(0, Piece::end)
    }

    /// Takes `data` in. Regions of `region_bytes` that are now full leave, each as its pieces in order.
    pub fn write(&mut self, region_bytes: u32, offset: u64, data: &[u8], full: &mut Vec<Vec<Piece>>) {
        let region_bytes = u64::from(region_bytes);
        let end = offset + data.len() as u64;
        let mut at = offset;
        while at < end {
            let index = at / region_bytes;
            let limit = (index + 1) * region_bytes;
            let part = &data[distance(offset, at)..distance(offset, end.min(limit))];
            let region = self.regions.entry(index).or_default();
            let before = region.covered;
            self.cost += region.write(limit, at, part);
            self.bytes += region.covered - before;
            if region.covered == region_bytes
                && let Some(region) = self.regions.remove(&index)
            {
                self.cost -= region.cost();
                self.bytes -= region.covered;
                full.push(region.chunks);
            }
            at = end.min(limit);
        }
    }

    /// Takes everything out, in order.
    pub fn take(&mut self) -> Vec<Piece> {
        self.cost = 0;
        self.bytes = 0;
        std::mem::take(&mut self.regions).into_values().flat_map(|region| region.chunks).collect()
    }

    /// Drops the bytes from `size` on.
    pub fn cut(&mut self, region_bytes: u32, size: u64) {
        let mut behind = self.regions.split_off(&(size / u64::from(region_bytes)));
        self.cost -= behind.values().map(Region::cost).sum::<u64>();
        self.bytes -= behind.values().map(|region| region.covered).sum::<u64>();
        let Some((index, mut region)) = behind.pop_first() else { return };
        region.cut(size);
        if region.covered > 0 {
            self.cost += region.cost();
            self.bytes += region.covered;
            self.regions.insert(index, region);
        }
    }

    /// The dirty bytes at `at`, up to a border between two chunks, or the next ones.
    pub fn next(&self, region_bytes: u32, at: u64) -> Option<Range<u64>> {
        let regions = self.regions.range(at / u64::from(region_bytes)..);
        regions.map(|(_, region)| region).find_map(|region| next_piece(&region.chunks, at))
    }

    /// Calls `each` with the dirty bytes within `range`, in order.
    pub fn each_in(&self, region_bytes: u32, range: Range<u64>, mut each: impl FnMut(u64, &[u8])) {
        if range.is_empty() || self.regions.is_empty() {
            return;
        }
        let region_bytes = u64::from(region_bytes);
        for region in self.regions.range(range.start / region_bytes..=(range.end - 1) / region_bytes) {
            each_piece(&region.1.chunks, &range, &mut each);
        }
    }
}

/// The rest of the piece that holds `at`, or the next one.
pub fn next_piece(pieces: &[Piece], at: u64) -> Option<Range<u64>> {
    let piece = pieces.get(pieces.partition_point(|piece| piece.end() <= at))?;
    Some(piece.offset.max(at)..piece.end())
}

/// Calls `each` with the parts of ascending `pieces` that lie within `range`.
pub fn each_piece(pieces: &[Piece], range: &Range<u64>, each: &mut impl FnMut(u64, &[u8])) {
    let first = pieces.partition_point(|piece| piece.end() <= range.start);
    for piece in pieces[first..].iter().take_while(|piece| piece.offset < range.end) {
        let (start, end) = (piece.offset.max(range.start), piece.end().min(range.end));
        each(start, &piece.bytes[distance(piece.offset, start)..distance(piece.offset, end)]);
    }
}

impl Region {
    fn cost(&self) -> u64 {
        self.chunks.iter().map(Piece::cost).sum()
    }

    /// Takes `data` in, which ends at `limit` at the latest. The growth of the region's cost.
    fn write(&mut self, limit: u64, mut at: u64, mut data: &[u8]) -> u64 {
        let mut grown = 0;
        while !data.is_empty() {
            let next = self.chunks.partition_point(|chunk| chunk.offset <= at);
            let room = distance(at, self.chunks.get(next).map_or(limit, |chunk| chunk.offset));
            let chunk =
                next.checked_sub(1).map(|last| &mut self.chunks[last]).filter(|chunk| at <= chunk.end());
            let taken = match chunk {
                Some(chunk) if at < chunk.end() => {
                    let from = distance(chunk.offset, at);
                    let taken = data.len().min(chunk.bytes.len() - from);
                    chunk.bytes[from..from + taken].copy_from_slice(&data[..taken]);
                    taken
                }
                Some(chunk) => {
                    let taken = data.len().min(room);
                    grown += grow(chunk, taken, limit);
                    chunk.bytes.extend_from_slice(&data[..taken]);
                    self.covered += taken as u64;
                    taken
                }
                None => {
                    let taken = data.len().min(room);
                    let piece = Piece { offset: at, bytes: data[..taken].to_vec() };
                    grown += piece.cost();
                    self.chunks.insert(next, piece);
                    self.covered += taken as u64;
                    taken
                }
            };
            data = &data[taken..];
            at += taken as u64;
        }
        grown
    }

    fn cut(&mut self, size: u64) {
        self.chunks.truncate(self.chunks.partition_point(|chunk| chunk.offset < size));
        if let Some(last) = self.chunks.last_mut() {
            last.bytes.truncate(distance(last.offset, size.max(last.offset)));
        }
        self.covered = self.chunks.iter().map(|chunk| chunk.bytes.len() as u64).sum();
    }
}

/// Makes room for `more` bytes: twice what was there, so that a stream of small writes copies each byte once or
/// twice, but nothing that can never be used. The growth in bytes.
fn grow(chunk: &mut Piece, more: usize, limit: u64) -> u64 {
    let before = chunk.bytes.capacity();
    let needed = chunk.bytes.len() + more;
    if needed > before {
        let wanted = needed.max((before * 2).min(distance(chunk.offset, limit)));
        chunk.bytes.reserve_exact(wanted - chunk.bytes.len());
    }
    (chunk.bytes.capacity() - before) as u64
}

/// Bytes from `from` to `to`, which lie in memory together.
fn distance(from: u64, to: u64) -> usize {
    usize::try_from(to - from).expect("the bytes between are in memory, so their number is a usize")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REGION: u32 = 64;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, usize),
        Cut(u64),
        Take,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            12 => (0..400_u64, 1..100_usize).prop_map(|(offset, length)| Step::Write(offset, length)),
            2 => (0..500_u64).prop_map(Step::Cut),
            1 => Just(Step::Take),
        ]
    }

    /// Lays pieces over the model; every byte must agree, none may be missing, be there twice or out of order.
    fn check(dirty: &Dirty, model: &[Option<u8>]) {
        let mut seen = vec![None; model.len()];
        let mut last = 0;
        dirty.each_in(REGION, 0..model.len() as u64, |offset, bytes| {
            assert!(offset >= last && !bytes.is_empty());
            last = offset + bytes.len() as u64;
            for (at, byte) in (offset..).zip(bytes) {
                seen[usize::try_from(at).unwrap()] = Some(*byte);
            }
        });
        assert_eq!(seen, model);
        assert_eq!(dirty.bytes(), model.iter().flatten().count() as u64);
        let cost: u64 = dirty.regions.values().map(Region::cost).sum();
        assert_eq!(dirty.cost(), cost);
        assert!(
            dirty.regions.values().all(|region| region.covered < u64::from(REGION) && region.covered > 0)
        );
    }

    proptest! {
        #[test]
        fn as_a_flat_model(steps in proptest::collection::vec(step(), 1..60)) {
            let mut dirty = Dirty::default();
            let mut model = vec![None; 600];
            for (number, step) in (1..=250_u8).cycle().zip(steps) {
                match step {
                    Step::Write(offset, length) => {
                        let mut full = Vec::new();
                        dirty.write(REGION, offset, &vec![number; length], &mut full);
                        let at = usize::try_from(offset).unwrap();
                        model[at..at + length].fill(Some(number));
                        for pieces in full {
                            let start = pieces[0].offset;
                            prop_assert!(start.is_multiple_of(u64::from(REGION)));
                            let bytes: Vec<_> = pieces.iter().flat_map(|p| p.bytes.iter().copied().map(Some)).collect();
                            let at = usize::try_from(start).unwrap();
                            prop_assert_eq!(&bytes[..], &model[at..at + REGION as usize]);
                            model[at..at + REGION as usize].fill(None);
                        }
                    }
                    Step::Cut(size) => {
                        dirty.cut(REGION, size);
                        model[usize::try_from(size).unwrap()..].fill(None);
                    }
                    Step::Take => {
                        let pieces = dirty.take();
                        prop_assert!(pieces.windows(2).all(|pair| pair[0].end() <= pair[1].offset));
                        let total: usize = pieces.iter().map(|piece| piece.bytes.len()).sum();
                        prop_assert_eq!(total, model.iter().flatten().count());
                        prop_assert_eq!(dirty.cost(), 0);
                        model.fill(None);
                    }
                }
                check(&dirty, &model);
                let end = model.iter().rposition(Option::is_some).map_or(0, |at| at as u64 + 1);
                prop_assert_eq!(dirty.end(), end);
            }
        }
    }

    #[test]
    fn appends_make_one_chunk() {
        let mut dirty = Dirty::default();
        let mut full = Vec::new();
        for offset in 0..63 {
            dirty.write(REGION, offset, b"x", &mut full);
        }
        assert_eq!(dirty.take().len(), 1);
        assert!(full.is_empty());
    }
}
