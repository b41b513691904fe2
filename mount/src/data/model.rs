//! A metadata server of maps, for tests: does what the protocol says at once, but answers late and out of order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use flexfs_uring::yield_now;
use flexfs_wire::attr::{Attr, S_IFREG, SetTime};
use flexfs_wire::block::{Index, PAGE_BYTES, check_pages, open_segment, page_range, seal};
use flexfs_wire::errno::Errno;
use flexfs_wire::extent::{Extent, Layout, ZERO_BLOCK};
use flexfs_wire::id::{BlockId, Commit, Ino};
use flexfs_wire::lease::Leases;
use flexfs_wire::limits::INLINE_BYTES_MAX;
use flexfs_wire::message::{
    Caller, FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, Reply, Request, StatFs, Write,
};
use flexfs_wire::seal::Node;
use flexfs_wire::settings::Compression;
use flexfs_wire::time::Time;

use super::layout::insert;
use super::server::Server;
use crate::cancel::Cancel;
use crate::cancel::or_cancel;
use crate::lease::Recalls;
use crate::store::{Piece, Place};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Model {
    world: Mutex<World>,
    recalls: Recalls,
}

/// What the server has, and what it was told to do wrong.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) files: BTreeMap<Ino, Inode>,
    pub(crate) blocks: BTreeMap<BlockId, Vec<u8>>,
    /// Blocks that came with their `Write`.
    pub(crate) carried: u64,
    /// Blocks that extents named once.
    named: BTreeSet<BlockId>,
    next_block: u64,
    pub(crate) commit: u64,
    /// What answers grant.
    pub(crate) leases: Leases,
    pub(crate) synced: u64,
    seed: u64,
    /// Most turns before and after a call is done.
    pub(crate) delay_max: u64,
    /// Most extents in one layout.
    pub(crate) window_extents: usize,
    /// Answers of the next `Write`s, in order, instead of doing them.
    pub(crate) write_errors: Vec<Errno>,
    /// The same for `PutBlock`.
    pub(crate) put_errors: Vec<Errno>,
    /// What is free, as it says.
    pub(crate) free_bytes: u64,
    /// Calls are not answered before this is lifted.
    pub(crate) away: bool,
    /// So many reads of blocks answer damaged bytes.
    pub(crate) damaged_reads: u32,
    /// How often what was called.
    pub(crate) writes: u32,
    pub(crate) inline_writes: u32,
    pub(crate) puts: u32,
    pub(crate) block_reads: u32,
    /// Segments come whole only.
    pub(crate) whole_only: bool,
    pub(crate) page_reads: u32,
    pub(crate) layout_reads: u32,
    pub(crate) closes: u32,
    /// Puts that run now, and most that ever did.
    pub(crate) putting: usize,
    pub(crate) putting_max: usize,
}

/// A file.
#[derive(Clone, Debug)]
pub(crate) struct Inode {
    pub(crate) attr: Attr,
    pub(crate) inline: Vec<u8>,
    pub(crate) extents: BTreeMap<u64, Extent>,
}

impl Model {
    /// With answers up to `delay_max` turns late.
    pub(crate) fn new(seed: u64, delay_max: u64) -> Self {
        let world = World { seed, delay_max, window_extents: 8, leases: Leases::ALL, ..World::default() };
        Self { world: Mutex::new(world), recalls: Recalls::default() }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Makes an empty file.
    pub(crate) fn make(&self, ino: u64) -> (Node, Attr) {
        let attr = Attr::new(Ino(ino), S_IFREG | 0o644, Time::default());
        let inode = Inode { attr, inline: Vec::new(), extents: BTreeMap::new() };
        self.world().files.insert(Ino(ino), inode);
        (Node::unsealed(Ino(ino)), attr)
    }

    /// The bytes of a file, read without any of the code under test.
    pub(crate) fn content(&self, ino: u64) -> Vec<u8> {
        let world = self.world();
        let inode = &world.files[&Ino(ino)];
        let mut bytes = vec![0; usize::try_from(inode.attr.size).unwrap()];
        assert!(inode.inline.len() <= bytes.len(), "the inline part ends within the file");
        bytes[..inode.inline.len()].copy_from_slice(&inode.inline);
        for extent in inode.extents.values() {
            let Some(room) = bytes.len().checked_sub(usize::try_from(extent.offset).unwrap()) else {
                continue;
            };
            let length = room.min(extent.length as usize);
            let out = &mut bytes[usize::try_from(extent.offset).unwrap()..][..length];
            if extent.block == ZERO_BLOCK {
                out.fill(0);
            } else {
                let raw = open(&world.blocks[&extent.block]);
                out.copy_from_slice(&raw[extent.block_offset as usize..][..length]);
            }
        }
        bytes
    }

    /// Lets other tasks run, now more, now fewer of them.
    async fn delay(&self) {
        let turns = {
            let mut world = self.world();
            world.seed =
                world.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (world.seed >> 33).checked_rem(world.delay_max + 1).unwrap_or(0)
        };
        for _ in 0..turns {
            yield_now().await;
        }
        while self.world().away {
            yield_now().await;
        }
    }
}

fn open(block: &[u8]) -> Vec<u8> {
    let index = Index::parse(block).unwrap();
    let mut raw = Vec::new();
    for (number, segment) in (0..).zip(index.segments()) {
        let mut bytes = vec![0; segment.raw_bytes as usize];
        open_segment(segment, &block[index.stored_range(number, 1).unwrap()], &mut bytes).unwrap();
        raw.append(&mut bytes);
    }
    raw
}

impl Server for Model {
    type Change = ();

    async fn call(&self, _: Caller, request: Request, cancel: Option<&Cancel>) -> Result<Reply, Errno> {
        or_cancel(self.delay(), cancel).await?;
        let result = self.world().apply(request);
        or_cancel(self.delay(), cancel).await?;
        result
    }

    async fn call_leased(
        &self,
        caller: Caller,
        request: Request,
        cancel: Option<&Cancel>,
    ) -> (Result<Reply, Errno>, Leases) {
        (self.call(caller, request, cancel).await, self.world().leases)
    }

    fn recalls(&self) -> &Recalls {
        &self.recalls
    }

    fn call_later(&self, _: Caller, request: Request) {
        assert!(matches!(request, Request::Close { count: 1, .. }));
        self.world().closes += 1;
    }

    async fn next_block(&self) -> Result<BlockId, Errno> {
        let mut world = self.world();
        world.next_block += 1;
        Ok(BlockId(world.next_block))
    }

    async fn put_block(&self, block: BlockId, encoded: Vec<u8>) -> Result<(), Errno> {
        {
            let mut world = self.world();
            world.putting += 1;
            world.putting_max = world.putting_max.max(world.putting);
        }
        self.delay().await;
        let result = {
            let mut world = self.world();
            world.puts += 1;
            world.putting -= 1;
            Index::parse(&encoded).unwrap();
            if world.put_errors.is_empty() {
                world.blocks.insert(block, encoded);
                Ok(())
            } else {
                Err(world.put_errors.remove(0))
            }
        };
        self.delay().await;
        result
    }

    async fn read_block(
        &self,
        _: Node,
        block: BlockId,
        first: u32,
        places: &mut [Place<'_>],
        cancel: Option<&Cancel>,
    ) -> Result<(), Errno> {
        or_cancel(self.delay(), cancel).await?;
        let result = self.world().read_block(block, first, places);
        or_cancel(self.delay(), cancel).await?;
        result
    }

    fn gives_pages(&self) -> bool {
        !self.world().whole_only
    }

    async fn read_pages(&self, _: Node, piece: Piece<'_>, cancel: Option<&Cancel>) -> Result<bool, Errno> {
        or_cancel(self.delay(), cancel).await?;
        let result = self.world().read_pages(piece);
        or_cancel(self.delay(), cancel).await?;
        result
    }

    fn last_commit(&self) -> Commit {
        Commit(self.world().commit)
    }

    fn generation(&self) -> u64 {
        0
    }

    fn is_lost(&self, _: Commit, _: u64) -> bool {
        false
    }

    async fn sync_to(&self, commit: Commit, cancel: Option<&Cancel>) -> Result<(), Errno> {
        or_cancel(self.delay(), cancel).await?;
        let mut world = self.world();
        world.synced = world.synced.max(commit.0);
        Ok(())
    }
}

impl World {
    fn now(&self) -> Time {
        let (secs, nanos) = flexfs_uring::clock::wall_parts();
        Time { secs, nanos }
    }

    fn read_pages(&mut self, piece: Piece<'_>) -> Result<bool, Errno> {
        let Piece { block, segment: number, range, out, whole } = piece;
        let bytes = self.blocks.get(&block).ok_or(Errno::ENOENT)?;
        let index = Index::parse(bytes).unwrap();
        let segment = index.select(number, 1).map_err(|_| Errno::EINVAL)?[0];
        let Some(checks) = index.page_checks(number) else {
            return self.read_block(block, number, &mut [Place::Buffer(whole)]).map(|()| false);
        };
        let page = PAGE_BYTES as usize;
        let (first, end) = (range.start / page, range.end.div_ceil(page));
        let first = u32::try_from(first).unwrap();
        let pages =
            page_range(&segment, first, u32::try_from(end).unwrap() - first).map_err(|_| Errno::EIO)?;
        let mut stored = bytes[index.stored_range(number, 1).unwrap()][pages.clone()].to_vec();
        if self.damaged_reads > 0 {
            self.damaged_reads -= 1;
            stored[0] ^= 1;
        }
        check_pages(&segment, checks, first, &stored).map_err(|_| Errno::EIO)?;
        let skip = range.start - pages.start;
        out.copy_from_slice(&stored[skip..skip + out.len()]);
        self.page_reads += 1;
        Ok(true)
    }

    fn read_block(&mut self, block: BlockId, first: u32, places: &mut [Place<'_>]) -> Result<(), Errno> {
        self.block_reads += 1;
        let bytes = self.blocks.get(&block).ok_or(Errno::ENOENT)?;
        let index = Index::parse(bytes).unwrap();
        for (place, number) in places.iter_mut().zip(first..) {
            let segment = index.select(number, 1).map_err(|_| Errno::EINVAL)?[0];
            let mut stored = bytes[index.stored_range(number, 1).unwrap()].to_vec();
            if self.damaged_reads > 0 {
                self.damaged_reads -= 1;
                stored[0] ^= 1;
            }
            let room = place.room(segment.raw_bytes).ok_or(Errno::EIO)?;
            open_segment(&segment, &stored, room).map_err(|_| Errno::EIO)?;
        }
        Ok(())
    }

    pub(crate) fn apply(&mut self, request: Request) -> Result<Reply, Errno> {
        match request {
            Request::GetAttr { node } | Request::Acquire { node } => {
                Ok(Reply::Attr(self.file(node.ino)?.attr))
            }
            Request::StatFs => Ok(Reply::StatFs(StatFs {
                bytes_total: u64::MAX,
                bytes_free: self.free_bytes,
                inodes_total: 0,
                inodes_free: 0,
            })),
            Request::ReadLayout { node, start, end } => {
                self.layout_reads += 1;
                let most = self.window_extents;
                Ok(Reply::Layout(self.file(node.ino)?.layout(start, end, most)))
            }
            Request::Open { node, truncate, .. } => {
                if truncate {
                    let now = self.now();
                    self.change(node.ino, now, |inode| inode.cut(0))?;
                }
                let inode = self.file(node.ino)?;
                let layout = (inode.extents.len() < 3).then(|| inode.layout(0, u64::MAX, 3));
                Ok(Reply::Opened { attr: inode.attr, layout })
            }
            Request::SetAttr { node, change } => {
                let now = self.now();
                if let Some(size) = change.size {
                    self.change(node.ino, now, |inode| inode.cut(size))?;
                }
                let inode = self.file(node.ino)?;
                if let Some(SetTime::At(time)) = change.mtime {
                    inode.attr.mtime = time;
                }
                if let Some(mode) = change.mode {
                    inode.attr.mode = S_IFREG | mode;
                }
                Ok(Reply::Attr(inode.attr))
            }
            Request::Write { node, write } => self.write(node.ino, write).map(Reply::Attr),
            Request::Fallocate { node, mode, offset, length } => {
                let now = self.now();
                self.change(node.ino, now, |inode| inode.allocate(mode, offset, length)).map(Reply::Attr)
            }
            Request::CopyRange { source, source_offset, target, target_offset, length } => {
                let mut from = self.file(source.ino)?.clone();
                self.spill(&mut from);
                let length = length.min(from.attr.size.saturating_sub(source_offset));
                let now = self.now();
                let attr = self.change(target.ino, now, |inode| {
                    inode.copy(&from, source_offset, target_offset, length);
                })?;
                Ok(Reply::Copied { length, attr })
            }
            other => panic!("not a request of file data: {other:?}"),
        }
    }

    /// Inline bytes become a block, so that extents can share them.
    fn spill(&mut self, inode: &mut Inode) {
        let Some(length) = u32::try_from(inode.inline.len()).ok().filter(|length| *length > 0) else {
            return;
        };
        self.next_block += 1;
        let block = BlockId(self.next_block);
        let mut bytes = Vec::new();
        seal(&inode.inline, Compression::Lz4, &mut bytes).unwrap();
        self.blocks.insert(block, bytes);
        let above = std::mem::take(&mut inode.extents);
        inode.extents.insert(0, Extent { offset: 0, length, block, block_offset: 0 });
        for extent in above.into_values() {
            insert(&mut inode.extents, extent);
        }
    }

    fn file(&mut self, ino: Ino) -> Result<&mut Inode, Errno> {
        self.files.get_mut(&ino).ok_or(Errno::ESTALE)
    }

    fn change(&mut self, ino: Ino, time: Time, change: impl FnOnce(&mut Inode)) -> Result<Attr, Errno> {
        let inode = self.file(ino)?;
        change(inode);
        inode.attr.version += 1;
        inode.attr.mtime = time;
        inode.attr.ctime = inode.attr.ctime.max(time);
        let mapped: u64 = inode.extents.values().map(|extent| u64::from(extent.length)).sum();
        inode.attr.blocks = (mapped + inode.inline.len() as u64).div_ceil(512);
        let attr = inode.attr;
        self.commit += 1;
        // Retention 0: what nobody refers to is gone at once.
        let files = &self.files;
        let live = |block: BlockId| {
            files.values().any(|inode| inode.extents.values().any(|extent| extent.block == block))
        };
        let named = self.blocks.keys().copied().filter(|block| live(*block)).collect::<Vec<_>>();
        self.named.extend(named);
        let gone: Vec<BlockId> = self.named.iter().copied().filter(|block| !live(*block)).collect();
        for block in gone {
            self.blocks.remove(&block);
            self.named.remove(&block);
        }
        Ok(attr)
    }

    fn write(&mut self, ino: Ino, write: Write) -> Result<Attr, Errno> {
        self.writes += 1;
        if !self.write_errors.is_empty() {
            return Err(self.write_errors.remove(0));
        }
        let time = write.time.map_or_else(|| self.now(), |time| time.min(self.now()));
        if let Some(inline) = &write.inline {
            self.inline_writes += 1;
            let end = inline.offset as usize + inline.bytes.len();
            if !self.file(ino)?.extents.is_empty() || end > INLINE_BYTES_MAX {
                return Err(Errno::EAGAIN);
            }
        }
        assert!(write.extents.windows(2).all(|pair| pair[0].end() <= pair[1].offset), "ascending, apart");
        if let Some(carried) = write.carried {
            assert!(write.extents.iter().any(|extent| extent.block == carried.block), "it is used");
            assert!(self.blocks.insert(carried.block, carried.bytes).is_none(), "it is new");
            self.carried += 1;
        }
        for block in &write.blocks {
            assert_eq!(self.blocks[&block.block].len(), block.stored_bytes as usize, "stored first");
            if !write.extents.iter().any(|extent| extent.block == block.block) {
                // Written all over by others of this write.
                assert!(write.blocks.len() > 1);
                self.named.insert(block.block);
            }
        }
        for extent in &write.extents {
            assert!(write.blocks.iter().any(|block| block.block == extent.block
                && u64::from(extent.block_offset) + u64::from(extent.length) <= u64::from(block.raw_bytes)));
        }
        self.change(ino, time, |inode| {
            if let Some(inline) = write.inline {
                let start = inline.offset as usize;
                let end = start + inline.bytes.len();
                if inode.inline.len() < end {
                    inode.inline.resize(end, 0);
                }
                inode.inline[start..end].copy_from_slice(&inline.bytes);
                inode.attr.size = inode.attr.size.max(end as u64);
            }
            for extent in write.extents {
                insert(&mut inode.extents, extent);
                inode.attr.size = inode.attr.size.max(extent.end());
            }
        })
    }
}

impl Inode {
    fn layout(&self, start: u64, end: u64, most: usize) -> Layout {
        let mut extents: Vec<Extent> = self
            .extents
            .values()
            .filter(|extent| extent.end() > start && extent.offset < end)
            .copied()
            .collect();
        let mut described = end;
        if extents.len() > most {
            extents.truncate(most);
            described = extents.last().map_or(end, Extent::end).min(end).max(start + 1);
        } else if self.extents.values().all(|extent| extent.offset < end) {
            described = u64::MAX;
        }
        Layout { inline: self.inline.clone(), extents, start, end: described, version: self.attr.version }
    }

    fn cut(&mut self, size: u64) {
        self.inline.truncate(usize::try_from(size).unwrap_or(usize::MAX));
        self.erase(size, u64::MAX);
        self.attr.size = size;
    }

    /// Extents and inline bytes of a range become a hole.
    fn erase(&mut self, start: u64, end: u64) {
        // An extent over it, taken out again, leaves the parts on both sides.
        let mut at = start;
        while at < end && self.extents.last_key_value().is_some_and(|(_, extent)| extent.end() > at) {
            let length = u32::try_from(end - at).unwrap_or(u32::MAX);
            insert(&mut self.extents, Extent { offset: at, length, block: ZERO_BLOCK, block_offset: 0 });
            self.extents.remove(&at);
            at += u64::from(length);
        }
        let inline = self.inline.len() as u64;
        if start < inline {
            let range = usize::try_from(start).unwrap()..usize::try_from(end.min(inline)).unwrap();
            self.inline[range].fill(0);
        }
    }

    fn allocate(&mut self, mode: u32, offset: u64, length: u64) {
        let end = offset + length;
        if mode & FALLOC_PUNCH_HOLE != 0 {
            self.erase(offset, end);
        } else if mode & FALLOC_ZERO_RANGE != 0 {
            self.erase(offset, end);
            let length = u32::try_from(length).unwrap();
            insert(&mut self.extents, Extent { offset, length, block: ZERO_BLOCK, block_offset: 0 });
        }
        if mode & FALLOC_KEEP_SIZE == 0 {
            self.attr.size = self.attr.size.max(end);
        }
    }

    fn copy(&mut self, from: &Self, source: u64, target: u64, length: u64) {
        if length == 0 {
            return;
        }
        self.erase(target, target + length);
        for extent in from.extents.values() {
            let (start, end) = (extent.offset.max(source), extent.end().min(source + length));
            if start < end {
                let part = Extent {
                    offset: target + (start - source),
                    length: u32::try_from(end - start).unwrap(),
                    block: extent.block,
                    block_offset: if extent.block == ZERO_BLOCK {
                        0
                    } else {
                        extent.block_offset + u32::try_from(start - extent.offset).unwrap()
                    },
                };
                insert(&mut self.extents, part);
            }
        }
        self.attr.size = self.attr.size.max(target + length);
    }
}
