//! The server's side: one file, scaled so that a cell stands for one byte or for many gibibytes.

use flexfs_meta::engine::memory::Memory;
use flexfs_meta::namespace::{Bounds, Context, Limits, Namespace, Rights};
use flexfs_meta::verify::verify;
use flexfs_wire::attr::{S_IFREG, SetAttr};
use flexfs_wire::errno::Errno;
use flexfs_wire::extent::{Extent, NewBlock, ZERO_BLOCK};
use flexfs_wire::id::{BlockId, Ino, RequestId, SessionId};
use flexfs_wire::message::{
    Caller, FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, Make, Reply, Request, Write,
};
use flexfs_wire::name::Name;
use flexfs_wire::seal::Node;
use flexfs_wire::time::Time;

use crate::source::Source;

/// Cells of the flat file.
const CELLS: usize = 80;
const BOUNDS: Bounds = Bounds {
    cleared_at_once: 4,
    dead_ranges: 2,
    erased_at_once: 4,
    layout_extents: 5,
    copied_extents: 4,
    // The model knows no time.
    lingering: 0,
    idle_bytes: 1 << 20,
    cached: 4,
};
const BLOCK_BYTES: u32 = 1 << 20;

/// Where a cell's first byte comes from; the rest of the cell follows it.
type Cell = Option<(u64, u64)>;

struct File {
    machine: Namespace<Memory>,
    session: SessionId,
    /// Bytes of a cell: a power of two.
    unit: u64,
    request: u64,
    ino: u64,
    blocks: std::ops::Range<u64>,
    cells: Vec<Cell>,
    size: usize,
}

/// Inserts, punches, cuts, shifts and background work in any order.
pub(super) fn run(mut source: Source<'_>) {
    // Blocks are smaller than a large unit: those files have holes and allocated zeros only, beyond 32-bit lengths.
    let unit = source.pick(&[1, 64, 4096, 1 << 33]);
    let mut file = File::new(unit);
    for _ in 0..100 {
        if source.is_empty() {
            break;
        }
        file.step(&mut source);
        file.check(&mut source);
    }
    while file.machine.background(Time::default(), 3).expect("the engine works") {}
    file.check(&mut source);
    let report = verify(file.machine.store()).expect("the engine works");
    assert!(report.is_clean(), "{report}");
}

impl File {
    fn new(unit: u64) -> Self {
        let now = Time::default();
        let limits = Limits::new(BLOCK_BYTES, 0, 0);
        let mut machine = Namespace::open(Memory::eager(), limits, now).expect("an empty store");
        machine.set_bounds(BOUNDS);
        machine.finish_recovery(now).expect("nothing to recover");
        let (session, _) = machine.open_session(|_| Vec::new()).expect("a session");
        let (inos, _) = machine.grant_inodes(session, 16).expect("numbers");
        let (blocks, _) = machine.grant_blocks(session, 256).expect("numbers");
        let mut file = Self {
            machine,
            session,
            unit,
            request: 0,
            ino: inos.start,
            blocks: blocks.start..blocks.start + blocks.count,
            cells: vec![None; CELLS],
            size: 0,
        };
        let make = Make {
            ino: Ino(inos.start),
            mode: S_IFREG | 0o644,
            umask: 0,
            rdev: 0,
            target: Vec::new(),
            open: true,
        };
        let name = Some(Name::new(b"file").expect("a name"));
        file.call(Request::Make { parent: Node::unsealed(Ino::ROOT), name, make }).expect("made");
        file
    }

    fn call(&mut self, request: Request) -> Result<Reply, Errno> {
        self.request += 1;
        let context = Context {
            told: None,
            now: Time { secs: i64::try_from(self.request).expect("few"), nanos: 0 },
            session: self.session,
            request: RequestId(self.request),
            caller: Caller { uid: 0, gid: 0 },
            rights: Rights::Client,
            umask: 0,
        };
        self.machine.apply(&context, &request).answer.expect("no lock is asked for").result
    }

    fn node(&self) -> Node {
        Node::unsealed(Ino(self.ino))
    }

    fn step(&mut self, source: &mut Source<'_>) {
        let (at, span) = (source.below(CELLS), source.below(CELLS) / 2 + 1);
        let end = (at + span).min(CELLS);
        let (offset, length) = (at as u64 * self.unit, (end - at) as u64 * self.unit);
        match source.below(12) {
            0..=4 => self.write(source, at),
            5 => self.fallocate(FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, offset, length, at..end, Some(None)),
            6 => self.fallocate(FALLOC_ZERO_RANGE, offset, length, at..end, Some(None)),
            7 => self.fallocate(FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE, offset, length, at..end, Some(None)),
            8 => self.fallocate(
                if span % 2 == 0 { 0 } else { FALLOC_KEEP_SIZE },
                offset,
                length,
                at..end,
                None,
            ),
            9 => {
                let change = SetAttr { size: Some(offset), ..SetAttr::default() };
                self.call(Request::SetAttr { node: self.node(), change }).expect("a size");
                self.cells[at..].fill(None);
                self.size = at;
            }
            10 => self.copy(source, at, span),
            _ => drop(self.machine.background(Time::default(), span).expect("the engine works")),
        }
    }

    fn write(&mut self, source: &mut Source<'_>, at: usize) {
        let Some(block) = self.blocks.next() else { return };
        let is_wide = self.unit > u64::from(BLOCK_BYTES) / CELLS as u64;
        let (mut extents, mut cell, mut block_cell) = (Vec::new(), at, 0u64);
        for _ in 0..=source.below(4) {
            let span = if is_wide { 1 } else { source.below(8) + 1 };
            let is_zeros = source.one_in(5) || is_wide;
            if cell + span > CELLS {
                break;
            }
            // A wide cell is more than an extent holds: its front alone is written, and zeros are what it shows anyway.
            let bytes = (span as u64 * self.unit).min(u64::from(u32::MAX));
            extents.push(Extent {
                offset: cell as u64 * self.unit,
                length: u32::try_from(bytes).expect("bounded above"),
                block: if is_zeros { ZERO_BLOCK } else { BlockId(block) },
                block_offset: if is_zeros {
                    0
                } else {
                    u32::try_from(block_cell * self.unit).expect("small")
                },
            });
            for index in 0..span {
                self.cells[cell + index] = (!is_zeros).then_some((block, block_cell + index as u64));
            }
            block_cell += span as u64;
            cell += span + source.below(3);
            if is_wide {
                break;
            }
        }
        let Some(last) = extents.last() else { return };
        let end = usize::try_from(last.end().div_ceil(self.unit)).expect("small");
        let is_short = last.end() % self.unit != 0;
        let blocks = vec![NewBlock { block: BlockId(block), raw_bytes: BLOCK_BYTES, stored_bytes: 9 }];
        let write = Write { extents, blocks, ..Write::default() };
        self.call(Request::Write { node: self.node(), write }).expect("written");
        self.grow(end, is_short);
    }

    /// The file reaches cell `end`; a size within a cell becomes a whole one.
    fn grow(&mut self, end: usize, is_short: bool) {
        if is_short && end > self.size {
            let change = SetAttr { size: Some(end as u64 * self.unit), ..SetAttr::default() };
            self.call(Request::SetAttr { node: self.node(), change }).expect("a size");
        }
        self.size = self.size.max(end);
    }

    fn fallocate(
        &mut self,
        mode: u32,
        offset: u64,
        length: u64,
        cells: std::ops::Range<usize>,
        fill: Option<Cell>,
    ) {
        self.call(Request::Fallocate { node: self.node(), mode, offset, length }).expect("allocated");
        if let Some(fill) = fill {
            self.cells[cells.clone()].fill(fill);
        }
        if mode & FALLOC_KEEP_SIZE == 0 {
            self.size = self.size.max(cells.end);
        }
    }

    /// Within the file, from anywhere to `at`.
    fn copy(&mut self, source: &mut Source<'_>, at: usize, span: usize) {
        let from = source.below(CELLS);
        let span = span.min(CELLS - at);
        let request = Request::CopyRange {
            source: self.node(),
            source_offset: from as u64 * self.unit,
            target: self.node(),
            target_offset: at as u64 * self.unit,
            length: span as u64 * self.unit,
        };
        let most = span.min(self.size.saturating_sub(from));
        let overlaps = from < at + most && at < from + most;
        match self.call(request) {
            Ok(Reply::Copied { length, .. }) => {
                assert!(!overlaps);
                assert!(length <= most as u64 * self.unit && (length > 0) == (most > 0));
                // A copy may end early, behind any extent: of allocated zeros in wide cells, which are zeros anyway.
                let is_short = length % self.unit != 0;
                assert!(
                    !is_short || self.unit > u64::from(BLOCK_BYTES),
                    "extents of whole cells are copied whole"
                );
                let reached = usize::try_from(length.div_ceil(self.unit)).expect("small");
                self.cells.copy_within(from..from + reached, at);
                if reached > 0 {
                    self.grow(at + reached, is_short);
                }
            }
            Err(Errno::EINVAL) => assert!(overlaps),
            Err(errno) => assert_eq!((errno, most > 0), (Errno::EOPNOTSUPP, true)),
            Ok(other) => panic!("{other:?}"),
        }
    }

    /// A window of the layout, from any byte on, says what the cells say.
    fn check(&mut self, source: &mut Source<'_>) {
        let attr = self.machine.attr(Ino(self.ino)).expect("the file");
        assert_eq!(attr.size, self.size as u64 * self.unit);
        let mut start = source.below(CELLS) as u64 * self.unit;
        let first = usize::try_from(start / self.unit).expect("small");
        let mut found: Vec<Cell> = vec![None; CELLS];
        let mut rounds = 0;
        while start != u64::MAX {
            let request = Request::ReadLayout { node: self.node(), start, end: u64::MAX };
            let Ok(Reply::Layout(layout)) = self.call(request) else { panic!("a layout") };
            assert!(layout.extents.is_sorted_by(|one, two| one.end() <= two.offset), "{layout:?}");
            for extent in &layout.extents {
                let mut at = extent.offset;
                while at < extent.end() && extent.block != ZERO_BLOCK {
                    let in_block = (u64::from(extent.block_offset) + at - extent.offset) / self.unit;
                    if let Some(cell) = found.get_mut(usize::try_from(at / self.unit).expect("small")) {
                        *cell = Some((extent.block.0, in_block));
                    }
                    at += self.unit;
                }
            }
            assert!(layout.end > start, "a layout gets on: {layout:?}");
            start = layout.end;
            rounds += 1;
            assert!(rounds < 1000);
        }
        // Behind the end nothing shows.
        found[self.size..].fill(None);
        let said: Vec<Cell> = self
            .cells
            .iter()
            .enumerate()
            .map(|(at, cell)| if at < self.size { *cell } else { None })
            .collect();
        assert_eq!(found[first..], said[first..], "cells from {first} on");
    }
}
