//! Extents, inline parts, attributes, blocks, garbage, counters.

use flexfs_wire::attr::S_IFLNK;
use flexfs_wire::errno::Errno;
use flexfs_wire::extent::ZERO_BLOCK;
use flexfs_wire::id::{BlockId, Ino};
use flexfs_wire::limits::{FILE_BYTES_MAX, INLINE_BYTES_MAX};

use super::facts::{BlockFacts, Facts, InodeFacts, each};
use super::report::Report;
use crate::engine::Store;
use crate::engine::key::{self, Tag};
use crate::namespace::record::{BlockRecord, DeadRange, StoredExtent, decode};

/// Blocks and dead ranges are read before the extents that refer to them.
pub(super) fn check_blocks(store: &impl Store, facts: &mut Facts, report: &mut Report) -> Result<(), Errno> {
    each(store, Tag::Block, &mut |row, value| {
        let block = BlockId(key::number(row, 1).unwrap_or(0));
        let Ok(record) = decode::<BlockRecord>(value) else {
            report.problem(|| format!("block {block}: its row cannot be read"));
            return;
        };
        report.check(block != ZERO_BLOCK && block.0 < facts.state.next_block, || {
            format!("block {block} was never granted")
        });
        facts.blocks.insert(block, BlockFacts { record, live: 0 });
    })?;
    report.blocks = facts.blocks.len() as u64;
    each(store, Tag::Dead, &mut |row, value| {
        let ino = Ino(key::number(row, 1).unwrap_or(0));
        match (decode::<Vec<DeadRange>>(value), facts.inodes.get_mut(&ino)) {
            (Ok(dead), Some(inode)) if inode.inode.dead => inode.dead = dead,
            _ => {
                report.problem(|| format!("inode {ino}: dead ranges that it does not know of, or unreadable"))
            }
        }
    })
}

/// Extents do not overlap, lie within their block and within the file.
pub(super) fn check_extents(store: &impl Store, facts: &mut Facts, report: &mut Report) -> Result<(), Errno> {
    let mut last = (Ino(0), 0);
    each(store, Tag::Extent, &mut |row, value| {
        let ino = Ino(key::number(row, 1).unwrap_or(0));
        let end = key::number(row, 9).unwrap_or(0);
        report.extents += 1;
        let Ok(extent) = StoredExtent::decode(end, value) else {
            report.problem(|| format!("inode {ino}: extent ending at {end} cannot be read"));
            return;
        };
        let reached = if last.0 == ino { last.1 } else { 0 };
        report.check(reached <= extent.start, || format!("inode {ino}: extents overlap at {}", extent.start));
        last = (ino, end);
        let Some(owner) = facts.inodes.get_mut(&ino) else {
            report.problem(|| format!("extent at {} of inode {ino}, which is not there", extent.start));
            return;
        };
        owner.extents += 1;
        owner.extent_bytes += extent.length();
        let beyond = extent.block != ZERO_BLOCK && end > owner.inode.size && !extent.is_dead(&owner.dead);
        report.check(owner.inode.is_file() && end <= FILE_BYTES_MAX && !beyond, || {
            format!("inode {ino}: extent at {} lies outside of the file", extent.start)
        });
        report.check(extent.version <= owner.inode.version, || {
            format!("inode {ino}: extent at {} is from the future", extent.start)
        });
        count_live(facts, report, ino, &extent);
    })
}

fn count_live(facts: &mut Facts, report: &mut Report, ino: Ino, extent: &StoredExtent) {
    if extent.block == ZERO_BLOCK {
        return;
    }
    let Some(block) = facts.blocks.get_mut(&extent.block) else {
        report.problem(|| {
            format!("inode {ino}: extent at {} is in unknown block {}", extent.start, extent.block)
        });
        return;
    };
    block.live += extent.length();
    if block.record.first != ino {
        *facts.shares.entry((extent.block, ino)).or_default() += extent.length();
    }
    let end = u64::from(extent.block_offset) + extent.length();
    report.check(end <= u64::from(block.record.raw_bytes), || {
        format!("inode {ino}: extent at {} reaches out of block {}", extent.start, extent.block)
    });
}

/// Inline parts, link targets, attributes: lengths as the inode says.
pub(super) fn check_parts(store: &impl Store, facts: &mut Facts, report: &mut Report) -> Result<(), Errno> {
    for tag in [Tag::Data, Tag::Xattr] {
        each(store, tag, &mut |row, value| {
            let ino = Ino(key::number(row, 1).unwrap_or(0));
            match facts.inodes.get_mut(&ino) {
                Some(inode) if tag == Tag::Data => inode.data_bytes += value.len() as u64,
                Some(inode) => inode.xattr_bytes += key::rest(row, 1).len() as u64 + 1,
                None => report.problem(|| format!("{tag:?} of inode {ino}, which is not there")),
            }
        })?;
    }
    for (ino, facts) in &facts.inodes {
        check_inode_space(*ino, facts, report);
    }
    Ok(())
}

fn check_inode_space(ino: Ino, facts: &InodeFacts, report: &mut Report) {
    let inode = &facts.inode;
    let data_wanted = if inode.kind() == S_IFLNK { inode.size } else { u64::from(inode.inline_bytes) };
    report.check(facts.data_bytes == data_wanted, || {
        format!("inode {ino}: {} inline bytes, {data_wanted} expected", facts.data_bytes)
    });
    let inline_max = if inode.is_file() { inode.size.min(INLINE_BYTES_MAX as u64) } else { 0 };
    report.check(u64::from(inode.inline_bytes) <= inline_max, || {
        format!("inode {ino}: an inline part of {} bytes", inode.inline_bytes)
    });
    report.check(facts.xattr_bytes == u64::from(inode.xattr_bytes), || {
        format!("inode {ino}: attribute names of {} bytes, {} expected", facts.xattr_bytes, inode.xattr_bytes)
    });
    report.check((facts.extents, facts.extent_bytes) == (inode.extents, inode.extent_bytes), || {
        format!(
            "inode {ino}: {} extents of {} bytes, {} of {} expected",
            facts.extents, facts.extent_bytes, inode.extents, inode.extent_bytes
        )
    });
    report.check(inode.dead != facts.dead.is_empty(), || format!("inode {ino}: its dead ranges are missing"));
}

/// Live bytes, shares and the list of garbage are exact.
pub(super) fn check_live(store: &impl Store, facts: &Facts, report: &mut Report) -> Result<(), Errno> {
    for (id, block) in &facts.blocks {
        let BlockFacts { record, live } = block;
        report.check(record.live == *live, || {
            format!("block {id}: {} live bytes, {live} counted", record.live)
        });
        report.check(record.garbage.is_some() == (*live == 0), || {
            format!("block {id}: garbage or not, with {live} live bytes")
        });
        report.check(!record.collecting || *live == 0, || format!("block {id} is collected but alive"));
        if let Some(since) = record.garbage {
            let listed = store.get(&key::garbage(since, *id))?.is_some();
            report.check(listed, || format!("block {id} is not on the list of garbage"));
        }
    }
    each(store, Tag::Garbage, &mut |row, _| {
        report.garbage += 1;
        let since = key::number(row, 1).map(key::unbias);
        let block = BlockId(key::number(row, 9).unwrap_or(0));
        let known = facts.blocks.get(&block).is_some_and(|block| block.record.garbage == since);
        report.check(known, || format!("block {block} is on the list of garbage and is none"));
    })?;
    let mut shares = 0usize;
    each(store, Tag::Share, &mut |row, value| {
        shares += 1;
        let (block, ino) = (BlockId(key::number(row, 1).unwrap_or(0)), Ino(key::number(row, 9).unwrap_or(0)));
        let counted = facts.shares.get(&(block, ino)).copied();
        report.check(decode::<u64>(value).ok() == counted, || {
            format!("block {block}: its share in inode {ino} is wrong, {counted:?} bytes counted")
        });
    })?;
    report.check(shares == facts.shares.len(), || format!("{shares} shares, {} counted", facts.shares.len()));
    Ok(())
}

/// Blocks that count although no file refers to them: none does.
pub(super) fn check_idle(store: &impl Store, facts: &Facts, report: &mut Report) -> Result<(), Errno> {
    each(store, Tag::Idle, &mut |row, value| {
        let block = BlockId(key::number(row, 1).unwrap_or(0));
        report.check(decode::<u64>(value).is_ok() && (1..facts.state.next_block).contains(&block.0), || {
            format!("block {block}: it is stored and was never granted, or its bytes cannot be read")
        });
        let live = facts.blocks.get(&block).map_or(0, |block| block.live);
        report
            .check(live == 0, || format!("block {block} counts as one that no file refers to, and is alive"));
    })
}

/// Small blocks that have no file: their rows are those of blocks that are there, and what they say of themselves.
pub(super) fn check_carried(store: &impl Store, facts: &Facts, report: &mut Report) -> Result<(), Errno> {
    each(store, Tag::Carried, &mut |row, value| {
        let block = BlockId(key::number(row, 1).unwrap_or(0));
        let Some(BlockFacts { record, .. }) = facts.blocks.get(&block) else {
            report.problem(|| format!("block {block}: its bytes are kept, and it is not there"));
            return;
        };
        report.check(record.stored_bytes as usize == value.len(), || {
            format!("block {block}: {} bytes are kept, {} expected", value.len(), record.stored_bytes)
        });
    })
}

pub(super) fn check_counters(facts: &Facts, report: &mut Report) {
    report.bytes = facts.inodes.values().map(|facts| facts.inode.allocated()).sum();
    let state = &facts.state;
    let (inodes, bytes) = (report.inodes, report.bytes);
    report.check(state.inodes == inodes, || format!("{} inodes counted, {inodes} are there", state.inodes));
    report.check(state.bytes == bytes, || format!("{} bytes counted, {bytes} are allocated", state.bytes));
    let last = facts.inodes.last_key_value().map_or(0, |(ino, _)| ino.0);
    report.check(last < state.next_ino, || format!("inode {last} was never granted"));
}
