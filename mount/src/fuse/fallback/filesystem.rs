//! The adapter: fuser's calls as operations of `vfs`.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use flexfs_wire::attr::SetAttr;
use flexfs_wire::errno::Errno;
use flexfs_wire::limits::{FUSE_IO_BYTES_MAX, NAME_BYTES_MAX, SYMLINK_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use flexfs_wire::name::Name;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyLock, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};

use super::convert::{
    GENERATION, code, entry, file_attr, file_type, fopen, looked, plus, posix_lock, set_time, shorter, ttl,
    xattr,
};
use super::post::Fallback;
use crate::fuse::dispatch;
use crate::fuse::init;
use crate::fuse::reply::lock_code;
use crate::fuse::request;
use crate::vfs::{CopyArgs, DirItem, Forget, MakeArgs};

/// Bytes of listing fetched per request: fuser does not say how much room the kernel has left.
const LIST_BYTES: usize = 32 * 1024;
/// Unit of `statfs` figures in bytes.
const STATFS_BLOCK_BYTES: u32 = 4096;

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
        let wanted = InitFlags::from_bits_retain(init::wanted_without_parser(self.service.vfs.serves_acls()))
            & !InitFlags::FUSE_FLOCK_LOCKS;
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
        let parent = parent.0;
        // For handles of open_by_handle_at(2), and never else.
        let by_handle = matches!(name.as_bytes(), b"." | b"..").then(|| name == ".");
        if let Some(itself) = by_handle {
            return self.post(
                req,
                async move |at| {
                    if itself {
                        at.vfs.find_again(at.ctx(), parent).await
                    } else {
                        at.vfs.find_parent(at.ctx(), parent).await
                    }
                },
                answer!(reply, found => entry(reply, &found)),
            );
        }
        let name = parse_name!(name, reply);
        self.post(
            req,
            async move |at| at.vfs.lookup(at.ctx(), parent, name).await,
            answer!(reply, found => looked(reply, &found)),
        );
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.service.vfs.forget(&[Forget { nodeid: ino.0, lookups: nlookup }]);
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.post(
            req,
            async move |at| at.vfs.get_attr(at.ctx(), ino.0).await,
            answer!(reply, (attr, valid) => reply.attr(&ttl(valid), &file_attr(&attr))),
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
            async move |at| at.vfs.set_attr(at.ctx(), ino.0, change).await,
            answer!(reply, (attr, valid) => reply.attr(&ttl(valid), &file_attr(&attr))),
        );
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        self.post(
            req,
            async move |at| at.vfs.read_link(at.ctx(), ino.0).await,
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
            async move |at| at.vfs.make_node(at.ctx(), parent.0, name, args).await,
            answer!(reply, found => entry(reply, &found)),
        );
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let name = parse_name!(name, reply);
        let args = MakeArgs { mode, umask, rdev: 0 };
        self.post(
            req,
            async move |at| at.vfs.make_dir(at.ctx(), parent.0, name, args).await,
            answer!(reply, found => entry(reply, &found)),
        );
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = parse_name!(name, reply);
        self.post(
            req,
            async move |at| at.vfs.remove(at.ctx(), parent.0, name, false).await,
            answer!(reply, () => reply.ok()),
        );
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = parse_name!(name, reply);
        self.post(
            req,
            async move |at| at.vfs.remove(at.ctx(), parent.0, name, true).await,
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
            async move |at| at.vfs.make_symlink(at.ctx(), parent.0, name, target).await,
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
            async move |at| at.vfs.rename(at.ctx(), source, target, flags).await,
            answer!(reply, () => reply.ok()),
        );
    }

    fn link(&self, req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let name = parse_name!(newname, reply);
        self.post(
            req,
            async move |at| at.vfs.link(at.ctx(), ino.0, newparent.0, name).await,
            answer!(reply, found => entry(reply, &found)),
        );
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let flags = request::open_args(flags.0.cast_unsigned(), 0);
        self.post(
            req,
            async move |at| at.vfs.open(at.ctx(), ino.0, flags).await,
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
        let flags = request::open_args(flags.cast_unsigned(), 0);
        self.post(
            req,
            async move |at| at.vfs.create(at.ctx(), parent.0, name, args, flags).await,
            answer!(reply, (found, opened) => {
                let (ttl, attr) = (shorter(&found), file_attr(&found.attr));
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
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let size = (size as usize).min(FUSE_IO_BYTES_MAX);
        let args = request::read_args(fh.0, offset, flags.0.cast_unsigned());
        self.post(
            req,
            async move |at| {
                let mut out = vec![0; size];
                let read = at.vfs.read(at.ctx(), args, &mut out).await?;
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
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let args = request::write_args(fh.0, offset, write_flags.bits(), flags.0.cast_unsigned());
        let data = data.to_vec();
        self.post(
            req,
            async move |at| {
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
            async move |at| {
                at.seat.note_closing();
                at.vfs.flush(at.ctx(), fh.0, lock_owner.0).await
            },
            answer!(reply, () => reply.ok()),
        );
    }

    fn release(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.post(
            req,
            async move |at| at.vfs.release(at.ctx(), fh.0).await,
            answer!(reply, () => reply.ok()),
        );
    }

    fn fsync(&self, req: &Request, _ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.post(req, async move |at| at.vfs.fsync(at.ctx(), fh.0).await, answer!(reply, () => reply.ok()));
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.service.vfs.open_dir(ino.0) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(errno) => reply.error(code(errno)),
        }
    }

    fn readdir(&self, req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        self.post(
            req,
            async move |at| at.vfs.read_dir(at.ctx(), ino.0, offset, LIST_BYTES, false).await,
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
            async move |at| {
                let mut items = at.vfs.read_dir(at.ctx(), ino.0, offset, LIST_BYTES, true).await?;
                at.vfs.complete(at.ctx(), ino.0, &mut items).await?;
                Ok(items)
            },
            move |outcome: Result<Vec<DirItem>, Errno>| match outcome {
                Ok(mut items) => {
                    for item in &mut items {
                        vfs.accept(ino.0, item);
                        let name = OsStr::from_bytes(item.name());
                        let (attr, ttl) = plus(item);
                        if reply.add(INodeNo(item.ino), item.offset, name, &ttl, &attr, GENERATION) {
                            vfs.refuse(item);
                            break;
                        }
                    }
                    reply.ok();
                }
                Err(errno) => reply.error(code(errno)),
            },
        );
    }

    fn fsyncdir(&self, req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.post(
            req,
            async move |at| at.vfs.fsync_dir(at.ctx(), ino.0).await,
            answer!(reply, () => reply.ok()),
        );
    }

    fn statfs(&self, req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        self.post(
            req,
            async move |at| at.vfs.stat_fs(at.ctx()).await,
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
            async move |at| at.vfs.set_xattr_unsaid(at.ctx(), ino.0, name, value, mode).await,
            answer!(reply, () => reply.ok()),
        );
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let name = name.as_bytes().to_vec();
        self.post(
            req,
            async move |at| at.vfs.get_xattr(at.ctx(), ino.0, name).await,
            answer!(reply, value => xattr(reply, &value, size)),
        );
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.post(
            req,
            async move |at| at.vfs.list_xattr(at.ctx(), ino.0).await,
            answer!(reply, value => xattr(reply, &value, size)),
        );
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        self.post(
            req,
            async move |at| at.vfs.remove_xattr(at.ctx(), ino.0, name).await,
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
            async move |at| at.vfs.get_lock(at.ctx(), ino.0, lock).await,
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
        // For a lock it waits for the holder only.
        self.post_patient(
            req,
            async move |at| dispatch::set_lock(&at.vfs, at.ctx(), &at.seat, ino.0, (fh.0, lock, sleep)).await,
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
            async move |at| at.vfs.fallocate(at.ctx(), fh.0, mode, offset, length).await,
            answer!(reply, () => reply.ok()),
        );
    }

    fn lseek(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let (offset, whence) = (offset.cast_unsigned(), whence.cast_unsigned());
        self.post(
            req,
            async move |at| at.vfs.seek(at.ctx(), fh.0, offset, whence).await,
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
            async move |at| at.vfs.copy_range(at.ctx(), args).await,
            answer!(reply, bytes => reply.written(u32::try_from(bytes).unwrap_or(u32::MAX))),
        );
    }
}
