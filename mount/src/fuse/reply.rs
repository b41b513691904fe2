//! Answers, written straight into the caller's buffer: an entry's payload, which also held the request.
//!
//! Every function returns the bytes written. What does not fit is a bug of this client or a hostile server, and
//! answered with `EIO`; only extended attributes have a size of their own (`ERANGE`).

use flexfs_wire::attr::Attr;
use flexfs_wire::errno::Errno;
use flexfs_wire::limits::NAME_BYTES_MAX;
use flexfs_wire::message::{Lock, LockKind, StatFs};
use flexfs_wire::time::Time;
use zerocopy::{Immutable, IntoBytes};

use super::abi;
use crate::vfs::{DirItem, Found, Opened, ValidFor};

/// Transfer size `stat` shows; programs copy in pieces of it.
pub const BLOCK_BYTES_SHOWN: u32 = 128 * 1024;
/// Unit of `statfs` figures in bytes.
const STATFS_BLOCK_BYTES: u32 = 4096;
/// `STATX_BASIC_STATS | STATX_BTIME`.
const STATX_MASK: u32 = 0x0fff;

/// LOOKUP, MKDIR, and others that give an inode.
pub fn entry(out: &mut [u8], found: &Found) -> Result<usize, Errno> {
    put(out, 0, &entry_out(found))
}

/// LOOKUP of a name that is not there, which the kernel may remember.
pub fn absent(out: &mut [u8], valid: ValidFor) -> Result<usize, Errno> {
    let (entry_valid, entry_valid_nsec) = valid.parts();
    put(out, 0, &abi::fuse_entry_out { entry_valid, entry_valid_nsec, ..abi::fuse_entry_out::default() })
}

/// CREATE and TMPFILE.
pub fn created(out: &mut [u8], found: &Found, opened: &Opened) -> Result<usize, Errno> {
    let offset = put(out, 0, &entry_out(found))?;
    put(out, offset, &open_out(opened))
}

/// OPEN and OPENDIR.
pub fn opened(out: &mut [u8], opened: &Opened) -> Result<usize, Errno> {
    put(out, 0, &open_out(opened))
}

/// OPENDIR: the kernel keeps nothing of a directory's listing between calls.
pub fn opened_dir(out: &mut [u8]) -> Result<usize, Errno> {
    put(out, 0, &abi::fuse_open_out::default())
}

/// GETATTR and SETATTR.
pub fn attr(out: &mut [u8], attr: &Attr, valid: ValidFor) -> Result<usize, Errno> {
    let (attr_valid, attr_valid_nsec) = valid.parts();
    put(out, 0, &abi::fuse_attr_out { attr_valid, attr_valid_nsec, dummy: 0, attr: kernel_attr(attr) })
}

/// STATX.
pub fn statx(out: &mut [u8], attr: &Attr, valid: ValidFor) -> Result<usize, Errno> {
    let (attr_valid, attr_valid_nsec) = valid.parts();
    let (rdev_major, rdev_minor) = device_parts(attr.rdev);
    let stat = abi::fuse_statx {
        mask: STATX_MASK,
        blksize: BLOCK_BYTES_SHOWN,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        mode: u16::try_from(attr.mode & 0xffff).unwrap_or(0),
        ino: attr.ino.0,
        size: attr.size,
        blocks: attr.blocks,
        atime: statx_time(attr.atime),
        btime: statx_time(attr.btime),
        ctime: statx_time(attr.ctime),
        mtime: statx_time(attr.mtime),
        rdev_major,
        rdev_minor,
        ..abi::fuse_statx::default()
    };
    put(out, 0, &abi::fuse_statx_out { attr_valid, attr_valid_nsec, flags: 0, spare: [0; 2], stat })
}

/// READLINK, and values of attributes.
pub fn bytes(out: &mut [u8], bytes: &[u8]) -> Result<usize, Errno> {
    out.get_mut(..bytes.len()).ok_or(Errno::EIO)?.copy_from_slice(bytes);
    Ok(bytes.len())
}

/// GETXATTR and LISTXATTR: with room for 0 bytes the size is asked for.
pub fn xattr(out: &mut [u8], value: &[u8], room: usize) -> Result<usize, Errno> {
    if room == 0 {
        let size = u32::try_from(value.len()).map_err(|_| Errno::E2BIG)?;
        return put(out, 0, &abi::fuse_getxattr_out { size, padding: 0 });
    }
    if value.len() > room {
        return Err(Errno::ERANGE);
    }
    bytes(out, value)
}

/// WRITE, and COPY_FILE_RANGE in its first form.
pub fn written(out: &mut [u8], length: usize) -> Result<usize, Errno> {
    let size = u32::try_from(length).map_err(|_| Errno::EIO)?;
    put(out, 0, &abi::fuse_write_out { size, padding: 0 })
}

/// COPY_FILE_RANGE_64.
pub fn copied(out: &mut [u8], bytes_copied: u64) -> Result<usize, Errno> {
    put(out, 0, &abi::fuse_copy_file_range_out { bytes_copied })
}

/// LSEEK.
pub fn position(out: &mut [u8], offset: u64) -> Result<usize, Errno> {
    put(out, 0, &abi::fuse_lseek_out { offset })
}

/// GETLK.
pub fn lock(out: &mut [u8], lock: &Lock) -> Result<usize, Errno> {
    let lk = abi::fuse_file_lock {
        start: lock.start,
        end: lock.end.min(i64::MAX.unsigned_abs()),
        r#type: lock_code(lock.kind),
        pid: lock.pid,
    };
    put(out, 0, &abi::fuse_lk_out { lk })
}

/// `F_RDLCK`, `F_WRLCK`, `F_UNLCK`.
pub fn lock_code(kind: LockKind) -> u32 {
    match kind {
        LockKind::Read => 0,
        LockKind::Write => 1,
        LockKind::Unlock => 2,
    }
}

/// STATFS.
pub fn statfs(out: &mut [u8], figures: &StatFs) -> Result<usize, Errno> {
    let unit = u64::from(STATFS_BLOCK_BYTES);
    let st = abi::fuse_kstatfs {
        blocks: figures.bytes_total / unit,
        bfree: figures.bytes_free / unit,
        bavail: figures.bytes_free / unit,
        files: figures.inodes_total,
        ffree: figures.inodes_free,
        bsize: STATFS_BLOCK_BYTES,
        namelen: u32::try_from(NAME_BYTES_MAX).unwrap_or(255),
        frsize: STATFS_BLOCK_BYTES,
        ..abi::fuse_kstatfs::default()
    };
    put(out, 0, &abi::fuse_statfs_out { st })
}

/// Appends one entry of READDIR or READDIRPLUS behind `filled` bytes. `None` when it does not fit.
pub fn dir_item(out: &mut [u8], filled: usize, item: &DirItem, plus: bool) -> Option<usize> {
    let name = item.name();
    let fixed = if plus { abi::FUSE_DIRENTPLUS_BYTES } else { size_of::<abi::fuse_dirent>() };
    let bytes = (fixed + name.len()).next_multiple_of(8);
    let place = out.get_mut(filled..filled.checked_add(bytes)?)?;
    let mut offset = 0;
    if plus {
        let head = item.found.as_ref().map_or_else(abi::fuse_entry_out::default, entry_out);
        offset = put(place, 0, &head).ok()?;
    }
    let dirent = abi::fuse_dirent {
        ino: item.ino,
        off: item.offset,
        namelen: u32::try_from(name.len()).ok()?,
        r#type: item.kind >> 12,
    };
    offset = put(place, offset, &dirent).ok()?;
    place.get_mut(offset..offset + name.len())?.copy_from_slice(name);
    place[offset + name.len()..].fill(0);
    Some(filled + bytes)
}

/// Device number as the kernel packs it in 32 bits (`new_encode_dev`).
pub fn device_parts(rdev: u32) -> (u32, u32) {
    ((rdev & 0x000f_ff00) >> 8, (rdev & 0xff) | ((rdev >> 12) & 0x000f_ff00))
}

fn entry_out(found: &Found) -> abi::fuse_entry_out {
    let (entry_valid, entry_valid_nsec) = found.entry_valid.parts();
    let (attr_valid, attr_valid_nsec) = found.attr_valid.parts();
    abi::fuse_entry_out {
        nodeid: found.nodeid,
        // Numbers are never reused in a volume, so every inode has the same generation.
        generation: 0,
        entry_valid,
        attr_valid,
        entry_valid_nsec,
        attr_valid_nsec,
        attr: kernel_attr(&found.attr),
    }
}

fn open_out(opened: &Opened) -> abi::fuse_open_out {
    if let Some(backing_id) = opened.passed {
        // The kernel takes no other flag with it that would mean something here.
        return abi::fuse_open_out { fh: opened.fh, open_flags: abi::fopen::PASSTHROUGH, backing_id };
    }
    let mut open_flags = abi::fopen::PARALLEL_DIRECT_WRITES;
    if opened.keep_cache {
        open_flags |= abi::fopen::KEEP_CACHE;
    }
    if opened.direct {
        open_flags |= abi::fopen::DIRECT_IO;
    }
    abi::fuse_open_out { fh: opened.fh, open_flags, backing_id: 0 }
}

fn kernel_attr(attr: &Attr) -> abi::fuse_attr {
    abi::fuse_attr {
        ino: attr.ino.0,
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.atime.secs.cast_unsigned(),
        mtime: attr.mtime.secs.cast_unsigned(),
        ctime: attr.ctime.secs.cast_unsigned(),
        atimensec: attr.atime.nanos,
        mtimensec: attr.mtime.nanos,
        ctimensec: attr.ctime.nanos,
        mode: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: BLOCK_BYTES_SHOWN,
        flags: 0,
    }
}

fn statx_time(time: Time) -> abi::fuse_sx_time {
    abi::fuse_sx_time { tv_sec: time.secs, tv_nsec: time.nanos, reserved: 0 }
}

fn put<T: IntoBytes + Immutable>(out: &mut [u8], offset: usize, value: &T) -> Result<usize, Errno> {
    let bytes = value.as_bytes();
    let end = offset + bytes.len();
    out.get_mut(offset..end).ok_or(Errno::EIO)?.copy_from_slice(bytes);
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flexfs_wire::attr::S_IFREG;
    use flexfs_wire::id::Ino;
    use zerocopy::FromBytes as _;

    fn found() -> Found {
        let attr = Attr {
            ino: Ino(9),
            mode: S_IFREG | 0o644,
            nlink: 1,
            uid: 1,
            gid: 2,
            rdev: 0,
            size: 10,
            blocks: 1,
            atime: Time { secs: -1, nanos: 5 },
            mtime: Time::default(),
            ctime: Time::default(),
            btime: Time::default(),
            version: 1,
            has_xattrs: false,
        };
        Found { nodeid: 9, attr, entry_valid: ValidFor::LEASE, attr_valid: ValidFor::NOTHING }
    }

    #[test]
    fn entries_are_padded_and_cut_where_the_room_ends() {
        let item = DirItem::new(b"abc", 9, S_IFREG, 77, Some(found()));
        let mut out = [0xff; 400];
        assert_eq!(dir_item(&mut out, 0, &item, false), Some(32));
        let dirent = abi::fuse_dirent::read_from_prefix(&out).unwrap().0;
        assert_eq!((dirent.ino, dirent.off, dirent.namelen, dirent.r#type), (9, 77, 3, 8));
        assert_eq!(&out[24..32], b"abc\0\0\0\0\0");
        assert_eq!(dir_item(&mut out, 32, &item, true), Some(32 + 160));
        assert_eq!(dir_item(&mut out, 192, &item, true), Some(352));
        assert_eq!(dir_item(&mut out, 352, &item, true), None);
        assert_eq!(dir_item(&mut out, usize::MAX, &item, false), None);
    }

    #[test]
    fn negative_times_keep_their_bits() {
        let mut out = [0; 128];
        assert_eq!(entry(&mut out, &found()), Ok(128));
        let raw = abi::fuse_entry_out::read_from_bytes(&out[..]).unwrap();
        assert_eq!((raw.attr.atime, raw.attr.atimensec, raw.entry_valid), (u64::MAX, 5, 1 << 27));
        assert_eq!(entry(&mut out[..100], &found()), Err(Errno::EIO));
    }

    #[test]
    fn attributes_answer_size_value_or_erange() {
        let mut out = [0; 16];
        assert_eq!(xattr(&mut out, b"value", 0), Ok(8));
        assert_eq!(out[0], 5);
        assert_eq!(xattr(&mut out, b"value", 4), Err(Errno::ERANGE));
        assert_eq!(xattr(&mut out, b"value", 5), Ok(5));
        assert_eq!(&out[..5], b"value");
    }

    #[test]
    fn device_numbers_are_unpacked() {
        assert_eq!(device_parts(0x0000_0103), (1, 3));
        assert_eq!(device_parts(0x1230_0845), (8, 0x12345));
    }
}
