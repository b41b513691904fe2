//! The extent map of a file.
//!
//! Stored extents of a file never overlap. Each lies under the offset just past it, so the first one that reaches into a
//! range is found by a forward scan. A range that held very many extents is not cleared at once: it is declared dead with
//! the data version of the moment, and a background walk removes its extents (`background`). New extents in it carry
//! a higher version and live. Bytes count as allocated until their extent is gone.

use std::ops::{ControlFlow, Range};

use flexfs_wire::errno::Errno;
use flexfs_wire::extent::ZERO_BLOCK;
use flexfs_wire::id::{BlockId, Ino};

use super::machine::Namespace;
use super::maps::{MAP_EXTENTS_MAX, Map};
use super::record::{DeadRange, Inode, StoredExtent};
use super::txn::{Effect, Txn};
use crate::engine::Store;
use crate::engine::key::{self, Tag};

/// Extents read before they are looked at.
const SCANNED_AT_ONCE: usize = 1_024;
/// Longest extent of allocated zeros: what a `u32` holds, in whole pages.
const ZERO_EXTENT_BYTES_MAX: u64 = 0xffff_f000;

impl<S: Store> Namespace<S> {
    /// Stored extents that reach into `from .. to`, ascending, dead ones too; at most `count`.
    pub(super) fn stored_extents(
        &self,
        txn: &Txn,
        ino: Ino,
        from: u64,
        to: u64,
        count: usize,
    ) -> Result<Vec<StoredExtent>, Errno> {
        let Some(first) = from.checked_add(1).filter(|first| *first <= to) else { return Ok(Vec::new()) };
        let pending = txn.extents.range((ino, first)..=(ino, u64::MAX));
        let mut pending: Vec<StoredExtent> =
            pending.filter_map(|(_, extent)| *extent).filter(|extent| extent.start < to).collect();
        let mut extents = self.committed_extents(txn, ino, first..to, count)?;
        extents.append(&mut pending);
        extents.sort_unstable_by_key(|extent| extent.start);
        extents.truncate(count);
        Ok(extents)
    }

    /// Extents of the store that end in or behind `range` and begin before its end, but those that `txn` has changed.
    pub(super) fn committed_extents(
        &self,
        txn: &Txn,
        ino: Ino,
        range: Range<u64>,
        count: usize,
    ) -> Result<Vec<StoredExtent>, Errno> {
        let mut maps = self.maps.borrow_mut();
        if maps.get(ino).is_none() {
            let (key_from, key_to) = key::rows(Tag::Extent, ino.0);
            let extents = self.scan_extents((&key_from, &key_to), u64::MAX, MAP_EXTENTS_MAX + 1, |_| true)?;
            let is_large = extents.len() > MAP_EXTENTS_MAX;
            let whole = || Map::Whole(extents.into_iter().map(|extent| (extent.end, extent)).collect());
            maps.insert(ino, if is_large { Map::Large } else { whole() });
        }
        let is_wanted = |extent: &StoredExtent| !txn.extents.contains_key(&(ino, extent.end));
        match maps.get(ino) {
            Some(Map::Whole(map)) => {
                let reach_in = map.range(range.start..).map(|(_, extent)| *extent);
                let reach_in = reach_in.take_while(|extent| extent.start < range.end);
                Ok(reach_in.filter(is_wanted).take(count).collect())
            }
            Some(Map::Large) | None => {
                let keys = (&*key::extent(ino, range.start), &*key::rows(Tag::Extent, ino.0).1);
                self.scan_extents(keys, range.end, count, is_wanted)
            }
        }
    }

    /// Extents between two keys of the store, ascending, at most `count` of the wanted ones.
    pub(super) fn scan_extents(
        &self,
        (from, to): (&[u8], &[u8]),
        start_max: u64,
        count: usize,
        is_wanted: impl Fn(&StoredExtent) -> bool,
    ) -> Result<Vec<StoredExtent>, Errno> {
        let mut extents = Vec::new();
        let mut result = Ok(());
        self.store.scan(from, to, &mut |key, value| match StoredExtent::decode(
            key::number(key, 9).unwrap_or(0),
            value,
        ) {
            Ok(extent) if extent.start < start_max && extents.len() < count => {
                if is_wanted(&extent) {
                    extents.push(extent);
                }
                ControlFlow::Continue(())
            }
            Ok(_) => ControlFlow::Break(()),
            Err(errno) => {
                result = Err(errno);
                ControlFlow::Break(())
            }
        })?;
        result.map(|()| extents)
    }

    /// Whether extents that are not dead reach into `from .. to`.
    pub(super) fn has_living(&self, txn: &Txn, inode: &Inode, from: u64, to: u64) -> Result<bool, Errno> {
        if inode.extents == 0 {
            return Ok(false);
        }
        let dead = self.dead_ranges(txn, inode)?;
        let mut from = from;
        loop {
            let extents = self.stored_extents(txn, inode.ino, from, to, SCANNED_AT_ONCE)?;
            if extents.iter().any(|extent| !extent.is_dead(&dead)) {
                return Ok(true);
            }
            match extents.last() {
                Some(last) if extents.len() == SCANNED_AT_ONCE => from = last.end,
                _ => return Ok(false),
            }
        }
    }

    /// Empties `from .. to`: extents in it are removed, those that reach out are cut.
    pub(super) fn clear_extents(
        &self,
        txn: &mut Txn,
        inode: &mut Inode,
        from: u64,
        to: u64,
    ) -> Result<(), Errno> {
        if inode.extents == 0 {
            return Ok(());
        }
        let extents = self.stored_extents(txn, inode.ino, from, to, usize::MAX)?;
        let dead = self.dead_ranges(txn, inode)?;
        for extent in extents {
            self.remove_extent(txn, inode, &extent)?;
            if extent.is_dead(&dead) {
                continue;
            }
            if extent.start < from {
                self.insert_extent(txn, inode, extent.clip(extent.start, from))?;
            }
            if extent.end > to {
                self.insert_extent(txn, inode, extent.clip(to, extent.end))?;
            }
        }
        Ok(())
    }

    /// As [`Self::clear_extents`], but in bounded time: many extents are declared dead and removed later.
    /// The caller raises the version afterwards.
    pub(super) fn kill_extents(
        &self,
        txn: &mut Txn,
        inode: &mut Inode,
        from: u64,
        to: u64,
    ) -> Result<(), Errno> {
        let max = self.bounds.cleared_at_once;
        let is_small = inode.extents <= max as u64;
        if is_small || self.stored_extents(txn, inode.ino, from, to, max + 1)?.len() <= max {
            return self.clear_extents(txn, inode, from, to);
        }
        // After this no extent crosses a border of the range.
        if from > 0 {
            self.clear_extents(txn, inode, from, from + 1)?;
        }
        if to < u64::MAX {
            self.clear_extents(txn, inode, to - 1, to)?;
        }
        let mut dead = self.dead_ranges(txn, inode)?;
        let range = DeadRange { from, to, version: inode.version };
        // The new range has the highest version: it holds all that an older one within it holds.
        dead.retain(|older| older.from < from || to < older.to);
        dead.push(range);
        // Each stands for very many extents that calls have made: clearing one now is paid for.
        if dead.len() > self.bounds.dead_ranges {
            let oldest = dead.remove(0);
            txn.dead.insert(inode.ino, dead.clone());
            self.remove_dead(txn, inode, &[oldest], oldest.from, usize::MAX)?;
        }
        if !inode.dead {
            txn.effects.push(Effect::Dying(inode.ino));
        }
        inode.dead = true;
        txn.dead.insert(inode.ino, dead);
        Ok(())
    }

    /// Removes extents of dead ranges from `from` on, looking at no more than `budget` extents.
    /// Gives where to go on, `None` at the end.
    pub(super) fn remove_dead(
        &self,
        txn: &mut Txn,
        inode: &mut Inode,
        dead: &[DeadRange],
        from: u64,
        budget: usize,
    ) -> Result<Option<u64>, Errno> {
        let to = dead.iter().map(|range| range.to).max().unwrap_or(0);
        let extents = self.stored_extents(txn, inode.ino, from, to, budget)?;
        let next = if extents.len() < budget { None } else { extents.last().map(|extent| extent.end) };
        for extent in extents.iter().filter(|extent| extent.is_dead(dead)) {
            self.remove_extent(txn, inode, extent)?;
        }
        Ok(next)
    }

    /// Adds an extent where there is none.
    pub(super) fn insert_extent(
        &self,
        txn: &mut Txn,
        inode: &mut Inode,
        extent: StoredExtent,
    ) -> Result<(), Errno> {
        self.count_live(txn, inode.ino, extent.block, extent.length(), true)?;
        inode.extents += 1;
        inode.extent_bytes += extent.length();
        txn.state.bytes += extent.length();
        txn.extents.insert((inode.ino, extent.end), Some(extent));
        Ok(())
    }

    /// Adds allocated zeros where there is nothing.
    pub(super) fn insert_zeros(
        &self,
        txn: &mut Txn,
        inode: &mut Inode,
        from: u64,
        to: u64,
    ) -> Result<(), Errno> {
        let mut start = from;
        while start < to {
            let end = to.min(start.saturating_add(ZERO_EXTENT_BYTES_MAX));
            let extent =
                StoredExtent { start, end, block: ZERO_BLOCK, block_offset: 0, version: inode.version };
            self.insert_extent(txn, inode, extent)?;
            start = end;
        }
        Ok(())
    }

    pub(super) fn remove_extent(
        &self,
        txn: &mut Txn,
        inode: &mut Inode,
        extent: &StoredExtent,
    ) -> Result<(), Errno> {
        self.count_live(txn, inode.ino, extent.block, extent.length(), false)?;
        inode.extents = inode.extents.saturating_sub(1);
        inode.extent_bytes = inode.extent_bytes.saturating_sub(extent.length());
        txn.state.bytes = txn.state.bytes.saturating_sub(extent.length());
        txn.extents.insert((inode.ino, extent.end), None);
        Ok(())
    }

    /// Live bytes of a block, in all and in a file that is not its first one.
    fn count_live(
        &self,
        txn: &mut Txn,
        ino: Ino,
        block: BlockId,
        bytes: u64,
        more: bool,
    ) -> Result<(), Errno> {
        if block == ZERO_BLOCK {
            return Ok(());
        }
        let change = |live: u64| if more { live + bytes } else { live.saturating_sub(bytes) };
        let record = self.block_mut(txn, block)?;
        record.live = change(record.live);
        if record.first != ino {
            let live = self.share(txn, block, ino)?;
            txn.shares.insert((block, ino), change(live));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fixture, ROOT};
    use super::*;

    /// A file with `count` extents of 100 bytes, one each 8 KiB.
    fn scattered(t: &mut Fixture, count: u64) -> Ino {
        let file = t.file(ROOT, "file");
        let ranges: Vec<(u64, u32)> = (0..count).map(|index| (index * 8192, 100)).collect();
        for part in ranges.chunks(4000) {
            t.write_ranges(file, part);
        }
        file
    }

    #[test]
    fn a_cut_of_many_extents_shows_at_once_and_is_done_later() {
        let mut t = Fixture::new();
        let file = scattered(&mut t, 5_000);
        t.truncate(file, 50).unwrap();
        t.truncate(file, 1 << 40).unwrap();
        assert_eq!(t.extents(file), [(0, 50, 0)], "nothing of the old shows");
        assert!(t.attr(file).blocks > 1, "the space is freed later");
        t.verify();
        // New extents among the dead ones live.
        t.write_ranges(file, &[(8192, 10), (40_960, 100), (1 << 30, 7)]);
        t.verify();
        t.settle();
        assert_eq!(t.extents(file), [(0, 50, 0), (8192, 10, 0), (40_960, 100, 10), (1 << 30, 7, 110)]);
        assert_eq!((t.attr(file).blocks, t.ns.garbage()), (1, Ok(1)));
        t.verify();
    }

    #[test]
    fn dead_ranges_survive_a_crash_and_pile_up() {
        let mut t = Fixture::new();
        let file = scattered(&mut t, 5_000);
        t.truncate(file, 4_000 * 8192 + 50).unwrap();
        t.truncate(file, 100).unwrap();
        let ranges: Vec<(u64, u32)> = (0..3_000u64).map(|index| (index * 8192 + 4096, 10)).collect();
        t.write_ranges(file, &ranges);
        t.truncate(file, 10_000).unwrap();
        t.verify();
        let mut t = t.crash(0);
        t.ns.finish_recovery(t.context.now).unwrap();
        assert_eq!(t.extents(file), [(0, 100, 0), (4096, 10, 0)]);
        t.settle();
        assert_eq!(t.extents(file), [(0, 100, 0), (4096, 10, 0)]);
        assert_eq!(t.attr(file).blocks, 1);
        t.verify();
    }

    #[test]
    fn a_small_file_again_may_be_inline_before_the_dead_are_gone() {
        let mut t = Fixture::new();
        let file = scattered(&mut t, 3_000);
        t.truncate(file, 0).unwrap();
        t.write_inline(file, 0, b"inline").unwrap();
        t.verify();
        t.settle();
        assert_eq!(t.layout(file, 0, 100).inline, b"inline");
        t.remove(ROOT, "file", false).unwrap();
        t.settle();
        assert_eq!(t.ns.figures().bytes, 0);
        t.verify();
    }
}
