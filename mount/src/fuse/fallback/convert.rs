//! Values of ours as fuser has them, and back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flexfs_wire::attr::{Attr, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFSOCK, SetTime};
use flexfs_wire::errno::Errno;
use flexfs_wire::message::{Lock, LockFamily};
use flexfs_wire::time::Time;
use fuser::{
    FileAttr, FileType, FopenFlags, Generation, INodeNo, LockOwner, ReplyEntry, ReplyXattr, TimeOrNow,
};

use crate::fuse::reply;
use crate::fuse::request;
use crate::vfs::{DirItem, Found, Looked, Opened, ValidFor};

/// Numbers are never reused in a volume, so every inode has the same generation.
pub(super) const GENERATION: Generation = Generation(0);

pub(super) fn code(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.0)
}

pub(super) fn entry(reply: ReplyEntry, found: &Found) {
    let (attr_ttl, entry_ttl) = (ttl(found.attr_valid), ttl(found.entry_valid));
    reply.entry_with_ttls(&attr_ttl, &entry_ttl, &file_attr(&found.attr), GENERATION);
}

pub(super) fn xattr(reply: ReplyXattr, value: &[u8], room: u32) {
    match (room, u32::try_from(value.len())) {
        (_, Err(_)) => reply.error(code(Errno::E2BIG)),
        (0, Ok(size)) => reply.size(size),
        (room, Ok(size)) if size > room => reply.error(code(Errno::ERANGE)),
        (_, Ok(_)) => reply.data(value),
    }
}

/// Attributes of a line; `.` and `..` have none the kernel looks at.
pub(super) fn plus(item: &DirItem) -> (FileAttr, Duration) {
    match &item.found {
        Some(found) => (file_attr(&found.attr), shorter(found)),
        // No inode comes along: the kernel looks it up when it needs it. That is told by number 0, which programs take for
        // a name that was removed; the kernel itself knows what `.` and `..` are.
        None => {
            let is_dot = matches!(item.name(), b"." | b"..");
            (blank(if is_dot { item.ino } else { 0 }, item.kind), Duration::ZERO)
        }
    }
}

fn blank(ino: u64, mode: u32) -> FileAttr {
    file_attr(&Attr { nlink: 1, ..Attr::new(flexfs_wire::id::Ino(ino), mode, Time::default()) })
}

pub(super) fn posix_lock(
    owner: LockOwner,
    (start, end): (u64, u64),
    typ: i32,
    pid: u32,
) -> Result<Lock, Errno> {
    let kind = request::lock_kind(typ.cast_unsigned())?;
    let end = request::lock_end(end);
    Ok(Lock { family: LockFamily::Posix, kind, owner: owner.0, pid, start, end })
}

/// Where fuser has one time for name and attributes.
pub(super) fn shorter(found: &Found) -> Duration {
    ttl(found.entry_valid).min(ttl(found.attr_valid))
}

pub(super) fn looked(reply: ReplyEntry, looked: &Looked) {
    match looked {
        Looked::Found(found) => entry(reply, found),
        Looked::Absent(valid) => {
            // Number 0 stands for no inode; the rest is not looked at.
            reply.entry_with_ttls(&Duration::ZERO, &ttl(*valid), &blank(0, 0), GENERATION);
        }
    }
}

pub(super) fn ttl(valid: ValidFor) -> Duration {
    let (secs, nanos) = valid.parts();
    Duration::new(secs, nanos)
}

pub(super) fn fopen(opened: &Opened) -> FopenFlags {
    let mut flags = FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache);
    flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct);
    flags
}

pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: system_time(attr.btime),
        kind: file_type(attr.mode & S_IFMT),
        perm: u16::try_from(attr.mode & 0o7777).unwrap_or(0),
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: reply::BLOCK_BYTES_SHOWN,
        flags: 0,
    }
}

pub(super) fn file_type(kind: u32) -> FileType {
    match kind {
        S_IFDIR => FileType::Directory,
        S_IFLNK => FileType::Symlink,
        S_IFIFO => FileType::NamedPipe,
        S_IFSOCK => FileType::Socket,
        S_IFBLK => FileType::BlockDevice,
        S_IFCHR => FileType::CharDevice,
        _ => FileType::RegularFile,
    }
}

pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => {
            let (secs, nanos) = match time.duration_since(UNIX_EPOCH) {
                Ok(_) => flexfs_uring::clock::parts(time),
                // fuser counts the nanoseconds backward as well, which the kernel does not.
                Err(before) => {
                    let before = before.duration();
                    (0i64.saturating_sub_unsigned(before.as_secs()), before.subsec_nanos())
                }
            };
            SetTime::At(Time { secs, nanos })
        }
    }
}

pub(super) fn system_time(time: Time) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(time.nanos));
    let whole = Duration::from_secs(time.secs.unsigned_abs());
    let base = if time.secs < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    base.and_then(|base| base.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_way_through_fuser() {
        for (secs, nanos) in [(0, 0), (-1, 999_999_999), (-1_000_000_000, 1), (5_000_000_000, 7)] {
            let time = Time { secs, nanos };
            // As fuser makes them out of a request.
            let part = Duration::new(secs.unsigned_abs(), nanos);
            let came = if secs < 0 { UNIX_EPOCH - part } else { UNIX_EPOCH + part };
            assert_eq!(set_time(TimeOrNow::SpecificTime(came)), SetTime::At(time));
            assert_eq!(flexfs_uring::clock::parts(system_time(time)), (secs, nanos));
        }
        // Beyond what a SystemTime holds: anything but a panic.
        system_time(Time { secs: i64::MAX, nanos: 999_999_999 });
        system_time(Time { secs: i64::MIN, nanos: 0 });
    }
}
