//! Steps on the bytes of files.

use flexfs_wire::errno::Errno;
use flexfs_wire::extent::{Extent, NewBlock, ZERO_BLOCK};
use flexfs_wire::id::BlockId;
use flexfs_wire::limits::INLINE_BYTES_MAX;
use flexfs_wire::message::{
    Carried, FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, Inline, Reply, Request, Write,
};
use flexfs_wire::time::Time;

use super::call::settle;
use super::{BLOCK_BYTES, World, node};
use crate::source::Source;

/// Bytes of a block that comes with its write.
pub(super) const CARRIED_BYTES: u32 = 100;

impl World {
    pub(super) fn step_write_inline(&mut self, source: &mut Source<'_>) {
        let (_, context, who) = self.caller(source);
        let ino = self.file(source);
        let offset = u32::from(source.short() % 1_000) * if source.one_in(4) { 16 } else { 1 };
        let bytes = vec![source.byte() | 1; usize::from(source.short() % 600) + 1];
        let (time, kill_privileges) = self.writer(source);
        let parts = [(offset as usize, bytes.clone())];
        let end = offset as usize + bytes.len();
        let inline = Some(Inline { offset, bytes });
        let write = Write { inline, time, kill_privileges, ..Write::default() };
        let request = Request::Write { node: node(ino), write };
        let may_have_extents = self.model.files.get(&ino).is_some_and(|file| file.may_have_extents);
        if end > INLINE_BYTES_MAX || may_have_extents {
            // The mount's part then: as extents. Here it just does not happen.
            let again = self.machine().apply(&context, &request).answer.map(|answer| answer.result);
            if again == Some(Err(Errno::EAGAIN)) {
                return;
            }
            assert!(end <= INLINE_BYTES_MAX || again.is_some_and(|again| again.is_err()));
        }
        // Who has no privilege takes them away, whatever his client says.
        let kills = kill_privileges || who.is_plain;
        self.expect(context, request, |model| model.write(ino, &parts, time, kills));
    }

    pub(super) fn step_write_extents(&mut self, source: &mut Source<'_>) {
        let (mount, context, who) = self.caller(source);
        let ino = self.file(source);
        let new = self.new_block(mount);
        let (mut offset, mut block_offset) = (u64::from(source.short() % 30_000), 0);
        let (mut extents, mut parts) = (Vec::new(), Vec::new());
        for _ in 0..=source.below(6) {
            let (length, gap) = (u32::from(source.short() % 700) + 1, source.byte());
            let zeros = gap % 16 == 15;
            let block = if zeros { ZERO_BLOCK } else { new };
            extents.push(Extent {
                offset,
                length,
                block,
                block_offset: if zeros { 0 } else { block_offset },
            });
            let bytes = if zeros { vec![0; length as usize] } else { block_bytes(new, block_offset, length) };
            parts.push((usize::try_from(offset).expect("small"), bytes));
            block_offset += length;
            offset += u64::from(length) + u64::from(gap) * 2;
        }
        let (time, kill_privileges) = self.writer(source);
        let blocks = vec![NewBlock { block: new, raw_bytes: BLOCK_BYTES, stored_bytes: CARRIED_BYTES }];
        // One that nothing refers to is not carried.
        let is_used = extents.iter().any(|extent| extent.block == new);
        let carried = (is_used && new.0.is_multiple_of(2))
            .then(|| Carried { block: new, bytes: block_bytes(new, 0, CARRIED_BYTES) });
        let is_carried = carried.is_some();
        let write = Write { extents, blocks, time, kill_privileges, carried, ..Write::default() };
        let request = Request::Write { node: node(ino), write };
        let kills = kill_privileges || who.is_plain;
        let done = self.expect(context, request, |model| model.write(ino, &parts, time, kills));
        self.note_extents(ino, done.is_some());
        if is_carried && done.is_some() {
            self.carried.insert(new);
        }
    }

    pub(super) fn step_fallocate(&mut self, source: &mut Source<'_>) {
        let (_, context, who) = self.caller(source);
        let ino = self.file(source);
        let modes = [
            0,
            FALLOC_KEEP_SIZE,
            FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE,
            FALLOC_ZERO_RANGE,
            FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE,
            FALLOC_PUNCH_HOLE,
            0x08,
        ];
        let mode = source.pick(&modes);
        let (offset, mut length) = (u64::from(source.short() % 30_000), u64::from(source.short() % 20_000));
        if length == 19_999 {
            length = u64::MAX - 20_000;
        }
        let request = Request::Fallocate { node: node(ino), mode, offset, length };
        self.expect(context, request, |model| model.fallocate(who, ino, mode, offset, length));
    }

    pub(super) fn step_copy(&mut self, source: &mut Source<'_>) {
        let (_, context, who) = self.caller(source);
        let (from_ino, to_ino) = (self.file(source), self.file(source));
        let [from, to, length] = [(); 3].map(|()| usize::from(source.short() % 20_000));
        let request = Request::CopyRange {
            source: node(from_ino),
            source_offset: from as u64,
            target: node(to_ino),
            target_offset: to as u64,
            length: length as u64,
        };
        let said = self.model.copied((from_ino, from), (to_ino, to), length);
        let result = self.call(context, &request);
        match (result, said) {
            (Ok(Reply::Copied { length, .. }), Ok(most)) => {
                let length = usize::try_from(length).expect("small");
                assert!(length <= most && (length > 0) == (most > 0), "{request:?}: {length} of {most}");
                if length > 0 {
                    self.model.copy(who, (from_ino, from), (to_ino, to), length);
                }
            }
            // The mount copies by itself then; and a full volume was compared elsewhere.
            (Err(Errno::EOPNOTSUPP | Errno::ENOSPC), Ok(most)) => assert!(most > 0),
            (result, said) => drop(settle(&request, result, said.map(|_| ()))),
        }
    }

    /// When a program wrote by the mount's clock, and whether it had no privilege.
    fn writer(&self, source: &mut Source<'_>) -> (Option<Time>, bool) {
        let flags = source.byte();
        let time = Time { secs: self.now.secs - i64::from(flags >> 4) + 2, nanos: 7 };
        ((flags & 3 == 3).then_some(time), flags & 12 == 12)
    }

    fn note_extents(&mut self, ino: u64, done: bool) {
        if done && let Some(file) = self.model.files.get_mut(&ino) {
            file.may_have_extents = true;
        }
    }

    fn new_block(&mut self, mount: usize) -> BlockId {
        let range = &mut self.mounts[mount].blocks;
        range.start += 1;
        BlockId(range.start - 1)
    }
}

/// Bytes that a block holds: each block others, none of them zero.
pub(super) fn block_bytes(block: BlockId, offset: u32, length: u32) -> Vec<u8> {
    let byte = |at: u32| u8::try_from((block.0 * 31 + u64::from(at) * 7) % 251 + 1).unwrap_or(1);
    (offset..offset + length).map(byte).collect()
}
