//! Open files and their bytes.

use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::limits::FILE_BYTES_MAX;
use flexfs_wire::message::{
    Caller, FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, LockFamily, Request,
};
use flexfs_wire::seal::Node;

use super::answer::Opened;
use super::args::{CopyArgs, OpenFlags, ReadArgs, WriteArgs};
use super::handle::Handle;
use super::inode::Inode;
use super::state::{Ctx, Vfs};
use super::stream::Writer;
use crate::data::{OpenMode, ReadMode, WriteMode};

/// `SEEK_DATA` of `lseek(2)`.
const SEEK_DATA: u32 = 3;
/// `SEEK_HOLE` of `lseek(2)`.
const SEEK_HOLE: u32 = 4;

impl Vfs {
    /// `open(2)` of a regular file that is there.
    ///
    /// # Errors
    /// Those of the system call; `ENFILE` when the mount has too many open files.
    pub async fn open(&self, ctx: Ctx<'_>, nodeid: u64, flags: OpenFlags) -> Result<Opened, Errno> {
        let inode = self.inodes.get(nodeid)?;
        let mode =
            OpenMode { write: flags.write, truncate: flags.truncate, kill_privileges: flags.kill_privileges };
        // Before the call: a change noticed while it runs must not be forgotten.
        let stale = inode.has_stale_pages();
        if !flags.write {
            self.note_reader(&inode);
        }
        if !flags.blind && inode.streams.forget() {
            self.note_stream_read(&inode);
        }
        let quietly = if flags.write || flags.truncate { None } else { self.open_quietly(&inode, flags) };
        let quiet = quietly.is_some();
        let mut info = match quietly {
            Some(info) => info,
            None => self.files.open(ctx.caller, inode.node, mode, Some(ctx.cancel)).await?,
        };
        inode.note_times(&mut info.attr);
        let keep_cache = info.keep_cache && !stale && !inode.has_stale_pages();
        let node = inode.node;
        let direct = flags.append || info.contended || self.expects_stream(&inode, flags);
        // Whoever has it open here and is not counted would be in another mode than the kernel knows.
        let passing = self.passing.get();
        let passed = passing.and_then(|passing| passing.open(node, info.attr.size));
        let counted = passing.map(|_| passed.is_some());
        let touches_atime = !flags.no_atime;
        let writer = flags.blind.then(Writer::default);
        match self.handles.insert(Handle { inode, touches_atime, direct, quiet, passed: counted, writer }) {
            Ok(fh) => Ok(Opened { fh, keep_cache, direct, passed }),
            Err(errno) => {
                self.close_passing(node.ino, counted);
                self.close_open(ctx.caller, node, quiet);
                Err(errno)
            }
        }
    }

    /// `pread(2)` into `out`: short only at the end of the file.
    ///
    /// # Errors
    /// `ESTALE` for a handle of another life of this program, `EIO`, `EINTR`.
    pub async fn read(&self, ctx: Ctx<'_>, args: ReadArgs, out: &mut [u8]) -> Result<usize, Errno> {
        let handle = self.handles.get(args.fh)?;
        let how = ReadMode { direct: args.direct || handle.direct };
        let got =
            self.files.read(ctx.caller, handle.inode.node, args.offset, out, how, Some(ctx.cancel)).await?;
        if got.is_unheld {
            self.drop_filled(&handle.inode, args.offset..args.offset + out.len() as u64);
        }
        if handle.touches_atime && got.bytes > 0 {
            self.touch_atime(&handle.inode);
        }
        Ok(got.bytes)
    }

    /// `pwrite(2)`: all of it, or an error.
    ///
    /// # Errors
    /// Those of the system call.
    pub async fn write(&self, ctx: Ctx<'_>, args: WriteArgs, data: &[u8]) -> Result<usize, Errno> {
        let handle = self.handles.get(args.fh)?;
        let inode = &handle.inode;
        let node = inode.node;
        let end = args.offset.checked_add(data.len() as u64).ok_or(Errno::EFBIG)?;
        if end > FILE_BYTES_MAX {
            return Err(Errno::EFBIG);
        }
        let how = WriteMode {
            kill_privileges: args.kill_privileges,
            // A description that became an appending one only later goes through the kernel's pages.
            append: args.append && handle.direct,
            from_pages: args.from_pages,
            direct: args.direct || handle.direct && !args.from_pages,
        };
        if self.files.write(ctx.caller, node, args.offset, data, how, Some(ctx.cancel)).await? {
            self.forget_pages(inode.nodeid, args.offset..end).await;
        }
        if let Some(writer) = &handle.writer {
            writer.note(args.offset, data.len() as u64);
        }
        if args.sync {
            self.sync(ctx, inode).await?;
        }
        Ok(data.len())
    }

    /// One of the file's descriptors is closed: what was written goes out, POSIX locks of its owner end.
    ///
    /// # Errors
    /// The first failure of writes since the last flush.
    pub async fn flush(&self, ctx: Ctx<'_>, fh: u64, owner: u64) -> Result<(), Errno> {
        let inode = &self.handles.get(fh)?.inode;
        let flushed = match self.closes_behind {
            true => self.files.flush_closed(inode.node, Some(ctx.cancel)).await,
            false => self.files.flush(inode.node, Some(ctx.cancel)).await,
        };
        let gone = |one: &super::inode::Owner| one.family == LockFamily::Posix && one.owner == owner;
        for owner in inode.take_owners(gone) {
            let request = Request::Unlock { node: inode.node, family: owner.family, owner: owner.owner };
            self.call_done(ctx, request).await?;
        }
        flushed
    }

    /// The last descriptor and mapping is gone. Nobody waits for this, so it waits for nothing: what is still dirty goes
    /// out behind it.
    ///
    /// # Errors
    /// `ESTALE`.
    pub async fn release(&self, ctx: Ctx<'_>, fh: u64) -> Result<(), Errno> {
        let handle = self.handles.remove(fh).ok_or(Errno::ESTALE)?;
        let node = handle.inode.node;
        // flock and OFD locks belong to the description that ends here; the kernel does not send their unlocks.
        for owner in handle.inode.take_owners(|one| one.fh == fh) {
            let request = Request::Unlock { node, family: owner.family, owner: owner.owner };
            self.remote.call_later(ctx.caller, request);
        }
        if let Some(writer) = &handle.writer {
            self.note_written(&handle.inode, writer);
        }
        self.close_passing(node.ino, handle.passed);
        self.close_open(ctx.caller, node, handle.quiet);
        Ok(())
    }

    /// Whether a file that is opened like this will be written and not read, as those of its directory before it.
    pub(super) fn expects_stream(&self, inode: &Inode, flags: OpenFlags) -> bool {
        flags.blind && self.inodes.home(inode).is_some_and(|dir| dir.streams.has_some())
    }

    /// Whether a file that is made there will be small, and not be read soon.
    pub(super) fn expects_small(&self, dir: &Inode, flags: OpenFlags) -> bool {
        flags.blind && dir.smalls.has_some() && !dir.appetite.has_some()
    }

    /// A file that was only written is closed.
    fn note_written(&self, inode: &Inode, writer: &Writer) {
        let dir = self.inodes.home(inode);
        if writer.is_stream() {
            inode.streams.add();
            if let Some(dir) = &dir {
                dir.streams.add();
            }
        }
        if let Some(dir) = dir {
            dir.smalls.note(writer.farthest());
        }
    }

    /// One of those is read after all.
    fn note_stream_read(&self, inode: &Inode) {
        if let Some(dir) = self.inodes.home(inode) {
            dir.streams.forget();
        }
    }

    pub(super) fn close_open(&self, caller: Caller, node: Node, quiet: bool) {
        if quiet {
            self.close_quietly(caller, node);
        } else {
            self.files.close(caller, node);
        }
    }

    fn close_passing(&self, ino: Ino, passed: Option<bool>) {
        if let (Some(passing), Some(passed)) = (self.passing.get(), passed) {
            passing.close(ino, passed);
        }
    }

    /// `fsync(2)`. `fdatasync(2)` is no cheaper: size and extents are data of the server's history.
    ///
    /// # Errors
    /// Those of the system call.
    pub async fn fsync(&self, ctx: Ctx<'_>, fh: u64) -> Result<(), Errno> {
        let handle = self.handles.get(fh)?;
        self.sync(ctx, &handle.inode).await
    }

    /// `fallocate(2)`: allocate, punch, zero.
    ///
    /// # Errors
    /// Those of the system call.
    pub async fn fallocate(
        &self,
        ctx: Ctx<'_>,
        fh: u64,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> Result<(), Errno> {
        if mode & !(FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE | FALLOC_ZERO_RANGE) != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if offset.checked_add(length).is_none_or(|end| end > FILE_BYTES_MAX) {
            return Err(Errno::EFBIG);
        }
        let handle = self.handles.get(fh)?;
        let node = handle.inode.node;
        self.files.fallocate(ctx.caller, node, mode, offset, length, Some(ctx.cancel)).await
    }

    /// `lseek(2)` to data or a hole.
    ///
    /// # Errors
    /// `ENXIO` past the end, `EINVAL` for other kinds of seeking.
    pub async fn seek(&self, ctx: Ctx<'_>, fh: u64, offset: u64, whence: u32) -> Result<u64, Errno> {
        if !matches!(whence, SEEK_DATA | SEEK_HOLE) {
            return Err(Errno::EINVAL);
        }
        let handle = self.handles.get(fh)?;
        let hole = whence == SEEK_HOLE;
        self.files.seek(ctx.caller, handle.inode.node, offset, hole, Some(ctx.cancel)).await
    }

    /// `copy_file_range(2)`: no data moves.
    ///
    /// # Errors
    /// Those of the system call.
    pub async fn copy_range(&self, ctx: Ctx<'_>, args: CopyArgs) -> Result<u64, Errno> {
        let source = self.handles.get(args.fh)?;
        let target = self.handles.get(args.target_fh)?;
        // The narrow answer cannot say more; the system call may always copy less than asked.
        let most = if args.wide { FILE_BYTES_MAX } else { u64::from(!4095_u32) };
        self.files
            .copy_range(
                ctx.caller,
                (source.inode.node, args.offset),
                (target.inode.node, args.target_offset),
                args.length.min(most),
                Some(ctx.cancel),
            )
            .await
    }
}
