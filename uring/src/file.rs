//! Files and other descriptors: reads and writes with owned buffers, and the few calls on names a block store needs.
//!
//! Every read appends to the spare capacity of the vector it is given (reserve it first) and every call gives the
//! vector back, whatever came out.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use io_uring::types::FsyncFlags;
use rustix::event::{EventfdFlags, PollFlags};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::call::{Drain, Fill, Plain, Walk};
use crate::op::SharedFd;
use crate::shard::current;
use crate::sys;

/// `offset` that means the file's own position (`-1` in io_uring_enter(2)); also right where there is none.
const CURRENT_POSITION: u64 = u64::MAX;

/// An open descriptor. It may move between shards; an operation belongs to the shard that awaits it.
#[derive(Debug, Clone)]
pub struct File {
    fd: SharedFd,
}

impl From<OwnedFd> for File {
    fn from(fd: OwnedFd) -> Self {
        Self { fd: Arc::new(fd) }
    }
}

impl From<Arc<OwnedFd>> for File {
    fn from(fd: Arc<OwnedFd>) -> Self {
        Self { fd }
    }
}

impl From<std::fs::File> for File {
    fn from(file: std::fs::File) -> Self {
        Self::from(OwnedFd::from(file))
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl File {
    /// Opens a file as `open(2)` does; O_CLOEXEC is added. `mode` counts for files that are created.
    ///
    /// # Errors
    /// Those of `open(2)`; InvalidInput for a path with a NUL byte.
    pub async fn open(path: &Path, flags: OFlags, mode: u32) -> io::Result<Self> {
        let flags = (flags | OFlags::CLOEXEC).bits().cast_signed();
        let op = Walk::Open { path: c_path(path)?, flags, mode }.start();
        op.into_descriptor().await.map(Self::from)
    }

    /// Reads what one `pread(2)` gives, into the spare capacity of `buffer`; 0 is the end of the file.
    pub async fn read_at(&self, buffer: Vec<u8>, offset: u64) -> (io::Result<usize>, Vec<u8>) {
        Fill::Read { offset }.run(&self.fd, buffer, usize::MAX).await
    }

    /// Appends exactly `count` bytes from `offset` on. UnexpectedEof when the file ends before; what was read until
    /// then is in the buffer.
    pub async fn read_exact_at(
        &self,
        mut buffer: Vec<u8>,
        count: usize,
        offset: u64,
    ) -> (io::Result<()>, Vec<u8>) {
        buffer.reserve(count);
        let mut done = 0;
        while done < count {
            let position = offset + done as u64;
            let (read, back) = Fill::Read { offset: position }.run(&self.fd, buffer, count - done).await;
            buffer = back;
            match read {
                Ok(0) => return (Err(io::ErrorKind::UnexpectedEof.into()), buffer),
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (Err(error), buffer),
            }
        }
        (Ok(()), buffer)
    }

    /// Writes what one `pwrite(2)` takes of `buffer`.
    pub async fn write_at(&self, buffer: Vec<u8>, offset: u64) -> (io::Result<usize>, Vec<u8>) {
        Drain::Write { offset }.run(&self.fd, buffer, 0).await
    }

    /// Writes all of `buffer` at `offset`. WriteZero when the file takes no more.
    pub async fn write_all_at(&self, mut buffer: Vec<u8>, offset: u64) -> (io::Result<()>, Vec<u8>) {
        let mut done = 0;
        while done < buffer.len() {
            let position = offset + done as u64;
            let (written, back) = Drain::Write { offset: position }.run(&self.fd, buffer, done).await;
            buffer = back;
            match written {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buffer),
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (Err(error), buffer),
            }
        }
        (Ok(()), buffer)
    }

    /// Reads once from a pipe, an eventfd, /dev/fuse or the file's position, into the spare capacity of `buffer`.
    /// On a descriptor with O_NONBLOCK that has nothing it waits until it has.
    pub async fn read(&self, mut buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        loop {
            let (read, back) =
                Fill::Read { offset: CURRENT_POSITION }.run(&self.fd, buffer, usize::MAX).await;
            match read {
                Err(error) if Errno::from_io_error(&error) == Some(Errno::AGAIN) => buffer = back,
                _ => return (read, back),
            }
            if let Err(error) = self.readable().await {
                return (Err(error), buffer);
            }
        }
    }

    /// Writes once to a pipe, a device or the file's position. A message (an answer or a notice to /dev/fuse) goes
    /// out whole or not at all.
    pub async fn write(&self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        Drain::Write { offset: CURRENT_POSITION }.run(&self.fd, buffer, 0).await
    }

    /// Waits until a read would not block, or would fail.
    ///
    /// # Errors
    /// Those of `poll(2)`; EPERM for descriptors that cannot be polled.
    pub async fn readable(&self) -> io::Result<()> {
        let poll = Plain::Poll { events: u32::from(PollFlags::IN.bits()) };
        let (res, _) = poll.start(&current(), &self.fd).await;
        sys::outcome(res).map(drop)
    }

    /// Makes data and size durable (`fdatasync(2)`).
    ///
    /// # Errors
    /// Those of `fdatasync(2)`; after one, what was written before must be taken for lost.
    pub async fn fdatasync(&self) -> io::Result<()> {
        self.sync(FsyncFlags::DATASYNC).await
    }

    /// Makes data and all attributes durable (`fsync(2)`); on a directory, its names.
    ///
    /// # Errors
    /// As [`File::fdatasync`].
    pub async fn fsync(&self) -> io::Result<()> {
        self.sync(FsyncFlags::empty()).await
    }

    async fn sync(&self, flags: FsyncFlags) -> io::Result<()> {
        let (res, _) = Plain::Sync { flags }.start(&current(), &self.fd).await;
        sys::outcome(res).map(drop)
    }
}

/// Renames within one file system, replacing `to` (`rename(2)`).
///
/// # Errors
/// Those of `rename(2)`; InvalidInput for a path with a NUL byte.
pub async fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let op = Walk::Rename { from: c_path(from)?, to: c_path(to)? }.start();
    sys::outcome(op.await.0).map(drop)
}

/// Removes a name that is not a directory (`unlink(2)`).
///
/// # Errors
/// Those of `unlink(2)`; InvalidInput for a path with a NUL byte.
pub async fn unlink(path: &Path) -> io::Result<()> {
    let op = Walk::Unlink { path: c_path(path)? }.start();
    sys::outcome(op.await.0).map(drop)
}

/// Makes a directory (`mkdir(2)`).
///
/// # Errors
/// Those of `mkdir(2)`; InvalidInput for a path with a NUL byte.
pub async fn mkdir(path: &Path, mode: u32) -> io::Result<()> {
    let op = Walk::MkDir { path: c_path(path)?, mode }.start();
    sys::outcome(op.await.0).map(drop)
}

/// A counter that any thread may raise and one task waits for: `eventfd(2)`.
#[derive(Debug, Clone)]
pub struct EventFd {
    file: File,
}

impl EventFd {
    /// Makes one that counts nothing yet.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> io::Result<Self> {
        Ok(Self { file: File::from(rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?) })
    }

    /// Raises the counter and wakes the waiter; from any thread, also one that is no shard.
    ///
    /// # Errors
    /// None in practice: the counter would have to reach 2^64 - 2.
    pub fn notify(&self) -> io::Result<()> {
        rustix::io::write(&self.file, &1_u64.to_ne_bytes())?;
        Ok(())
    }

    /// Waits until the counter is not zero, takes it and sets it back to zero.
    ///
    /// # Errors
    /// ECANCELED when the shard ends.
    pub async fn wait(&self) -> io::Result<u64> {
        let (read, buffer) = self.file.read(Vec::with_capacity(size_of::<u64>())).await;
        read?;
        let count = buffer.as_slice().try_into().map_err(|_| io::ErrorKind::UnexpectedEof)?;
        Ok(u64::from_ne_bytes(count))
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a path must not hold a NUL byte"))
}
