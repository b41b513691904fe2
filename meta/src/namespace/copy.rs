//! `copy_file_range(2)`: the target's extents refer to the source's blocks, no data moves.

use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::limits::{FILE_BYTES_MAX, INLINE_BYTES_MAX};
use flexfs_wire::message::{Inline, Reply};

use super::context::Context;
use super::machine::Namespace;
use super::record::{Inode, StoredExtent};
use super::txn::Txn;
use crate::engine::Store;

/// A range to copy: offset in the source, in the target, length.
#[derive(Clone, Copy)]
struct Span {
    from: u64,
    to: u64,
    length: u64,
}

impl<S: Store> Namespace<S> {
    pub(super) fn copy_range(
        &mut self,
        context: &Context,
        txn: &mut Txn,
        (source, from): (Ino, u64),
        (target, to): (Ino, u64),
        length: u64,
    ) -> Result<Reply, Errno> {
        let source = self.file(txn, source)?;
        let mut target = self.file(txn, target)?;
        let length = length.min(source.size.saturating_sub(from));
        let mut span = Span { from, to, length };
        if source.ino == target.ino && from < to.saturating_add(length) && to < from.saturating_add(length) {
            return Err(Errno::EINVAL);
        }
        if length == 0 {
            return Ok(Reply::Copied { length: 0, attr: target.attr() });
        }
        if to.checked_add(length).is_none_or(|end| end > FILE_BYTES_MAX) {
            return Err(Errno::EFBIG);
        }
        if from < u64::from(source.inline_bytes) {
            self.copy_inline(txn, &source, &mut target, span)?;
        } else {
            self.share_extents(txn, &source, &mut target, &mut span)?;
        }
        target.size = target.size.max(to + span.length);
        if context.kills_privileges() {
            target.kill_privileges();
        }
        txn.set_inode(target);
        Ok(Reply::Copied { length: span.length, attr: target.attr() })
    }

    /// A small file into a small file. Anything else with inline bytes in it is the client's to copy (`EOPNOTSUPP`).
    fn copy_inline(
        &mut self,
        txn: &mut Txn,
        source: &Inode,
        target: &mut Inode,
        span: Span,
    ) -> Result<(), Errno> {
        let end = span.to + span.length;
        let reached = span.from + span.length;
        if end > INLINE_BYTES_MAX as u64 || self.has_living(txn, source, span.from, reached)? {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut bytes = self.data(txn, source.ino)?;
        bytes.resize(usize::try_from(span.from + span.length).unwrap_or(0), 0);
        let bytes = bytes.split_off(usize::try_from(span.from).unwrap_or(0));
        let offset = u32::try_from(span.to).unwrap_or(u32::MAX);
        match self.write_inline(txn, target, &Inline { offset, bytes }) {
            Err(Errno::EAGAIN) => return Err(Errno::EOPNOTSUPP),
            other => other?,
        }
        target.touch_data(txn.now);
        Ok(())
    }

    fn share_extents(
        &mut self,
        txn: &mut Txn,
        source: &Inode,
        target: &mut Inode,
        span: &mut Span,
    ) -> Result<(), Errno> {
        let (from, to) = (span.from, span.to);
        let (shared, reached) = self.some_extents(txn, source, from, from + span.length)?;
        span.length = span.length.min(reached - from);
        let (_, reached) = self.some_extents(txn, target, to, to + span.length)?;
        span.length = span.length.min(reached - to);
        self.clear_extents(txn, target, to, to + span.length)?;
        // Under the source's holes the target must read as zeros.
        self.clear_inline(txn, target, to, to + span.length)?;
        target.touch_data(txn.now);
        for extent in shared.into_iter().filter(|extent| extent.start < from + span.length) {
            let part = extent.clip(from, from + span.length);
            let (start, end) = (part.start - from + to, part.end - from + to);
            self.insert_extent(txn, target, StoredExtent { start, end, version: target.version, ..part })?;
        }
        Ok(())
    }

    /// Extents of a range, and how far they reach when there are more than one call copies. Only living ones count: a
    /// replay, which may find more dead ones, must come equally far.
    fn some_extents(
        &self,
        txn: &Txn,
        inode: &Inode,
        from: u64,
        to: u64,
    ) -> Result<(Vec<StoredExtent>, u64), Errno> {
        let dead = self.dead_ranges(txn, inode)?;
        let count = if dead.is_empty() { self.bounds.copied_extents } else { usize::MAX };
        let mut extents = self.stored_extents(txn, inode.ino, from, to, count)?;
        extents.retain(|extent| !extent.is_dead(&dead));
        extents.truncate(self.bounds.copied_extents);
        let is_cut = extents.len() == self.bounds.copied_extents;
        let reached = extents.last().filter(|_| is_cut).map_or(to, |last| last.end.min(to));
        Ok((extents, reached))
    }
}

#[cfg(test)]
mod tests {
    use flexfs_wire::message::Request;

    use super::super::fixture::{Fixture, ROOT};
    use super::*;

    fn copy(t: &mut Fixture, source: (Ino, u64), target: (Ino, u64), length: u64) -> Result<u64, Errno> {
        let request = Request::CopyRange {
            source: Fixture::node(source.0),
            source_offset: source.1,
            target: Fixture::node(target.0),
            target_offset: target.1,
            length,
        };
        match t.call(request)? {
            Reply::Copied { length, .. } => Ok(length),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn extents_are_shared_and_blocks_live_as_long_as_any_file() {
        let mut t = Fixture::new();
        let (source, target) = (t.file(ROOT, "source"), t.file(ROOT, "target"));
        let block = t.write_ranges(source, &[(0, 100), (200, 100)]);
        t.write_inline(target, 0, &[b'x'; 400]).unwrap();
        assert_eq!(t.ns.check_read_block(t.context.now, target, block), Err(Errno::ENOENT));
        assert_eq!(copy(&mut t, (source, 50), (target, 100), 1000), Ok(250));
        assert_eq!(t.extents(target), [(100, 50, 50), (250, 100, 100)]);
        let inline = t.layout(target, 0, 1).inline;
        assert_eq!(inline[150..250], [0; 100], "the source's hole");
        assert_eq!((inline[99], inline[399]), (b'x', b'x'));
        assert_eq!((t.ns.check_read_block(t.context.now, target, block), t.attr(target).size), (Ok(()), 400));
        t.verify();
        t.remove(ROOT, "source", false).unwrap();
        assert_eq!(t.ns.garbage(), Ok(0));
        t.verify();
        t.remove(ROOT, "target", false).unwrap();
        assert_eq!(t.ns.garbage(), Ok(1));
        t.verify();
    }

    #[test]
    fn small_files_are_copied_and_mixed_ones_are_the_clients() {
        let mut t = Fixture::new();
        let (source, target) = (t.file(ROOT, "source"), t.file(ROOT, "target"));
        t.write_inline(source, 0, b"0123456789").unwrap();
        t.truncate(source, 20).unwrap();
        assert_eq!(copy(&mut t, (source, 5), (target, 3), 100), Ok(15));
        assert_eq!(t.layout(target, 0, 1).inline, b"\0\0\x0056789\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(t.attr(target).size, 18);
        assert_eq!(copy(&mut t, (source, 20), (target, 0), 100), Ok(0));
        assert_eq!(copy(&mut t, (source, 0), (source, 5), 10), Err(Errno::EINVAL));
        assert_eq!(copy(&mut t, (source, 0), (source, 10), 10), Ok(10));
        assert_eq!(copy(&mut t, (source, 0), (target, 1 << 20), 10), Err(Errno::EOPNOTSUPP));
        assert_eq!(copy(&mut t, (source, 0), (target, u64::MAX), 10), Err(Errno::EFBIG));
        assert_eq!(copy(&mut t, (source, 0), (ROOT, 0), 10), Err(Errno::EISDIR));
        t.verify();
    }

    #[test]
    fn within_a_file_and_in_parts() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let ranges: Vec<(u64, u32)> = (0..4_000u64).map(|index| (index * 100, 50)).collect();
        t.write_ranges(file, &ranges);
        t.write_ranges(file, &[(400_000, 50), (400_100, 50), (400_200, 50)]);
        let ranges: Vec<(u64, u32)> = (0..1_000u64).map(|index| (401_000 + index * 100, 50)).collect();
        t.write_ranges(file, &ranges);
        let length = t.attr(file).size;
        let first = copy(&mut t, (file, 0), (file, 1 << 30), length).unwrap();
        assert!(first < length);
        let second = copy(&mut t, (file, first), (file, (1 << 30) + first), length - first).unwrap();
        assert_eq!(first + second, length);
        let extents = t.layout(file, 1 << 30, u64::MAX).extents;
        assert_eq!(extents[0].offset, 1 << 30);
        t.verify();
    }
}
