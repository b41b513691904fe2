//! The mount's side.

use std::collections::BTreeMap;
use std::ops::Range;

use flexfs_mount::data::dirty::Dirty;
use flexfs_mount::data::layout::{Gaps, Map};
use flexfs_wire::extent::{Extent, Layout, ZERO_BLOCK};
use flexfs_wire::id::BlockId;

use crate::source::Source;

/// Cells of the flat file.
const CELLS: usize = 96;
/// Bytes of a region of dirty bytes.
const REGION: u32 = 32;

/// What a byte is: zero, an inline byte, or a byte of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    Byte(u8),
    Block(u64, u32),
}

/// Windows of a layout, writes and cuts, in any order; what the map resolves is what the vector has.
pub(super) fn layouts(mut source: Source<'_>) {
    let mut file = vec![Cell::Byte(0); CELLS];
    let (mut map, mut known, mut version) = (Map::empty(1), [true; CELLS], 1);
    for _ in 0..64 {
        if source.is_empty() {
            break;
        }
        version += 1;
        match source.below(6) {
            0 | 1 => {
                let extents = some_extents(&mut source, version);
                for extent in extents.values() {
                    lay(&mut file, extent);
                }
                map.apply_extents(version, &extents);
            }
            2 => {
                let size = source.below(CELLS);
                file[size..].fill(Cell::Byte(0));
                map.apply_size(version, size as u64);
                // Behind the end there is nothing that the map would not know.
            }
            3 => {
                // Another client has changed everything: only a window is described anew.
                let window = window(&mut source);
                let (layout, fresh) = described(&mut source, &window, version);
                file = fresh;
                known = [false; CELLS];
                known[window.clone()].fill(true);
                map = Map::new(layout).expect("a sound layout");
            }
            4 => {
                // One more window of the same version: of the file as it is.
                let window = window(&mut source);
                map.merge(layout_of(&file, &window, version)).expect("a sound layout");
                known[window].fill(true);
            }
            _ => {
                let unsound =
                    Layout { extents: vec![extent(9, 4, 1, 0), extent(5, 9, 1, 0)], ..Layout::default() };
                assert!(Map::new(unsound).is_err(), "extents that overlap");
            }
        }
        check(&map, &file, &known, &mut source);
    }
}

fn check(map: &Map, file: &[Cell], known: &[bool], source: &mut Source<'_>) {
    let range = window(source);
    let first_unknown = (range.start..range.end).find(|at| !known[*at]);
    let wide = range.start as u64..range.end as u64;
    assert_eq!(map.first_unknown(&wide), first_unknown.map(|at| at as u64), "what is described of {range:?}");
    if first_unknown.is_some() {
        return;
    }
    let mut out = vec![0xee; range.len()];
    let mut wants = Vec::new();
    map.resolve(&wide, wide.start, &mut out, &mut wants);
    let mut found: Vec<Cell> = out.into_iter().map(Cell::Byte).collect();
    for want in &wants {
        for (cell, at) in found[want.at..want.at + want.length].iter_mut().zip(want.block_offset..) {
            *cell = Cell::Block(want.block.0, at);
        }
    }
    assert_eq!(found, file[range.clone()], "bytes of {range:?}");
    let ahead: usize = map.wants(&wide).iter().map(|want| want.length).sum();
    assert_eq!(ahead, wants.iter().map(|want| want.length).sum::<usize>(), "what is fetched ahead");
    if let Ok(data) = map.next_data(wide.start) {
        assert!(data.start >= wide.start && data.start < data.end);
        let from = usize::try_from(data.start).unwrap_or(CELLS).min(CELLS);
        let skipped = &file[range.start..from];
        let is_hole = |cell: &Cell| *cell == Cell::Byte(0);
        let all_known = known[range.start..from].iter().all(|known| *known);
        assert!(!all_known || skipped.iter().all(is_hole), "data before {data:?} was passed over");
    }
}

fn window(source: &mut Source<'_>) -> Range<usize> {
    let (a, b) = (source.below(CELLS), source.below(CELLS));
    a.min(b)..a.max(b) + 1
}

fn extent(offset: u64, length: u32, block: u64, block_offset: u32) -> Extent {
    Extent { offset, length, block: BlockId(block), block_offset }
}

/// Ascending extents; each block is new, so that a byte shows where it came from.
fn some_extents(source: &mut Source<'_>, block: u64) -> BTreeMap<u64, Extent> {
    let (mut extents, mut at, mut block_offset) = (BTreeMap::new(), source.below(CELLS), 0);
    for _ in 0..=source.below(4) {
        let length = source.below(20) + 1;
        if at + length > CELLS {
            break;
        }
        let is_zeros = source.one_in(6);
        let one = extent(
            at as u64,
            u32::try_from(length).expect("small"),
            if is_zeros { 0 } else { block },
            if is_zeros { 0 } else { block_offset },
        );
        extents.insert(one.offset, one);
        block_offset += one.length;
        at += length + source.below(8);
    }
    extents
}

fn lay(file: &mut [Cell], extent: &Extent) {
    let start = usize::try_from(extent.offset).expect("small");
    for (cell, at) in file[start..start + extent.length as usize].iter_mut().zip(extent.block_offset..) {
        *cell = if extent.block == ZERO_BLOCK { Cell::Byte(0) } else { Cell::Block(extent.block.0, at) };
    }
}

/// A window of a file with inline bytes and extents that may reach out of it.
fn described(source: &mut Source<'_>, window: &Range<usize>, version: u64) -> (Layout, Vec<Cell>) {
    let inline = source.take(source.clone().below(40)).to_vec();
    let mut file = vec![Cell::Byte(0); CELLS];
    for (cell, byte) in file.iter_mut().zip(&inline) {
        *cell = Cell::Byte(*byte);
    }
    let extents = some_extents(source, version);
    for extent in extents.values() {
        lay(&mut file, extent);
    }
    let (start, end) = (window.start as u64, window.end as u64);
    let touching = extents.into_values().filter(|extent| extent.offset < end && start < extent.end());
    (Layout { inline, extents: touching.collect(), start, end, version }, file)
}

/// The layout of a window, cell by cell: the inline part is all that is inline.
fn layout_of(file: &[Cell], window: &Range<usize>, version: u64) -> Layout {
    let mut inline: Vec<u8> =
        file.iter().map(|cell| if let Cell::Byte(byte) = cell { *byte } else { 0 }).collect();
    while inline.last() == Some(&0) {
        inline.pop();
    }
    let blocks = window.clone().filter_map(|at| match file[at] {
        Cell::Block(block, offset) => Some(extent(at as u64, 1, block, offset)),
        Cell::Byte(_) => None,
    });
    Layout { inline, extents: blocks.collect(), start: window.start as u64, end: window.end as u64, version }
}

/// Writes, cuts and takes; every byte is there once, newest on top.
pub(super) fn dirty(mut source: Source<'_>) {
    let (mut dirty, mut model) = (Dirty::default(), [None; CELLS]);
    for number in 1..=200u8 {
        if source.is_empty() {
            break;
        }
        match source.below(16) {
            0..=11 => {
                let at = source.below(CELLS);
                let length = (source.below(48) + 1).min(CELLS - at);
                let mut full = Vec::new();
                dirty.write(REGION, at as u64, &vec![number; length], &mut full);
                model[at..at + length].fill(Some(number));
                for pieces in full {
                    let start = usize::try_from(pieces[0].offset).expect("small");
                    assert!(start.is_multiple_of(REGION as usize), "full regions leave whole");
                    let bytes = pieces.iter().flat_map(|piece| piece.bytes.iter().copied().map(Some));
                    let region = &mut model[start..start + REGION as usize];
                    assert!(bytes.eq(region.iter().copied()), "the bytes of a full region");
                    region.fill(None);
                }
            }
            12 | 13 => {
                let size = source.below(CELLS);
                dirty.cut(REGION, size as u64);
                model[size..].fill(None);
            }
            14 => {
                let taken: usize = dirty.take().iter().map(|piece| piece.bytes.len()).sum();
                assert_eq!(taken, model.iter().flatten().count());
                assert_eq!(dirty.cost(), 0);
                model.fill(None);
            }
            _ => lay_over(&dirty, &model, &mut source),
        }
        let end = model.iter().rposition(Option::is_some).map_or(0, |at| at as u64 + 1);
        assert_eq!((dirty.end(), dirty.bytes()), (end, model.iter().flatten().count() as u64));
        assert_eq!(dirty.is_empty(), end == 0);
    }
    lay_over(&dirty, &model, &mut source);
}

/// What a reader sees of dirty bytes: they lie over what is below, and the gaps are told.
fn lay_over(dirty: &Dirty, model: &[Option<u8>; CELLS], source: &mut Source<'_>) {
    let range = window(source);
    let wide = range.start as u64..range.end as u64;
    let mut out = vec![0; range.len()];
    let mut gaps = Gaps::new(wide.clone());
    gaps.lay(&mut out, |range, each| dirty.each_in(REGION, range, |offset, bytes| each(offset, bytes)));
    let mut found: Vec<Option<u8>> = out.into_iter().map(Some).collect();
    for gap in gaps.left() {
        let place = |at: u64| usize::try_from(at - wide.start).expect("small");
        found[place(gap.start)..place(gap.end)].fill(None);
    }
    assert_eq!(found, model[range.clone()], "dirty bytes of {range:?}");
    let next = dirty.next(REGION, wide.start).map(|next| next.start);
    let said = (range.start..CELLS).find(|at| model[*at].is_some()).map(|at| at as u64);
    assert_eq!(next, said, "the next dirty byte from {} on", wide.start);
}
