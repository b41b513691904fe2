//! The operations this crate asks of the kernel, apart from FUSE's and the shards' own wake-ups.
//!
//! Each enum is a family that uses memory in one way, and its function is the only place where such an entry is built:
//! what a caller can name is an operation, never an address.
#![expect(unsafe_code, reason = "builds entries that refer to memory, and gives that memory to their slots")]

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;

use io_uring::opcode;
use io_uring::squeue::Entry;
use io_uring::types::{Fd, FsyncFlags};

use crate::buffer;
use crate::op::{Op, SharedFd};
use crate::ring::wide;
use crate::shard::{Core, current};
use crate::slot::{Hold, Kind};
use crate::socket::RawAddress;
use crate::sys;

/// Bytes of one read, write, send or receive at most: what read(2) transfers, a page below 2 GiB.
const LENGTH_MAX: u32 = 0x7fff_f000;

/// Operations that refer to no memory, or to the shard's receive buffers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Plain {
    /// `accept4(2)` without the peer's address; the result is a descriptor.
    Accept { flags: i32 },
    /// `poll(2)`, once.
    Poll { events: u32 },
    /// `fsync(2)` or `fdatasync(2)`.
    Sync { flags: FsyncFlags },
    /// Multishot `recv(2)` into provided buffers.
    RecvMulti,
}

impl Plain {
    /// Starts the operation.
    pub(crate) fn start(self, core: &Rc<Core>, fd: &SharedFd) -> Op {
        let target = Fd(fd.as_raw_fd());
        let null = std::ptr::null_mut();
        let (entry, kind) = match self {
            Self::Accept { flags } => {
                (opcode::Accept::new(target, null, null.cast()).flags(flags).build(), Kind::Descriptor)
            }
            Self::Poll { events } => (opcode::PollAdd::new(target, events).build(), Kind::Plain),
            Self::Sync { flags } => (opcode::Fsync::new(target).flags(flags).build(), Kind::Plain),
            Self::RecvMulti => (opcode::RecvMulti::new(target, buffer::GROUP).build(), Kind::Plain),
        };
        // SAFETY: none of these refers to memory of its own; the buffers of a multishot receive are the pool's, which
        // the core keeps.
        unsafe { Op::start(core, wide(entry), Hold::Nothing, Some(Arc::clone(fd)), kind) }
    }
}

/// Operations that write into a buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fill {
    /// `pread(2)`.
    Read { offset: u64 },
    /// `recv(2)`.
    Recv { flags: i32, ioprio: u16 },
}

impl Fill {
    /// Reads at most `count` bytes into the spare capacity of `buffer`.
    pub(crate) async fn run(
        self,
        fd: &SharedFd,
        mut buffer: Vec<u8>,
        count: usize,
    ) -> (io::Result<usize>, Vec<u8>) {
        let spare = buffer.spare_capacity_mut();
        let count = spare.len().min(count).min(LENGTH_MAX as usize);
        if count == 0 {
            // A result of 0 would be read as the end of the stream.
            return (
                Err(io::Error::new(io::ErrorKind::InvalidInput, "the buffer has no room to read into")),
                buffer,
            );
        }
        let (target, address) = (Fd(fd.as_raw_fd()), spare.as_mut_ptr().cast());
        let length = u32::try_from(count).unwrap_or(LENGTH_MAX);
        let entry = match self {
            Self::Read { offset } => opcode::Read::new(target, address, length).offset(offset).build(),
            Self::Recv { flags, ioprio } => {
                opcode::Recv::new(target, address, length).flags(flags).ioprio(ioprio).build()
            }
        };
        let filled = buffer.len();
        let (res, mut buffer) = run_bytes(entry, buffer, fd).await;
        let outcome = sys::outcome(res);
        if let Ok(read) = outcome {
            assert!(read <= count, "the kernel wrote more than it was asked to");
            // SAFETY: the kernel has initialized `read` bytes behind the old length, within the capacity.
            unsafe { buffer.set_len(filled + read) };
        }
        (outcome, buffer)
    }
}

/// Operations that read a buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Drain {
    /// `pwrite(2)`.
    Write { offset: u64 },
    /// `send(2)`.
    Send { flags: i32 },
}

impl Drain {
    /// Hands over `buffer` from byte `from` on.
    pub(crate) async fn run(
        self,
        fd: &SharedFd,
        buffer: Vec<u8>,
        from: usize,
    ) -> (io::Result<usize>, Vec<u8>) {
        let rest = &buffer[from..];
        let (target, address) = (Fd(fd.as_raw_fd()), rest.as_ptr());
        let length = u32::try_from(rest.len()).map_or(LENGTH_MAX, |length| length.min(LENGTH_MAX));
        let entry = match self {
            Self::Write { offset } => opcode::Write::new(target, address, length).offset(offset).build(),
            Self::Send { flags } => opcode::Send::new(target, address, length).flags(flags).build(),
        };
        let (res, buffer) = run_bytes(entry, buffer, fd).await;
        (sys::outcome(res), buffer)
    }
}

/// Runs an operation on memory of `buffer`; the callers above have built the entry so.
async fn run_bytes(entry: Entry, buffer: Vec<u8>, fd: &SharedFd) -> (i32, Vec<u8>) {
    let hold = Hold::Bytes(buffer);
    // SAFETY: the entry refers to the heap block of the vector in the hold, which does not move with it: to its spare
    // capacity if the kernel writes, to its content if it reads.
    let op = unsafe { Op::start(&current(), wide(entry), hold, Some(Arc::clone(fd)), Kind::Plain) };
    match op.await {
        (res, Hold::Bytes(buffer)) => (res, buffer),
        _ => unreachable!("a slot gives back the hold it was given"),
    }
}

/// Operations on names; relative ones count from the working directory.
#[derive(Debug)]
pub(crate) enum Walk {
    /// `open(2)`; the result is a descriptor.
    Open { path: CString, flags: i32, mode: u32 },
    /// `rename(2)`.
    Rename { from: CString, to: CString },
    /// `unlink(2)`.
    Unlink { path: CString },
    /// `mkdir(2)`.
    MkDir { path: CString, mode: u32 },
}

impl Walk {
    /// Starts the operation.
    pub(crate) fn start(self) -> Op {
        let here = Fd(rustix::fs::CWD.as_raw_fd());
        let (entry, hold, kind) = match self {
            Self::Open { path, flags, mode } => {
                let entry = opcode::OpenAt::new(here, path.as_ptr()).flags(flags).mode(mode).build();
                (entry, Hold::Paths(path, None), Kind::Descriptor)
            }
            Self::Rename { from, to } => {
                let entry = opcode::RenameAt::new(here, from.as_ptr(), here, to.as_ptr()).build();
                (entry, Hold::Paths(from, Some(to)), Kind::Plain)
            }
            Self::Unlink { path } => {
                (opcode::UnlinkAt::new(here, path.as_ptr()).build(), Hold::Paths(path, None), Kind::Plain)
            }
            Self::MkDir { path, mode } => {
                let entry = opcode::MkDirAt::new(here, path.as_ptr()).mode(mode).build();
                (entry, Hold::Paths(path, None), Kind::Plain)
            }
        };
        // SAFETY: the entry refers to the strings in the hold, whose heap blocks do not move with it.
        unsafe { Op::start(&current(), wide(entry), hold, None, kind) }
    }
}

/// Starts `connect(2)`.
pub(crate) fn connect(fd: &SharedFd, address: RawAddress) -> Op {
    let address = Box::new(address);
    let entry =
        opcode::Connect::new(Fd(fd.as_raw_fd()), address.bytes().as_ptr().cast(), address.length()).build();
    let hold = Hold::Address(address);
    // SAFETY: the entry refers to the boxed address in the hold, which does not move with it.
    unsafe { Op::start(&current(), wide(entry), hold, Some(Arc::clone(fd)), Kind::Plain) }
}
