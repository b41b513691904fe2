//! Where the bytes of a file are, as far as this client knows, and how they are laid over one another.
//!
//! Pure. From the top: bytes that are dirty, bytes on their way (newest first), extents, the inline part, zeros.

use std::collections::BTreeMap;
use std::ops::Range;

use flexfs_wire::extent::{Extent, Layout, ZERO_BLOCK};
use flexfs_wire::limits::{BLOCK_BYTES_MAX, INLINE_BYTES_MAX};

/// Most extents kept of one file (1 TiB in blocks of 4 MiB); beyond it the map begins anew with the window just read.
const EXTENTS_MAX: usize = 1 << 18;
/// What an extent takes in a `BTreeMap`, in bytes, about.
const EXTENT_COST: u64 = 40;

/// Bytes of a read that must come out of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// Where they go in the reader's buffer.
    pub at: usize,
    /// How many.
    pub length: usize,
    /// The block.
    pub block: flexfs_wire::id::BlockId,
    /// Where they are in its raw bytes.
    pub block_offset: u32,
}

/// Why a layout cannot be: the server's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server sent a layout that contradicts itself")]
pub struct Unsound;

/// What is known of a file's layout at one data version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map {
    version: u64,
    inline: Vec<u8>,
    /// By offset, not overlapping, all within `known`.
    extents: BTreeMap<u64, Extent>,
    /// Windows of the file described, ascending, apart from one another. `u64::MAX` as an end: nothing follows.
    known: Vec<Range<u64>>,
}

impl Map {
    /// Of an empty file.
    pub fn empty(version: u64) -> Self {
        let mut map = Self { version, ..Self::default() };
        map.know(0..u64::MAX);
        map
    }

    /// Of what the server described.
    pub fn new(layout: Layout) -> Result<Self, Unsound> {
        let mut map = Self { version: layout.version, ..Self::default() };
        map.merge(layout)?;
        Ok(map)
    }

    /// All extents, ascending; `None` when there are inline bytes.
    pub(super) fn extents(&self) -> Option<impl Iterator<Item = &Extent>> {
        self.inline.is_empty().then(|| self.extents.values())
    }

    /// The bytes of a small file of this size, when all of them are inline.
    pub fn whole(&self, size: u64) -> Option<&[u8]> {
        let size = usize::try_from(size).ok().filter(|size| (1..=INLINE_BYTES_MAX).contains(size))?;
        let is_whole = self.extents.is_empty() && self.first_unknown(&(0..size as u64)).is_none();
        self.inline.get(..size).filter(|_| is_whole)
    }

    /// The data version described.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Memory taken, in bytes, about.
    pub fn weight(&self) -> u64 {
        256 + self.inline.capacity() as u64 + (self.extents.len() + self.known.len()) as u64 * EXTENT_COST
    }

    /// Adds another window of the same version.
    pub fn merge(&mut self, layout: Layout) -> Result<(), Unsound> {
        check(&layout)?;
        if self.extents.len() + layout.extents.len() > EXTENTS_MAX {
            self.extents.clear();
            self.known.clear();
        }
        let window = layout.start..layout.end;
        self.clear(&window);
        for extent in &layout.extents {
            if let Some(extent) = clip(extent, &window) {
                self.extents.insert(extent.offset, extent);
            }
        }
        self.inline = layout.inline;
        self.know(window);
        Ok(())
    }

    /// The first offset in `range` that is not described.
    pub fn first_unknown(&self, range: &Range<u64>) -> Option<u64> {
        // Windows that touch were merged: the one that holds the start is all that counts.
        let window = self.known.get(self.known.partition_point(|window| window.end <= range.start));
        let at = window.filter(|window| window.start <= range.start).map_or(range.start, |window| window.end);
        (at < range.end).then_some(at)
    }

    /// Whether the file has extents; `None` when not all of it is described and none is seen.
    pub fn has_extents(&self) -> Option<bool> {
        if !self.extents.is_empty() {
            return Some(true);
        }
        self.first_unknown(&(0..u64::MAX)).is_none().then_some(false)
    }

    /// Fills `out` (which stands for the file from `base` on) within `range`, which is described: inline bytes and
    /// zeros at once, the rest is added to `wants`.
    pub fn resolve(&self, range: &Range<u64>, base: u64, out: &mut [u8], wants: &mut Vec<Want>) {
        let mut at = range.start;
        let first = self.extents.range(..=range.start).next_back().map_or(range.start, |(offset, _)| *offset);
        for extent in self.extents.range(first..range.end).map(|(_, extent)| extent) {
            let Some(part) = clip(extent, range) else { continue };
            self.fill_base(at, &mut out[place(base, at)..place(base, part.offset)]);
            let (start, end) = (place(base, part.offset), place(base, part.end()));
            if part.block == ZERO_BLOCK {
                out[start..end].fill(0);
            } else {
                let want = Want {
                    at: start,
                    length: end - start,
                    block: part.block,
                    block_offset: part.block_offset,
                };
                wants.push(want);
            }
            at = part.end();
        }
        self.fill_base(at, &mut out[place(base, at)..place(base, range.end)]);
    }

    /// What of `range`, which is described, is in blocks, for fetching it ahead.
    pub fn wants(&self, range: &Range<u64>) -> Vec<Want> {
        let first = self.extents.range(..=range.start).next_back().map_or(range.start, |(offset, _)| *offset);
        let extents = self.extents.range(first..range.end.max(first));
        let parts = extents.filter_map(|(_, extent)| clip(extent, range));
        parts
            .filter(|part| part.block != ZERO_BLOCK)
            .map(|part| Want {
                at: 0,
                length: part.length as usize,
                block: part.block,
                block_offset: part.block_offset,
            })
            .collect()
    }

    /// Inline bytes, and zeros behind them.
    fn fill_base(&self, offset: u64, out: &mut [u8]) {
        let inline = usize::try_from(offset).ok().and_then(|offset| self.inline.get(offset..)).unwrap_or(&[]);
        let length = inline.len().min(out.len());
        out[..length].copy_from_slice(&inline[..length]);
        out[length..].fill(0);
    }

    /// A write of these extents made `version` of this map's.
    pub fn apply_extents(&mut self, version: u64, extents: &BTreeMap<u64, Extent>) {
        self.version = version;
        for extent in extents.values() {
            let first = self.known.partition_point(|window| window.end <= extent.offset);
            for window in self.known[first..].iter().take_while(|window| window.start < extent.end()) {
                if let Some(part) = clip(extent, window) {
                    insert(&mut self.extents, part);
                }
            }
        }
    }

    /// A write of inline bytes made `version` of this map's.
    pub fn apply_inline(&mut self, version: u64, offset: u32, bytes: &[u8]) {
        self.version = version;
        let start = offset as usize;
        let end = start + bytes.len();
        if self.inline.len() < end {
            self.inline.resize(end, 0);
        }
        self.inline[start..end].copy_from_slice(bytes);
    }

    /// A truncation to `size` made `version` of this map's.
    pub fn apply_size(&mut self, version: u64, size: u64) {
        self.version = version;
        self.inline.truncate(usize::try_from(size).unwrap_or(usize::MAX));
        self.clear(&(size..u64::MAX));
    }

    /// The first byte from `at` on that is data, within what is described from `at` on. Err: where the
    /// description ends without one.
    pub fn next_data(&self, at: u64) -> Result<Range<u64>, u64> {
        let known_end = self.first_unknown(&(at..u64::MAX)).unwrap_or(u64::MAX);
        let inline = self.inline.len() as u64;
        let first = self.extents.range(..=at).next_back().map_or(at, |(offset, _)| *offset);
        let extent = self
            .extents
            .range(first..known_end)
            .map(|(_, extent)| extent)
            .find(|extent| extent.block != ZERO_BLOCK && extent.end() > at)
            .map(|extent| extent.offset.max(at)..extent.end());
        match extent {
            // What allocated zeros hide of the inline part counts as data still: allowed, and rare.
            _ if at < inline => Ok(at..inline),
            Some(range) => Ok(range),
            None => Err(known_end),
        }
    }

    fn know(&mut self, window: Range<u64>) {
        if window.is_empty() {
            return;
        }
        let mut merged = window;
        let mut apart = Vec::with_capacity(self.known.len() + 1);
        for known in self.known.drain(..) {
            if known.end < merged.start || merged.end < known.start {
                apart.push(known);
            } else {
                merged = known.start.min(merged.start)..known.end.max(merged.end);
            }
        }
        let at = apart.partition_point(|known| known.start < merged.start);
        apart.insert(at, merged);
        self.known = apart;
    }

    /// Removes extents, or their parts, within `range`.
    fn clear(&mut self, range: &Range<u64>) {
        clear(&mut self.extents, range);
    }
}

/// Puts an extent over what was there.
pub fn insert(extents: &mut BTreeMap<u64, Extent>, extent: Extent) {
    clear(extents, &(extent.offset..extent.end()));
    extents.insert(extent.offset, extent);
}

fn clear(extents: &mut BTreeMap<u64, Extent>, range: &Range<u64>) {
    if range.is_empty() {
        return;
    }
    let first = extents.range(..=range.start).next_back().map_or(range.start, |(offset, _)| *offset);
    let hit: Vec<Extent> = extents
        .range(first..range.end)
        .map(|(_, extent)| *extent)
        .filter(|extent| extent.end() > range.start)
        .collect();
    for extent in hit {
        extents.remove(&extent.offset);
        for side in [extent.offset..range.start, range.end..extent.end()] {
            if let Some(part) = clip(&extent, &side) {
                extents.insert(part.offset, part);
            }
        }
    }
}

/// The part of an extent within `range`.
fn clip(extent: &Extent, range: &Range<u64>) -> Option<Extent> {
    let start = extent.offset.max(range.start);
    let end = extent.end().min(range.end);
    if start >= end {
        return None;
    }
    // Both fit: they are not larger than the extent's own length.
    let skipped = u32::try_from(start - extent.offset).ok()?;
    let length = u32::try_from(end - start).ok()?;
    let block_offset = if extent.block == ZERO_BLOCK { 0 } else { extent.block_offset + skipped };
    Some(Extent { offset: start, length, block: extent.block, block_offset })
}

fn check(layout: &Layout) -> Result<(), Unsound> {
    let mut end = 0;
    for extent in &layout.extents {
        let inside = extent.block == ZERO_BLOCK
            || u64::from(extent.block_offset) + u64::from(extent.length) <= u64::from(BLOCK_BYTES_MAX);
        let bounded = extent.offset.checked_add(u64::from(extent.length)).is_some();
        if extent.length == 0 || extent.offset < end || !inside || !bounded {
            return Err(Unsound);
        }
        end = extent.end();
    }
    if layout.start > layout.end || layout.inline.len() > INLINE_BYTES_MAX {
        return Err(Unsound);
    }
    Ok(())
}

/// Where the byte at `at` is in a buffer that begins with the byte at `base`.
fn place(base: u64, at: u64) -> usize {
    usize::try_from(at - base).expect("the range lies within a buffer in memory")
}

/// Lays bytes over the parts of a buffer that nothing was laid over yet.
#[derive(Debug)]
pub struct Gaps {
    base: u64,
    left: Vec<Range<u64>>,
}

impl Gaps {
    /// All of `range`; `range.start` is the buffer's first byte.
    pub fn new(range: Range<u64>) -> Self {
        let base = range.start;
        Self { base, left: if range.is_empty() { Vec::new() } else { vec![range] } }
    }

    /// What is still open, ascending.
    pub fn left(&self) -> &[Range<u64>] {
        &self.left
    }

    /// Lays what `each_in(range, each)` gives for a range over what is open of it.
    pub fn lay(&mut self, out: &mut [u8], each_in: impl Fn(Range<u64>, &mut dyn FnMut(u64, &[u8]))) {
        let mut left = Vec::with_capacity(self.left.len());
        for gap in &self.left {
            let mut at = gap.start;
            each_in(gap.clone(), &mut |offset, bytes| {
                if at < offset {
                    left.push(at..offset);
                }
                let start = place(self.base, offset);
                out[start..start + bytes.len()].copy_from_slice(bytes);
                at = offset + bytes.len() as u64;
            });
            if at < gap.end {
                left.push(at..gap.end);
            }
        }
        self.left = left;
    }
}
