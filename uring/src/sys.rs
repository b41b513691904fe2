//! What the crates below leave out: fields of a submission entry without a setter, anonymous mappings, errno.
#![expect(unsafe_code, reason = "patches raw submission entries and owns raw memory mappings")]

use std::cell::Cell;
use std::io;
use std::ptr::NonNull;

use io_uring::squeue::Entry128;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

/// Bytes of a memory page; the mappings of this crate are multiples of it.
pub(crate) const PAGE_BYTES: usize = 4096;

/// Byte offset of `len` in `struct io_uring_sqe` (include/uapi/linux/io_uring.h).
const SQE_LEN_OFFSET: usize = 24;

const _: () = assert!(size_of::<Entry128>() == 128);

/// Sets `sqe.len`, for which `UringCmd80` has no setter. FUSE's REGISTER wants the number of iovecs there.
pub(crate) fn set_len(entry: &mut Entry128, len: u32) {
    let base = std::ptr::from_mut(entry).cast::<u8>();
    // SAFETY: the entry has 128 bytes (asserted above), so byte 24 is inside it.
    let field = unsafe { base.add(SQE_LEN_OFFSET) };
    // SAFETY: bytes 24..28 are inside the exclusively borrowed entry, which is repr(C) plain data, so any value
    // is valid there; the write does not assume alignment. JUSTIFICATION: building the whole entry by hand would
    // be the same write over 128 bytes.
    unsafe { field.cast::<u32>().write_unaligned(len) };
}

/// Turns a completion's result into a count or the error it stands for.
pub(crate) fn outcome(res: i32) -> io::Result<usize> {
    usize::try_from(res).map_err(|_| io::Error::from_raw_os_error(-res))
}

/// An anonymous private mapping: zeroed, page aligned, unmapped on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
    abandoned: Cell<bool>,
}

impl Mapping {
    /// Maps `bytes`, rounded up to pages, without reserving swap for them: pages come when they are touched.
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        let bytes = bytes.max(1).next_multiple_of(PAGE_BYTES);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice cannot overlap anything.
        // JUSTIFICATION: the allocator neither promises page alignment cheaply nor leaves pages unreserved.
        let base = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, prot, flags) }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(Errno::NOMEM)?;
        Ok(Self { base, bytes, abandoned: Cell::new(false) })
    }

    /// First byte; valid for reads and writes of `bytes()` while the mapping lives.
    pub(crate) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Leaves the memory mapped for ever, because the kernel may still use it.
    pub(crate) fn abandon(&self) {
        self.abandoned.set(true);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.abandoned.get() {
            return;
        }
        // SAFETY: base and bytes are those of the mapping made in `new`, and its only owner is going away. Whoever
        // lent the memory to the kernel keeps the mapping in a slot until the kernel has let go.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.bytes) };
        // Cannot fail for a whole existing mapping; if it did, the memory would merely stay.
        debug_assert!(unmapped.is_ok(), "munmap of an own mapping failed");
    }
}
