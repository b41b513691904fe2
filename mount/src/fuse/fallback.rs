//! `--transport dev`: kernels without FUSE over io_uring, through the crate `fuser`.
//!
//! fuser's threads read `/dev/fuse`; each request is posted to the shard of the CPU it came in on and answered from
//! there by the same `vfs`. What fuser 0.18 cannot pass on, and what follows for this transport:
//! - INTERRUPT (it answers ENOSYS): callers of long operations are looked at instead (`seat`), so a killed process
//!   goes away within a second.
//! - the family of a lock: `flock(2)` is left to this machine's kernel, `fcntl(2)` locks hold across machines.
//! - `O_TMPFILE` and STATX: the first answers EOPNOTSUPP, birth times are not shown.
//! - `FUSE_HANDLE_KILLPRIV_V2`: the kernel clears set-uid bits by a SETATTR of its own.

use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flexfs_uring::{ShardHandle, cpu};
use flexfs_wire::attr::{Attr, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFSOCK, SetAttr, SetTime};
use flexfs_wire::errno::Errno;
use flexfs_wire::limits::{FUSE_IO_BYTES_MAX, NAME_BYTES_MAX, SYMLINK_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use flexfs_wire::message::{Caller, Lock, LockFamily};
use flexfs_wire::name::Name;
use flexfs_wire::time::Time;
use fuser::{
    BsdFileFlags, Config, CopyFileRangeFlags, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags as FuserOpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLock, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, Session, SessionACL, TimeOrNow, WriteFlags,
};

use super::init;
use super::queue::Service;
use super::reply::lock_code;
use super::request::{self, CopyArgs, Forget, MakeArgs, OpenFlags, WriteArgs};
use super::seat::Seat;
use crate::vfs::{Ctx, DirItem, Found, Opened, ValidFor, Vfs};

/// Numbers are never reused in a volume, so every inode has the same generation.
const GENERATION: Generation = Generation(0);
/// Bytes of listing fetched per request: fuser does not say how much room the kernel has left.
const LIST_BYTES: usize = 32 * 1024;
/// Unit of `statfs` figures in bytes.
const STATFS_BLOCK_BYTES: u32 = 4096;

/// Runs fuser on a mounted, blocking device until the file system is unmounted. Returns when INIT is done; the
/// thread's result says how it ended.
///
/// # Errors
/// When the kernel and fuser do not come to terms.
pub fn run(
    device: OwnedFd,
    service: Service,
    shards: Vec<(u32, ShardHandle)>,
) -> io::Result<std::thread::JoinHandle<io::Result<()>>> {
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.n_threads = Some(shards.len().max(1));
    config.clone_fd = true;
    let fallback = Fallback { service, shards, turn: AtomicUsize::new(0) };
    let session = Session::from_fd(fallback, device, SessionACL::All, config)?;
    std::thread::Builder::new().name("fuser".to_owned()).spawn(move || session.run())
}

/// The adapter.
#[derive(Debug)]
struct Fallback {
    service: Service,
    /// Shards and the CPUs they are pinned to.
    shards: Vec<(u32, ShardHandle)>,
    turn: AtomicUsize,
}

/// A request on its shard.
struct At {
    vfs: Arc<Vfs>,
    seat: Arc<Seat>,
    caller: Caller,
}

impl At {
    fn ctx(&self) -> Ctx<'_> {
        Ctx { caller: self.caller, cancel: &self.seat.cancel }
    }
}

impl Fallback {
    /// Runs an operation on a shard and passes its outcome on. If the shard has ended, `done` is dropped, and with it
    /// the reply, which then is EIO.
    fn post<T, F, Fut>(&self, req: &Request, operation: F, done: impl FnOnce(Result<T, Errno>) + Send + 'static)
    where
        T: 'static,
        F: FnOnce(At) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, Errno>> + 'static,
    {
        let service = self.service.clone();
        let (unique, pid) = (req.unique().0, req.pid());
        let caller = Caller { uid: req.uid(), gid: req.gid() };
        let posted = self.shard().spawn_with(move || async move {
            let seat = service.seats.lend();
            service.seats.begin(&seat, unique, pid);
            let at = At { vfs: Arc::clone(&service.vfs), seat: Arc::clone(&seat), caller };
            let outcome = operation(at).await;
            if let Err(errno) = &outcome {
                log_errno(*errno, unique, pid);
            }
            seat.end(outcome.is_err());
            done(outcome);
            service.seats.give_back(seat);
        });
        if !posted {
            tracing::debug!(unique, "a request came after the end of its shard");
        }
    }

    /// The shard of this CPU, or the next in turn.
    fn shard(&self) -> &ShardHandle {
        let here = cpu::current();
        let turn = || self.turn.fetch_add(1, Ordering::Relaxed) % self.shards.len();
        let index = self.shards.iter().position(|(cpu, _)| *cpu == here).unwrap_or_else(turn);
        &self.shards[index].1
    }
}

fn log_errno(errno: Errno, unique: u64, pid: u32) {
    match errno {
        Errno::EIO | Errno::EPROTO => tracing::warn!(%errno, unique, pid, "an operation failed"),
        _ => tracing::debug!(%errno, unique, pid, "an operation was refused"),
    }
}

/// Answers with a value, or an errno.
macro_rules! answer {
    ($reply:ident, $value:pat => $good:expr) => {
        move |outcome| match outcome {
            Ok($value) => $good,
            Err(errno) => $reply.error(code(errno)),
        }
    };
}

/// Parses a name, or answers the request with its errno.
macro_rules! parse_name {
    ($name:expr, $reply:ident) => {
        match Name::new($name.as_bytes()) {
            Ok(name) => name,
            Err(errno) => return $reply.error(code(errno)),
        }
    };
}

impl Filesystem for Fallback {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // The kind of a lock does not come through; see the module's head.
        let wanted = InitFlags::from_bits_retain(init::wanted_without_parser()) & !InitFlags::FUSE_FLOCK_LOCKS;
        let offered = config.capabilities() & wanted;
        // None of these can fail: what is asked for was offered, and the numbers are within fuser's bounds.
        let refused = (
            config.add_capabilities(offered).err(),
            config.set_max_write(u32::try_from(FUSE_IO_BYTES_MAX).unwrap_or(u32::MAX)).err(),
            config.set_max_background(init::max_background()).err(),
        );
        tracing::debug!(?offered, ?refused, "INIT through fuser");
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = parse_name!(name, reply);
        self.post(
            req,
            move |at| async move { at.vfs.lookup(at.ctx(), parent.0, name).await },
            answer!(reply, found => entry(reply, &found)),
        );
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.service.vfs.forget(&[Forget { nodeid: ino.0, lookups: nlookup }]);
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.post(
            req,
            move |at| async move { at.vfs.get_attr(at.ctx(), ino.0).await },
            answer!(reply, attr => reply.attr(&ttl(ValidFor::SECOND), &file_attr(&attr))),
        );
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = SetAttr {
            mode: mode.map(|mode| mode & 0o7777),
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
            ctime: None,
            kill_privileges: mode.is_none() && (uid.is_some() || gid.is_some()),
        };
        self.post(
            req,
            move |at| async move { at.vfs.set_attr(at.ctx(), ino.0, change).await },
            answer!(reply, attr => reply.attr(&ttl(ValidFor::SECOND), &file_attr(&attr))),
        );
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        self.post(
            req,
            move |at| async move { at.vfs.read_link(at.ctx(), ino.0).await },
            answer!(reply, target => reply.data(&target)),
        );
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let name = parse_name!(name, reply);
        let args = MakeArgs { mode, umask, rdev };
        self.post(
            req,
            move |at| async move { at.vfs.make_node(at.ctx(), parent.0, name, args).await },
            answer!(reply, found => entry(reply, &found)),
        );
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let name = parse_name!(name, reply);
        let args = MakeArgs { mode, umask, rdev: 0 };
        self.post(
            req,
            move |at| async move { at.vfs.make_dir(at.ctx(), parent.0, name, args).await },
            answer!(reply, found => entry(reply, &found)),
        );
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = parse_name!(name, reply);
        self.post(
            req,
            move |at| async move { at.vfs.remove(at.ctx(), parent.0, name, false).await },
            answer!(reply, () => reply.ok()),
        );
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = parse_name!(name, reply);
        self.post(
            req,
            move |at| async move { at.vfs.remove(at.ctx(), parent.0, name, true).await },
            answer!(reply, () => reply.ok()),
        );
    }

    fn symlink(&self, req: &Request, parent: INodeNo, link_name: &OsStr, target: &Path, reply: ReplyEntry) {
        let name = parse_name!(link_name, reply);
        let target = target.as_os_str().as_bytes().to_vec();
        if target.len() > SYMLINK_BYTES_MAX {
            return reply.error(code(Errno::ENAMETOOLONG));
        }
        self.post(
            req,
            move |at| async move { at.vfs.make_symlink(at.ctx(), parent.0, name, target).await },
            answer!(reply, found => entry(reply, &found)),
        );
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let source = (parent.0, parse_name!(name, reply));
        let target = (newparent.0, parse_name!(newname, reply));
        let flags = flags.bits();
        self.post(
            req,
            move |at| async move { at.vfs.rename(at.ctx(), source, target, flags).await },
            answer!(reply, () => reply.ok()),
        );
    }

    fn link(&self, req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let name = parse_name!(newname, reply);
        self.post(
            req,
            move |at| async move { at.vfs.link(at.ctx(), ino.0, newparent.0, name).await },
            answer!(reply, found => entry(reply, &found)),
        );
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: FuserOpenFlags, reply: ReplyOpen) {
        let flags = OpenFlags::new(flags.0.cast_unsigned(), 0);
        self.post(
            req,
            move |at| async move { at.vfs.open(at.ctx(), ino.0, flags).await },
            answer!(reply, opened => reply.opened(FileHandle(opened.fh), fopen(&opened))),
        );
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let name = parse_name!(name, reply);
        let args = MakeArgs { mode, umask, rdev: 0 };
        let flags = OpenFlags::new(flags.cast_unsigned(), 0);
        self.post(
            req,
            move |at| async move { at.vfs.create(at.ctx(), parent.0, name, args, flags).await },
            answer!(reply, (found, opened) => {
                let (ttl, attr) = (ttl(found.entry_valid), file_attr(&found.attr));
                reply.created(&ttl, &attr, GENERATION, FileHandle(opened.fh), fopen(&opened));
            }),
        );
    }

    fn read(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: FuserOpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let size = (size as usize).min(FUSE_IO_BYTES_MAX);
        self.post(
            req,
            move |at| async move {
                let mut out = vec![0; size];
                let read = at.vfs.read(at.ctx(), fh.0, offset, &mut out).await?;
                at.seat.count_read(read);
                out.truncate(read);
                Ok(out)
            },
            answer!(reply, data => reply.data(&data)),
        );
    }

    fn write(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: FuserOpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let args = WriteArgs::new(fh.0, offset, write_flags.bits(), flags.0.cast_unsigned());
        let data = data.to_vec();
        self.post(
            req,
            move |at| async move {
                let written = at.vfs.write(at.ctx(), args, &data).await?;
                at.seat.count_written(written);
                Ok(written)
            },
            answer!(reply, written => reply.written(u32::try_from(written).unwrap_or(0))),
        );
    }

    fn flush(&self, req: &Request, _ino: INodeNo, fh: FileHandle, lock_owner: LockOwner, reply: ReplyEmpty) {
        self.post(
            req,
            move |at| async move { at.vfs.flush(at.ctx(), fh.0, lock_owner.0).await },
            answer!(reply, () => reply.ok()),
        );
    }

    fn release(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: FuserOpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.post(
            req,
            move |at| async move { at.vfs.release(at.ctx(), fh.0).await },
            answer!(reply, () => reply.ok()),
        );
    }

    fn fsync(&self, req: &Request, _ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.post(
            req,
            move |at| async move { at.vfs.fsync(at.ctx(), fh.0).await },
            answer!(reply, () => reply.ok()),
        );
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: FuserOpenFlags, reply: ReplyOpen) {
        match self.service.vfs.open_dir(ino.0) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(errno) => reply.error(code(errno)),
        }
    }

    fn readdir(&self, req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        self.post(
            req,
            move |at| async move { at.vfs.read_dir(at.ctx(), ino.0, offset, LIST_BYTES, false).await },
            move |outcome| match outcome {
                Ok(items) => {
                    for item in &items {
                        let name = OsStr::from_bytes(item.name());
                        if reply.add(INodeNo(item.ino), item.offset, file_type(item.kind), name) {
                            break;
                        }
                    }
                    reply.ok();
                }
                Err(errno) => reply.error(code(errno)),
            },
        );
    }

    fn readdirplus(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let vfs = Arc::clone(&self.service.vfs);
        self.post(
            req,
            move |at| async move { at.vfs.read_dir(at.ctx(), ino.0, offset, LIST_BYTES, true).await },
            move |outcome: Result<Vec<DirItem>, Errno>| match outcome {
                Ok(items) => {
                    for item in &items {
                        let name = OsStr::from_bytes(item.name());
                        let (attr, ttl) = plus(item);
                        if reply.add(INodeNo(item.ino), item.offset, name, &ttl, &attr, GENERATION) {
                            break;
                        }
                        vfs.accept(ino.0, item);
                    }
                    reply.ok();
                }
                Err(errno) => reply.error(code(errno)),
            },
        );
    }

    fn fsyncdir(&self, req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.post(
            req,
            move |at| async move { at.vfs.fsync_dir().await },
            answer!(reply, () => reply.ok()),
        );
    }

    fn statfs(&self, req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        self.post(
            req,
            move |at| async move { at.vfs.stat_fs(at.ctx()).await },
            answer!(reply, figures => {
                let unit = u64::from(STATFS_BLOCK_BYTES);
                let (total, free) = (figures.bytes_total / unit, figures.bytes_free / unit);
                let names = u32::try_from(NAME_BYTES_MAX).unwrap_or(u32::MAX);
                let (inodes, spare) = (figures.inodes_total, figures.inodes_free);
                reply.statfs(total, free, free, inodes, spare, STATFS_BLOCK_BYTES, names, STATFS_BLOCK_BYTES);
            }),
        );
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return reply.error(code(Errno::E2BIG));
        }
        let mode = match request::xattr_mode(flags.cast_unsigned()) {
            Ok(mode) => mode,
            Err(errno) => return reply.error(code(errno)),
        };
        let (name, value) = (name.as_bytes().to_vec(), value.to_vec());
        self.post(
            req,
            move |at| async move { at.vfs.set_xattr(at.ctx(), ino.0, name, value, mode).await },
            answer!(reply, () => reply.ok()),
        );
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let name = name.as_bytes().to_vec();
        self.post(
            req,
            move |at| async move { at.vfs.get_xattr(at.ctx(), ino.0, name).await },
            answer!(reply, value => xattr(reply, &value, size)),
        );
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.post(
            req,
            move |at| async move { at.vfs.list_xattr(at.ctx(), ino.0).await },
            answer!(reply, value => xattr(reply, &value, size)),
        );
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        self.post(
            req,
            move |at| async move { at.vfs.remove_xattr(at.ctx(), ino.0, name).await },
            answer!(reply, () => reply.ok()),
        );
    }

    fn getlk(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        lock_owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        let lock = match posix_lock(lock_owner, (start, end), typ, pid) {
            Ok(lock) => lock,
            Err(errno) => return reply.error(code(errno)),
        };
        self.post(
            req,
            move |at| async move { at.vfs.get_lock(at.ctx(), ino.0, lock).await },
            answer!(reply, lock => {
                let end = lock.end.min(i64::MAX.unsigned_abs());
                reply.locked(lock.start, end, lock_code(lock.kind).cast_signed(), lock.pid);
            }),
        );
    }

    fn setlk(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        lock_owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        let lock = match posix_lock(lock_owner, (start, end), typ, pid) {
            Ok(lock) => lock,
            Err(errno) => return reply.error(code(errno)),
        };
        self.post(
            req,
            move |at| async move {
                if sleep {
                    at.seat.accept_any_signal();
                }
                at.vfs.set_lock(at.ctx(), ino.0, fh.0, lock, sleep).await
            },
            answer!(reply, () => reply.ok()),
        );
    }

    fn fallocate(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mode = mode.cast_unsigned();
        self.post(
            req,
            move |at| async move { at.vfs.fallocate(at.ctx(), fh.0, mode, offset, length).await },
            answer!(reply, () => reply.ok()),
        );
    }

    fn lseek(&self, req: &Request, _ino: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let (offset, whence) = (offset.cast_unsigned(), whence.cast_unsigned());
        self.post(
            req,
            move |at| async move { at.vfs.seek(at.ctx(), fh.0, offset, whence).await },
            answer!(reply, offset => reply.offset(offset.cast_signed())),
        );
    }

    fn copy_file_range(
        &self,
        req: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let args = CopyArgs {
            fh: fh_in.0,
            offset: offset_in,
            target_fh: fh_out.0,
            target_offset: offset_out,
            length: len,
            wide: false,
        };
        self.post(
            req,
            move |at| async move { at.vfs.copy_range(at.ctx(), args).await },
            answer!(reply, bytes => reply.written(u32::try_from(bytes).unwrap_or(u32::MAX))),
        );
    }
}

fn code(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.0)
}

fn entry(reply: ReplyEntry, found: &Found) {
    let (attr_ttl, entry_ttl) = (ttl(found.attr_valid), ttl(found.entry_valid));
    reply.entry_with_ttls(&attr_ttl, &entry_ttl, &file_attr(&found.attr), GENERATION);
}

fn xattr(reply: ReplyXattr, value: &[u8], room: u32) {
    match (room, u32::try_from(value.len())) {
        (_, Err(_)) => reply.error(code(Errno::E2BIG)),
        (0, Ok(size)) => reply.size(size),
        (room, Ok(size)) if size > room => reply.error(code(Errno::ERANGE)),
        (_, Ok(_)) => reply.data(value),
    }
}

/// Attributes of a line; `.` and `..` have none the kernel looks at.
fn plus(item: &DirItem) -> (FileAttr, Duration) {
    match &item.found {
        Some(found) => (file_attr(&found.attr), ttl(found.entry_valid)),
        None => {
            let blank = Attr {
                ino: flexfs_wire::id::Ino(item.ino),
                mode: item.kind,
                nlink: 1,
                uid: 0,
                gid: 0,
                rdev: 0,
                size: 0,
                blocks: 0,
                atime: Time::default(),
                mtime: Time::default(),
                ctime: Time::default(),
                btime: Time::default(),
                version: 0,
            };
            (file_attr(&blank), Duration::ZERO)
        }
    }
}

fn posix_lock(owner: LockOwner, (start, end): (u64, u64), typ: i32, pid: u32) -> Result<Lock, Errno> {
    let kind = request::lock_kind(typ.cast_unsigned())?;
    let end = request::lock_end(end);
    Ok(Lock { family: LockFamily::Posix, kind, owner: owner.0, pid, start, end })
}

fn ttl(valid: ValidFor) -> Duration {
    let (secs, nanos) = valid.parts();
    Duration::new(secs, nanos)
}

fn fopen(opened: &Opened) -> FopenFlags {
    let mut flags = FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache);
    flags
}

fn file_attr(attr: &Attr) -> FileAttr {
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
        blksize: super::reply::BLOCK_BYTES_SHOWN,
        flags: 0,
    }
}

fn file_type(kind: u32) -> FileType {
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

fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => {
            let (secs, nanos) = flexfs_uring::clock::parts(time);
            SetTime::At(Time { secs, nanos })
        }
    }
}

fn system_time(time: Time) -> SystemTime {
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
            assert_eq!(set_time(TimeOrNow::SpecificTime(system_time(time))), SetTime::At(time));
        }
        assert_eq!(system_time(Time { secs: i64::MAX, nanos: 0 }), UNIX_EPOCH);
    }
}
