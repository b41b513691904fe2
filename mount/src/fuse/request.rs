//! Requests of the kernel as typed values, parsed once.
//!
//! Through io_uring a request comes in three places (header, first argument, payload), through `/dev/fuse` as one
//! run of bytes; both end in [`parse`], which is total: any bytes give an operation or an errno, never a panic.

use flexfs_wire::attr::{SetAttr, SetTime};
use flexfs_wire::errno::Errno;
use flexfs_wire::limits::{
    FUSE_IO_BYTES_MAX, PATH_BYTES_MAX, SYMLINK_BYTES_MAX, XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX,
};
use flexfs_wire::message::{Lock, LockFamily, LockKind, XattrMode};
use flexfs_wire::name::Name;
use flexfs_wire::time::Time;
use zerocopy::FromBytes;

use super::abi::{self, fattr, fuse_in_header, opcode};
use crate::vfs::{CopyArgs, Forget, MakeArgs, OpenFlags, ReadArgs, WriteArgs};

/// Largest first argument (`FUSE_URING_OP_IN_OUT_SZ`).
pub const OP_BYTES_MAX: usize = 128;

/// `O_TRUNC` as the kernel passes it (x86-64, aarch64 and riscv64 agree).
const O_TRUNC: u32 = 0o1000;
/// `O_EXCL`.
const O_EXCL: u32 = 0o200;
/// `O_ACCMODE`: read-only, write-only, read-write.
const O_ACCMODE: u32 = 3;
/// `O_WRONLY`.
const O_WRONLY: u32 = 1;
/// `O_NOATIME`.
const O_NOATIME: u32 = 0o1_000_000;
/// `O_APPEND`.
const O_APPEND: u32 = 0o2_000;
/// `O_DIRECT`.
const O_DIRECT: u32 = 0o40_000;
/// `O_DSYNC`; `O_SYNC` contains it.
const O_DSYNC: u32 = 0o10_000;

/// Who asks, for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Number of the request, for answers and interrupts.
    pub unique: u64,
    /// The inode it is about; 0 for none.
    pub nodeid: u64,
    /// Operation code.
    pub opcode: u32,
    /// Caller's user id.
    pub uid: u32,
    /// Caller's group id.
    pub gid: u32,
    /// Caller's thread id, 0 when it is of another pid namespace.
    pub pid: u32,
    /// Bytes of extensions at the end of the request.
    extension_bytes: usize,
    /// Bytes of the whole request, as the kernel counts them.
    pub bytes: usize,
}

impl Header {
    /// Parses the front of a request.
    ///
    /// # Errors
    /// `EIO` when it is too short.
    pub fn parse(bytes: &[u8]) -> Result<Self, Errno> {
        let (raw, _) = fuse_in_header::read_from_prefix(bytes).map_err(|_| Errno::EIO)?;
        Ok(Self {
            unique: raw.unique,
            nodeid: raw.nodeid,
            opcode: raw.opcode,
            uid: raw.uid,
            gid: raw.gid,
            pid: raw.pid,
            extension_bytes: usize::from(raw.total_extlen) * 8,
            bytes: raw.len as usize,
        })
    }
}

/// How a file is opened, from the flags of `open(2)` and `FUSE_OPEN_*`.
#[must_use]
pub(crate) fn open_args(flags: u32, open_flags: u32) -> OpenFlags {
    OpenFlags {
        write: flags & O_ACCMODE != 0,
        blind: flags & O_ACCMODE == O_WRONLY,
        truncate: flags & O_TRUNC != 0,
        exclusive: flags & O_EXCL != 0,
        no_atime: flags & O_NOATIME != 0,
        kill_privileges: open_flags & abi::FUSE_OPEN_KILL_SUIDGID != 0,
        append: flags & O_APPEND != 0 && flags & O_ACCMODE != 0,
        direct: flags & O_DIRECT != 0,
    }
}

/// Where to read, from the kernel's flags.
#[must_use]
pub(crate) fn read_args(fh: u64, offset: u64, flags: u32) -> ReadArgs {
    ReadArgs { fh, offset, direct: flags & O_DIRECT != 0 }
}

/// A range to write, from the kernel's flags.
#[must_use]
pub(crate) fn write_args(fh: u64, offset: u64, write_flags: u32, flags: u32) -> WriteArgs {
    WriteArgs {
        fh,
        offset,
        kill_privileges: write_flags & abi::FUSE_WRITE_KILL_SUIDGID != 0,
        // Writeback of pages carries no flags of a file description; a synced one is followed by FSYNC.
        sync: flags & O_DSYNC != 0 && write_flags & abi::FUSE_WRITE_CACHE == 0,
        append: flags & O_APPEND != 0 && write_flags & abi::FUSE_WRITE_CACHE == 0,
        from_pages: write_flags & abi::FUSE_WRITE_CACHE != 0,
        direct: flags & O_DIRECT != 0 && write_flags & abi::FUSE_WRITE_CACHE == 0,
    }
}

/// What the kernel asks for.
#[expect(missing_docs, reason = "named and typed as in fuse(4) and the system calls behind them")]
#[derive(Debug, PartialEq, Eq)]
pub enum Operation {
    Lookup {
        name: Name,
    },
    /// LOOKUP of `.`: of an inode the kernel has forgotten (`open_by_handle_at(2)`).
    LookupSelf,
    /// LOOKUP of `..`, for the same.
    LookupParent,
    GetAttr,
    Statx,
    SetAttr {
        change: SetAttr,
    },
    ReadLink,
    Symlink {
        name: Name,
        target: Vec<u8>,
    },
    Mknod {
        name: Name,
        make: MakeArgs,
    },
    Mkdir {
        name: Name,
        make: MakeArgs,
    },
    Unlink {
        name: Name,
    },
    Rmdir {
        name: Name,
    },
    Rename {
        name: Name,
        new_parent: u64,
        new_name: Name,
        flags: u32,
    },
    Link {
        nodeid: u64,
        name: Name,
    },
    Open {
        flags: OpenFlags,
    },
    Read {
        args: ReadArgs,
        size: usize,
    },
    /// The first `size` bytes of the payload are there.
    Write {
        args: WriteArgs,
        size: usize,
    },
    StatFs,
    Release {
        fh: u64,
    },
    Fsync {
        fh: u64,
        data_only: bool,
    },
    SetXattr {
        name: Vec<u8>,
        value: Vec<u8>,
        mode: XattrMode,
    },
    GetXattr {
        name: Vec<u8>,
        size: usize,
    },
    ListXattr {
        size: usize,
    },
    RemoveXattr {
        name: Vec<u8>,
    },
    Flush {
        fh: u64,
        owner: u64,
    },
    OpenDir,
    ReadDir {
        offset: u64,
        size: usize,
        plus: bool,
    },
    ReleaseDir,
    FsyncDir,
    GetLock {
        lock: Lock,
    },
    SetLock {
        fh: u64,
        lock: Lock,
        wait: bool,
    },
    Access,
    Create {
        name: Name,
        make: MakeArgs,
        flags: OpenFlags,
    },
    TmpFile {
        make: MakeArgs,
        flags: OpenFlags,
    },
    Fallocate {
        fh: u64,
        mode: u32,
        offset: u64,
        length: u64,
    },
    Seek {
        fh: u64,
        offset: u64,
        whence: u32,
    },
    CopyRange {
        args: CopyArgs,
    },
    Init,
    Destroy,
    Interrupt {
        unique: u64,
    },
    Forget {
        forgotten: Vec<Forget>,
    },
    /// Known to the kernel, not served: `ENOSYS`, and it stops asking.
    Unserved {
        opcode: u32,
    },
}

/// Splits one run of bytes, as `/dev/fuse` gives it, and parses it.
///
/// # Errors
/// As [`parse`]; `EIO` when it is shorter than a header.
pub fn parse_whole(bytes: &[u8]) -> Result<(Header, Operation), Errno> {
    let header = Header::parse(bytes)?;
    let body = bytes.get(size_of::<fuse_in_header>()..).ok_or(Errno::EIO)?;
    let (op, rest) = body.split_at(op_bytes(header.opcode).min(body.len()));
    Ok((header, parse(&header, op, rest)?))
}

/// Parses an operation from its first argument and what follows it. Either may be longer than what is used of it:
/// an entry's places have fixed sizes, and newer kernels append fields.
///
/// # Errors
/// `EIO` when something is missing, `ENAMETOOLONG` or `EINVAL` for names, `E2BIG` or `ERANGE` for attributes.
pub fn parse(header: &Header, op: &[u8], rest: &[u8]) -> Result<Operation, Errno> {
    let rest = &rest[..rest.len() - header.extension_bytes.min(rest.len())];
    match header.opcode {
        opcode::LOOKUP | opcode::UNLINK | opcode::RMDIR | opcode::SYMLINK | opcode::MKNOD | opcode::MKDIR => {
            parse_name_op(header.opcode, op, rest)
        }
        opcode::RENAME | opcode::RENAME2 | opcode::LINK => parse_move(header.opcode, op, rest),
        opcode::CREATE | opcode::TMPFILE | opcode::OPEN => parse_open(header.opcode, op, rest),
        opcode::GETATTR => Ok(Operation::GetAttr),
        opcode::STATX => Ok(Operation::Statx),
        opcode::SETATTR => Ok(Operation::SetAttr { change: parse_setattr(op)? }),
        opcode::READLINK => Ok(Operation::ReadLink),
        opcode::STATFS => Ok(Operation::StatFs),
        opcode::OPENDIR => Ok(Operation::OpenDir),
        opcode::RELEASEDIR => Ok(Operation::ReleaseDir),
        opcode::FSYNCDIR => Ok(Operation::FsyncDir),
        opcode::ACCESS => Ok(Operation::Access),
        opcode::DESTROY => Ok(Operation::Destroy),
        opcode::INIT => Ok(Operation::Init),
        opcode::SETXATTR | opcode::GETXATTR | opcode::LISTXATTR | opcode::REMOVEXATTR => {
            parse_xattr(header.opcode, op, rest)
        }
        opcode::GETLK | opcode::SETLK | opcode::SETLKW => parse_lock(header.opcode, op),
        opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT => parse_news(header, op, rest),
        other => parse_file_op(other, op, rest),
    }
}

/// Operations on the bytes of a file, and readdir.
fn parse_file_op(code: u32, op: &[u8], rest: &[u8]) -> Result<Operation, Errno> {
    Ok(match code {
        opcode::READ => {
            let arg: abi::fuse_read_in = take(op)?;
            Operation::Read { args: read_args(arg.fh, arg.offset, arg.flags), size: io_bytes(arg.size) }
        }
        opcode::READDIR | opcode::READDIRPLUS => {
            let arg: abi::fuse_read_in = take(op)?;
            let plus = code == opcode::READDIRPLUS;
            Operation::ReadDir { offset: arg.offset, size: io_bytes(arg.size), plus }
        }
        opcode::WRITE => {
            let arg: abi::fuse_write_in = take(op)?;
            let size = arg.size as usize;
            if size > rest.len() {
                return Err(Errno::EIO);
            }
            Operation::Write { args: write_args(arg.fh, arg.offset, arg.write_flags, arg.flags), size }
        }
        opcode::RELEASE => Operation::Release { fh: take::<abi::fuse_release_in>(op)?.fh },
        opcode::FLUSH => {
            let arg: abi::fuse_flush_in = take(op)?;
            Operation::Flush { fh: arg.fh, owner: arg.lock_owner }
        }
        opcode::FSYNC => {
            let arg: abi::fuse_fsync_in = take(op)?;
            Operation::Fsync { fh: arg.fh, data_only: arg.fsync_flags & abi::FUSE_FSYNC_FDATASYNC != 0 }
        }
        opcode::FALLOCATE => {
            let arg: abi::fuse_fallocate_in = take(op)?;
            Operation::Fallocate { fh: arg.fh, mode: arg.mode, offset: arg.offset, length: arg.length }
        }
        opcode::LSEEK => {
            let arg: abi::fuse_lseek_in = take(op)?;
            Operation::Seek { fh: arg.fh, offset: arg.offset, whence: arg.whence }
        }
        opcode::COPY_FILE_RANGE | opcode::COPY_FILE_RANGE_64 => {
            let arg: abi::fuse_copy_file_range_in = take(op)?;
            Operation::CopyRange {
                args: CopyArgs {
                    fh: arg.fh_in,
                    offset: arg.off_in,
                    target_fh: arg.fh_out,
                    target_offset: arg.off_out,
                    length: arg.len,
                    wide: code == opcode::COPY_FILE_RANGE_64,
                },
            }
        }
        opcode => Operation::Unserved { opcode },
    })
}

fn parse_name_op(code: u32, op: &[u8], rest: &[u8]) -> Result<Operation, Errno> {
    // The fixed part is looked at before the name, so that nonsense is EIO and not a name's error.
    let make = match code {
        opcode::MKNOD => {
            let arg: abi::fuse_mknod_in = take(op)?;
            MakeArgs { mode: arg.mode, umask: arg.umask, rdev: arg.rdev }
        }
        opcode::MKDIR => {
            let arg: abi::fuse_mkdir_in = take(op)?;
            MakeArgs { mode: arg.mode, umask: arg.umask, rdev: 0 }
        }
        _ => MakeArgs::default(),
    };
    let (text, behind) = take_text(rest)?;
    match text {
        b"." if code == opcode::LOOKUP => return Ok(Operation::LookupSelf),
        b".." if code == opcode::LOOKUP => return Ok(Operation::LookupParent),
        _ => {}
    }
    let name = Name::new(text)?;
    Ok(match code {
        opcode::LOOKUP => Operation::Lookup { name },
        opcode::UNLINK => Operation::Unlink { name },
        opcode::RMDIR => Operation::Rmdir { name },
        opcode::MKNOD => Operation::Mknod { name, make },
        opcode::MKDIR => Operation::Mkdir { name, make },
        _ => {
            let (target, _) = take_text(behind)?;
            if target.len() > SYMLINK_BYTES_MAX {
                return Err(Errno::ENAMETOOLONG);
            }
            Operation::Symlink { name, target: target.to_vec() }
        }
    })
}

fn parse_move(code: u32, op: &[u8], rest: &[u8]) -> Result<Operation, Errno> {
    if code == opcode::LINK {
        let nodeid = take::<abi::fuse_link_in>(op)?.oldnodeid;
        return Ok(Operation::Link { nodeid, name: Name::new(take_text(rest)?.0)? });
    }
    let (new_parent, flags) = if code == opcode::RENAME2 {
        let arg: abi::fuse_rename2_in = take(op)?;
        (arg.newdir, arg.flags)
    } else {
        (take::<abi::fuse_rename_in>(op)?.newdir, 0)
    };
    let (name, behind) = take_text(rest)?;
    let (new_name, _) = take_text(behind)?;
    Ok(Operation::Rename { name: Name::new(name)?, new_parent, new_name: Name::new(new_name)?, flags })
}

fn parse_open(code: u32, op: &[u8], rest: &[u8]) -> Result<Operation, Errno> {
    if code == opcode::OPEN {
        let arg: abi::fuse_open_in = take(op)?;
        return Ok(Operation::Open { flags: open_args(arg.flags, arg.open_flags) });
    }
    let arg: abi::fuse_create_in = take(op)?;
    let make = MakeArgs { mode: arg.mode, umask: arg.umask, rdev: 0 };
    let flags = open_args(arg.flags, arg.open_flags);
    if code == opcode::TMPFILE {
        // The kernel sends a name ("/") that means nothing.
        return Ok(Operation::TmpFile { make, flags });
    }
    Ok(Operation::Create { name: Name::new(take_text(rest)?.0)?, make, flags })
}

fn parse_setattr(op: &[u8]) -> Result<SetAttr, Errno> {
    let arg: abi::fuse_setattr_in = take(op)?;
    let valid = |bit: u32| arg.valid & bit != 0;
    let time = |given: u32, now: u32, secs: u64, nanos: u32| {
        if valid(now) { Some(SetTime::Now) } else { valid(given).then(|| SetTime::At(time_of(secs, nanos))) }
    };
    Ok(SetAttr {
        mode: valid(fattr::MODE).then_some(arg.mode & 0o7777),
        uid: valid(fattr::UID).then_some(arg.uid),
        gid: valid(fattr::GID).then_some(arg.gid),
        size: valid(fattr::SIZE).then_some(arg.size),
        atime: time(fattr::ATIME, fattr::ATIME_NOW, arg.atime, arg.atimensec),
        mtime: time(fattr::MTIME, fattr::MTIME_NOW, arg.mtime, arg.mtimensec),
        // Only writeback caching has the kernel set ctime; the server's own is the truth here.
        ctime: None,
        // chown(2) clears the bits for everybody, root included; for other changes the kernel says so.
        kill_privileges: valid(fattr::KILL_SUIDGID) || valid(fattr::UID) || valid(fattr::GID),
    })
}

fn parse_xattr(code: u32, op: &[u8], rest: &[u8]) -> Result<Operation, Errno> {
    let name = |rest: &[u8]| -> Result<(Vec<u8>, usize), Errno> {
        let (name, behind) = take_text(rest)?;
        if name.is_empty() || name.len() > XATTR_NAME_BYTES_MAX {
            return Err(Errno::ERANGE);
        }
        Ok((name.to_vec(), rest.len() - behind.len()))
    };
    Ok(match code {
        opcode::GETXATTR => {
            let size = take::<abi::fuse_getxattr_in>(op)?.size as usize;
            Operation::GetXattr { name: name(rest)?.0, size }
        }
        opcode::LISTXATTR => Operation::ListXattr { size: take::<abi::fuse_getxattr_in>(op)?.size as usize },
        opcode::REMOVEXATTR => Operation::RemoveXattr { name: name(rest)?.0 },
        _ => {
            let arg: abi::fuse_setxattr_in = take(op)?;
            let (name, behind) = name(rest)?;
            let size = arg.size as usize;
            if size > XATTR_VALUE_BYTES_MAX {
                return Err(Errno::E2BIG);
            }
            let value = rest.get(behind..behind + size).ok_or(Errno::EIO)?.to_vec();
            let mode = match xattr_mode(arg.flags)? {
                XattrMode::Any if arg.setxattr_flags & abi::FUSE_SETXATTR_ACL_KILL_SGID != 0 => {
                    XattrMode::AnyWithoutSetGid
                }
                mode => mode,
            };
            Operation::SetXattr { name, value, mode }
        }
    })
}

/// Flags of `setxattr(2)`.
///
/// # Errors
/// `EINVAL` for others than `XATTR_CREATE` and `XATTR_REPLACE`, or both.
pub fn xattr_mode(flags: u32) -> Result<XattrMode, Errno> {
    match flags {
        0 => Ok(XattrMode::Any),
        1 => Ok(XattrMode::Create),
        2 => Ok(XattrMode::Replace),
        _ => Err(Errno::EINVAL),
    }
}

fn parse_lock(code: u32, op: &[u8]) -> Result<Operation, Errno> {
    let arg: abi::fuse_lk_in = take(op)?;
    let family = if arg.lk_flags & abi::FUSE_LK_FLOCK != 0 { LockFamily::Flock } else { LockFamily::Posix };
    let lock = Lock {
        family,
        kind: lock_kind(arg.lk.r#type)?,
        owner: arg.owner,
        pid: arg.lk.pid,
        start: arg.lk.start,
        end: lock_end(arg.lk.end),
    };
    Ok(match code {
        opcode::GETLK => Operation::GetLock { lock },
        // An unlock by flock(2) comes as SETLKW, too.
        _ => {
            let wait = code == opcode::SETLKW && lock.kind != LockKind::Unlock;
            Operation::SetLock { fh: arg.fh, lock, wait }
        }
    })
}

/// `F_RDLCK`, `F_WRLCK`, `F_UNLCK`.
///
/// # Errors
/// `EINVAL` for others.
pub fn lock_kind(kind: u32) -> Result<LockKind, Errno> {
    match kind {
        0 => Ok(LockKind::Read),
        1 => Ok(LockKind::Write),
        2 => Ok(LockKind::Unlock),
        _ => Err(Errno::EINVAL),
    }
}

/// The kernel's `OFFSET_MAX` means "to the end of any file", which the wire spells `u64::MAX`.
#[must_use]
pub fn lock_end(end: u64) -> u64 {
    if end >= i64::MAX.unsigned_abs() { u64::MAX } else { end }
}

/// What has no answer.
fn parse_news(header: &Header, op: &[u8], rest: &[u8]) -> Result<Operation, Errno> {
    Ok(match header.opcode {
        opcode::INTERRUPT => Operation::Interrupt { unique: take::<abi::fuse_interrupt_in>(op)?.unique },
        opcode::FORGET => {
            let lookups = take::<abi::fuse_forget_in>(op)?.nlookup;
            Operation::Forget { forgotten: vec![Forget { nodeid: header.nodeid, lookups }] }
        }
        _ => {
            let count = take::<abi::fuse_batch_forget_in>(op)?.count as usize;
            let bytes = count.checked_mul(size_of::<abi::fuse_forget_one>()).ok_or(Errno::EIO)?;
            let list = rest.get(..bytes).ok_or(Errno::EIO)?;
            let one = |bytes: &[u8]| {
                let raw: abi::fuse_forget_one = take(bytes)?;
                Ok(Forget { nodeid: raw.nodeid, lookups: raw.nlookup })
            };
            let forgotten: Result<_, Errno> =
                list.chunks_exact(size_of::<abi::fuse_forget_one>()).map(one).collect();
            Operation::Forget { forgotten: forgotten? }
        }
    })
}

/// Seconds before 1970 come as the bits of a negative number.
#[must_use]
pub fn time_of(secs: u64, nanos: u32) -> Time {
    Time { secs: secs.cast_signed(), nanos: nanos.min(999_999_999) }
}

/// Bytes of the first argument in a contiguous request.
fn op_bytes(code: u32) -> usize {
    match code {
        opcode::FORGET => size_of::<abi::fuse_forget_in>(),
        opcode::GETATTR => size_of::<abi::fuse_getattr_in>(),
        opcode::SETATTR => size_of::<abi::fuse_setattr_in>(),
        opcode::MKNOD => size_of::<abi::fuse_mknod_in>(),
        opcode::MKDIR => size_of::<abi::fuse_mkdir_in>(),
        opcode::RENAME => size_of::<abi::fuse_rename_in>(),
        opcode::RENAME2 => size_of::<abi::fuse_rename2_in>(),
        opcode::LINK => size_of::<abi::fuse_link_in>(),
        opcode::OPEN | opcode::OPENDIR => size_of::<abi::fuse_open_in>(),
        opcode::READ | opcode::READDIR | opcode::READDIRPLUS => size_of::<abi::fuse_read_in>(),
        opcode::WRITE => size_of::<abi::fuse_write_in>(),
        opcode::RELEASE | opcode::RELEASEDIR => size_of::<abi::fuse_release_in>(),
        opcode::FSYNC | opcode::FSYNCDIR => size_of::<abi::fuse_fsync_in>(),
        opcode::SETXATTR => size_of::<abi::fuse_setxattr_in>(),
        opcode::GETXATTR | opcode::LISTXATTR => size_of::<abi::fuse_getxattr_in>(),
        opcode::FLUSH => size_of::<abi::fuse_flush_in>(),
        opcode::INIT => size_of::<abi::fuse_init_in>(),
        opcode::GETLK | opcode::SETLK | opcode::SETLKW => size_of::<abi::fuse_lk_in>(),
        opcode::ACCESS => size_of::<abi::fuse_access_in>(),
        opcode::CREATE | opcode::TMPFILE => size_of::<abi::fuse_create_in>(),
        opcode::INTERRUPT => size_of::<abi::fuse_interrupt_in>(),
        opcode::BATCH_FORGET => size_of::<abi::fuse_batch_forget_in>(),
        opcode::FALLOCATE => size_of::<abi::fuse_fallocate_in>(),
        opcode::LSEEK => size_of::<abi::fuse_lseek_in>(),
        opcode::COPY_FILE_RANGE | opcode::COPY_FILE_RANGE_64 => size_of::<abi::fuse_copy_file_range_in>(),
        opcode::STATX => size_of::<abi::fuse_statx_in>(),
        // LOOKUP, UNLINK, RMDIR, SYMLINK, REMOVEXATTR begin with a name; READLINK, STATFS, DESTROY have nothing.
        _ => 0,
    }
}

fn take<T: FromBytes>(bytes: &[u8]) -> Result<T, Errno> {
    T::read_from_prefix(bytes).map(|(value, _)| value).map_err(|_| Errno::EIO)
}

/// Bytes up to a NUL, and what is behind it. The kernel's names are shorter than a path.
fn take_text(bytes: &[u8]) -> Result<(&[u8], &[u8]), Errno> {
    let front = &bytes[..bytes.len().min(PATH_BYTES_MAX + 1)];
    let end = front.iter().position(|&byte| byte == 0).ok_or(Errno::EIO)?;
    Ok((&bytes[..end], &bytes[end + 1..]))
}

/// Bytes an answer may have: what was asked for, within what an entry holds.
fn io_bytes(size: u32) -> usize {
    (size as usize).min(FUSE_IO_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes as _;

    fn header(opcode: u32) -> Header {
        let raw = fuse_in_header { opcode, unique: 2, nodeid: 7, ..fuse_in_header::default() };
        Header::parse(raw.as_bytes()).unwrap()
    }

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn names_are_parsed_from_the_payload() {
        let parsed = parse(&header(opcode::LOOKUP), &[], b"abc\0garbage of an earlier request");
        assert_eq!(parsed, Ok(Operation::Lookup { name: name("abc") }));
        assert_eq!(parse(&header(opcode::LOOKUP), &[], b"abc"), Err(Errno::EIO));
        assert_eq!(parse(&header(opcode::LOOKUP), &[], b".\0"), Ok(Operation::LookupSelf));
        assert_eq!(parse(&header(opcode::LOOKUP), &[], b"..\0"), Ok(Operation::LookupParent));
        assert_eq!(parse(&header(opcode::UNLINK), &[], b"..\0"), Err(Errno::EINVAL));
        let long = [b'x'; 300];
        assert_eq!(
            parse(&header(opcode::LOOKUP), &[], &[&long[..], b"\0"].concat()),
            Err(Errno::ENAMETOOLONG)
        );
        let parsed = parse(&header(opcode::SYMLINK), &[], b"link\0to/there\0");
        assert_eq!(parsed, Ok(Operation::Symlink { name: name("link"), target: b"to/there".to_vec() }));
    }

    #[test]
    fn contiguous_and_split_requests_are_the_same() {
        let arg = abi::fuse_rename2_in { newdir: 9, flags: 1, padding: 0 };
        let names = b"old\0new\0";
        let bytes = 40 + 16 + names.len();
        let raw = fuse_in_header {
            len: u32::try_from(bytes).unwrap(),
            opcode: opcode::RENAME2,
            unique: 4,
            ..fuse_in_header::default()
        };
        let whole = [raw.as_bytes(), arg.as_bytes(), names].concat();
        let (header, operation) = parse_whole(&whole).unwrap();
        let wanted = Operation::Rename { name: name("old"), new_parent: 9, new_name: name("new"), flags: 1 };
        assert_eq!(operation, wanted);
        let mut op = [0; OP_BYTES_MAX];
        op[..16].copy_from_slice(arg.as_bytes());
        assert_eq!(parse(&header, &op, names), Ok(wanted));
    }

    #[test]
    fn extensions_are_not_data() {
        let mut header = header(opcode::SYMLINK);
        header.extension_bytes = 8;
        assert_eq!(parse(&header, &[], b"a\0b\0EXTENDED").err(), None);
        header.extension_bytes = 4096;
        assert_eq!(parse(&header, &[], b"a\0b\0"), Err(Errno::EIO));
    }

    #[test]
    fn setattr_bits_become_options() {
        let arg = abi::fuse_setattr_in {
            valid: fattr::MODE | fattr::ATIME | fattr::MTIME | fattr::MTIME_NOW,
            mode: 0o100_4755,
            atime: (-5_i64).cast_unsigned(),
            atimensec: 7,
            ..abi::fuse_setattr_in::default()
        };
        let Ok(Operation::SetAttr { change }) = parse(&header(opcode::SETATTR), arg.as_bytes(), &[]) else {
            panic!("not parsed");
        };
        assert_eq!(change.mode, Some(0o4755));
        assert_eq!(change.atime, Some(SetTime::At(Time { secs: -5, nanos: 7 })));
        assert_eq!(change.mtime, Some(SetTime::Now));
        assert_eq!((change.uid, change.size, change.kill_privileges), (None, None, false));
    }

    #[test]
    fn a_write_longer_than_its_payload_is_refused() {
        let arg = abi::fuse_write_in { size: 5, ..abi::fuse_write_in::default() };
        assert_eq!(parse(&header(opcode::WRITE), arg.as_bytes(), b"1234"), Err(Errno::EIO));
        let parsed = parse(&header(opcode::WRITE), arg.as_bytes(), b"123456");
        assert!(matches!(parsed, Ok(Operation::Write { size: 5, .. })));
    }

    #[test]
    fn forgets_of_any_number() {
        let one = abi::fuse_forget_one { nodeid: 5, nlookup: 2 };
        let arg = abi::fuse_batch_forget_in { count: 2, dummy: 0 };
        let list = [one.as_bytes(), one.as_bytes()].concat();
        let wanted = Forget { nodeid: 5, lookups: 2 };
        assert_eq!(
            parse(&header(opcode::BATCH_FORGET), arg.as_bytes(), &list),
            Ok(Operation::Forget { forgotten: vec![wanted, wanted] })
        );
        assert_eq!(parse(&header(opcode::BATCH_FORGET), arg.as_bytes(), &list[..31]), Err(Errno::EIO));
        let arg = abi::fuse_batch_forget_in { count: u32::MAX, dummy: 0 };
        assert_eq!(parse(&header(opcode::BATCH_FORGET), arg.as_bytes(), &list), Err(Errno::EIO));
    }

    #[test]
    fn locks_to_the_end_of_any_file() {
        let mut arg = abi::fuse_lk_in { lk_flags: abi::FUSE_LK_FLOCK, ..abi::fuse_lk_in::default() };
        arg.lk.end = i64::MAX.unsigned_abs();
        let Ok(Operation::SetLock { lock, wait, .. }) = parse(&header(opcode::SETLKW), arg.as_bytes(), &[])
        else {
            panic!("not parsed");
        };
        assert_eq!(
            (lock.family, lock.kind, lock.end, wait),
            (LockFamily::Flock, LockKind::Read, u64::MAX, true)
        );
        arg.lk.r#type = 2;
        let parsed = parse(&header(opcode::SETLKW), arg.as_bytes(), &[]);
        assert!(matches!(parsed, Ok(Operation::SetLock { wait: false, .. })), "no unlock waits");
        arg.lk.r#type = 9;
        assert_eq!(parse(&header(opcode::SETLK), arg.as_bytes(), &[]), Err(Errno::EINVAL));
    }

    #[test]
    fn unknown_operations_are_named() {
        assert_eq!(parse(&header(999), &[], &[]), Ok(Operation::Unserved { opcode: 999 }));
        assert_eq!(
            parse(&header(opcode::IOCTL), &[], &[]),
            Ok(Operation::Unserved { opcode: opcode::IOCTL })
        );
    }
}
