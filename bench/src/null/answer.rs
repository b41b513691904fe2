//! One request and its answer.

use std::sync::{PoisonError, RwLock};

use flexfs_mount::fuse::request::{Header, Operation};
use flexfs_uring::clock;
use flexfs_wire::errno::Errno;

use super::abi::{
    Attr, AttrOut, Dirent, EntryOut, OpenOut, PARALLEL_DIRECT_WRITES, S_IFDIR, S_IFREG, StatfsOut, WriteOut,
    put,
};
use super::tree::{Line, Tree};
use crate::pattern;

/// The null file system.
#[derive(Debug)]
pub(super) struct Null {
    tree: RwLock<Tree>,
}

impl Null {
    pub(super) fn new() -> Self {
        Self { tree: RwLock::new(Tree::new()) }
    }

    /// Answers a request into `out`, which may be the memory of its own payload; returns the bytes of the answer.
    ///
    /// # Errors
    /// The errno to answer.
    pub(super) fn answer(
        &self,
        header: &Header,
        operation: Operation,
        out: &mut [u8],
    ) -> Result<usize, Errno> {
        match operation {
            Operation::Read { args, size } => self.read(header.nodeid, args.offset, size, out),
            Operation::ReadDir { offset, size, plus } => {
                self.list(header.nodeid, offset, plus, out.get_mut(..size).ok_or(Errno::EIO)?)
            }
            Operation::Lookup { name } => {
                let attr = self.reader().lookup(header.nodeid, name.as_bytes())?;
                put(out, 0, &entry(&attr))
            }
            Operation::GetAttr => {
                let attr = self.reader().attr(header.nodeid)?;
                put(out, 0, &AttrOut { attr, ..AttrOut::default() })
            }
            Operation::Open { .. } => put(out, 0, &opened()),
            Operation::OpenDir => put(out, 0, &OpenOut::default()),
            Operation::StatFs => put(out, 0, &statfs()),
            Operation::Flush { .. }
            | Operation::Release { .. }
            | Operation::ReleaseDir
            | Operation::Fsync { .. }
            | Operation::FsyncDir
            | Operation::Access
            | Operation::Destroy => Ok(0),
            operation => self.change(header, operation, out),
        }
    }

    fn change(&self, header: &Header, operation: Operation, out: &mut [u8]) -> Result<usize, Errno> {
        let owner = (header.uid, header.gid);
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        match operation {
            Operation::Write { args, size } => {
                tree.grow(header.nodeid, args.offset + size as u64, now());
                let size = u32::try_from(size).map_err(|_| Errno::EIO)?;
                put(out, 0, &WriteOut { size, padding: 0 })
            }
            Operation::Create { name, make, .. } => {
                let mode = S_IFREG | make.mode & 0o7777;
                let attr = tree.make(header.nodeid, name.as_bytes(), mode, owner)?;
                let end = put(out, 0, &entry(&attr))?;
                put(out, end, &opened())
            }
            Operation::Mknod { name, make } => {
                put(out, 0, &entry(&tree.make(header.nodeid, name.as_bytes(), make.mode, owner)?))
            }
            Operation::Mkdir { name, make } => {
                let mode = S_IFDIR | make.mode & 0o7777;
                put(out, 0, &entry(&tree.make(header.nodeid, name.as_bytes(), mode, owner)?))
            }
            Operation::Unlink { name } => tree.remove(header.nodeid, name.as_bytes(), false).map(|()| 0),
            Operation::Rmdir { name } => tree.remove(header.nodeid, name.as_bytes(), true).map(|()| 0),
            Operation::Rename { name, new_parent, new_name, .. } => {
                tree.rename((header.nodeid, name.as_bytes()), (new_parent, new_name.as_bytes())).map(|()| 0)
            }
            Operation::SetAttr { change } => {
                let attr = tree.change(header.nodeid, &change, now())?;
                put(out, 0, &AttrOut { attr, ..AttrOut::default() })
            }
            // The kernel does not ask again.
            _ => Err(Errno::ENOSYS),
        }
    }

    fn reader(&self) -> std::sync::RwLockReadGuard<'_, Tree> {
        self.tree.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pattern up to the end of the file, from a page on.
    fn read(&self, ino: u64, offset: u64, size: usize, out: &mut [u8]) -> Result<usize, Errno> {
        let end = self.reader().attr(ino)?.size;
        let there = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let out = out.get_mut(..size.min(there)).ok_or(Errno::EIO)?;
        if !offset.is_multiple_of(pattern::PAGE as u64) {
            return Err(Errno::EINVAL);
        }
        pattern::fill(out, 0, offset);
        Ok(out.len())
    }

    fn list(&self, ino: u64, offset: u64, plus: bool, out: &mut [u8]) -> Result<usize, Errno> {
        let tree = self.reader();
        let mut filled = 0;
        // What is listed before the entries of a tree; programs skip them, so their numbers do not matter.
        for (place, name) in [(1, &b"."[..]), (2, b"..")] {
            if offset < place {
                let attr = Attr { ino, mode: S_IFDIR, ..Attr::default() };
                filled = line(out, filled, &Line { place, name, attr }, plus, false).ok_or(Errno::EINVAL)?;
            }
        }
        for one in tree.list(ino, offset)? {
            match line(out, filled, &one, plus, true) {
                Some(more) => filled = more,
                None => break,
            }
        }
        Ok(filled)
    }
}

fn line(out: &mut [u8], filled: usize, line: &Line<'_>, plus: bool, is_found: bool) -> Option<usize> {
    let fixed = if plus { size_of::<EntryOut>() } else { 0 } + size_of::<Dirent>();
    let bytes = (fixed + line.name.len()).next_multiple_of(8);
    let place = out.get_mut(filled..filled + bytes)?;
    place.fill(0);
    let mut at = 0;
    if plus {
        // A node of 0 tells the kernel to take the line as a name only.
        let head = if is_found { entry(&line.attr) } else { EntryOut::default() };
        at = put(place, 0, &head).ok()?;
    }
    let dirent = Dirent {
        ino: line.attr.ino,
        off: line.place,
        namelen: u32::try_from(line.name.len()).ok()?,
        kind: line.attr.mode >> 12,
    };
    at = put(place, at, &dirent).ok()?;
    place.get_mut(at..at + line.name.len())?.copy_from_slice(line.name);
    Some(filled + bytes)
}

fn entry(attr: &Attr) -> EntryOut {
    EntryOut { nodeid: attr.ino, attr: *attr, ..EntryOut::default() }
}

fn opened() -> OpenOut {
    OpenOut { fh: 0, open_flags: PARALLEL_DIRECT_WRITES, backing_id: 0 }
}

fn statfs() -> StatfsOut {
    let blocks = 1 << 30;
    StatfsOut {
        blocks,
        bfree: blocks,
        bavail: blocks,
        files: 1 << 30,
        ffree: 1 << 30,
        bsize: 4096,
        namelen: 255,
        frsize: 4096,
        ..StatfsOut::default()
    }
}

fn now() -> (u64, u32) {
    let (secs, nanos) = clock::wall_parts();
    (secs.unsigned_abs(), nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flexfs_wire::name::Name;
    use zerocopy::FromBytes as _;

    fn header(nodeid: u64) -> Header {
        let mut bytes = [0; 40];
        bytes[16..24].copy_from_slice(&nodeid.to_ne_bytes());
        Header::parse(&bytes).unwrap()
    }

    #[test]
    fn reads_give_the_pattern_up_to_the_end() {
        let null = Null::new();
        let mut out = vec![0; 8192];
        let mkdir = |name| Operation::Mknod {
            name: Name::new(name).unwrap(),
            make: flexfs_mount::vfs::MakeArgs { mode: S_IFREG | 0o644, umask: 0, rdev: 0 },
        };
        null.answer(&header(1), mkdir(b"f"), &mut out).unwrap();
        let ino = EntryOut::read_from_prefix(&out).unwrap().0.nodeid;
        let args = flexfs_mount::vfs::WriteArgs { offset: 4096, ..Default::default() };
        null.answer(&header(ino), Operation::Write { args, size: 1000 }, &mut out).unwrap();
        let read = |offset| {
            let args = flexfs_mount::vfs::ReadArgs { offset, ..Default::default() };
            Operation::Read { args, size: 8192 }
        };
        assert_eq!(null.answer(&header(ino), read(0), &mut out), Ok(5096));
        assert!(pattern::holds(&out[..4096], 0, 0));
        assert_eq!(null.answer(&header(ino), read(8192), &mut out), Ok(0));
    }

    #[test]
    fn listings_fill_what_fits() {
        let null = Null::new();
        let mut out = vec![0; 4096];
        for name in [b"a", b"b"] {
            let make = flexfs_mount::vfs::MakeArgs { mode: 0o755, umask: 0, rdev: 0 };
            let name = Name::new(name).unwrap();
            null.answer(&header(1), Operation::Mkdir { name, make }, &mut out).unwrap();
        }
        let list = |offset, size, plus| Operation::ReadDir { offset, size, plus };
        assert_eq!(null.answer(&header(1), list(0, 4096, false), &mut out), Ok(4 * 32));
        assert_eq!(null.answer(&header(1), list(2, 4096, true), &mut out), Ok(2 * 160));
        assert_eq!(null.answer(&header(1), list(2, 170, true), &mut out), Ok(160));
        assert_eq!(null.answer(&header(1), list(4, 4096, true), &mut out), Ok(0));
    }
}
