//! The memory of one FUSE entry, shared with the kernel for the life of the ring.
//!
//! ```text
//! page 0     0  in_out   128  fuse_in_header (40) in a request, fuse_out_header (16) in an answer
//!          128  op_in    128  the operation's first argument, if it has one
//!          256  flags u64 | commit_id u64 | payload_sz u32 | padding u32 | reserved u64      struct fuse_uring_ent_in_out
//!          512  iovec[2]      header, payload: read by the kernel at REGISTER only
//! page 1..   payload          names and data of a request, data of an answer
//! ```
//! (struct fuse_uring_req_header, include/uapi/linux/fuse.h, ABI 7.42; all fields in the machine's own order.)
#![expect(unsafe_code, reason = "views memory that is shared with the kernel")]

use std::io;
use std::rc::Rc;

use crate::sys::{Mapping, PAGE_BYTES};

use super::queue::Connection;

/// Bytes of the header the kernel is told of.
const HEADER_BYTES: usize = size_of::<ReqHeader>();

/// Where the two iovecs lie, behind the header.
const IOVEC_OFFSET: usize = 512;

const _: () = {
    assert!(HEADER_BYTES == 288 && align_of::<ReqHeader>() == 8);
    assert!(IOVEC_OFFSET >= HEADER_BYTES && IOVEC_OFFSET + 2 * size_of::<Iovec>() <= PAGE_BYTES);
    assert!(std::mem::offset_of!(ReqHeader, commit_id) == 264);
    assert!(std::mem::offset_of!(ReqHeader, payload_bytes) == 272);
};

/// `struct iovec` (readv(2)).
#[repr(C)]
struct Iovec {
    base: *mut u8,
    bytes: usize,
}

/// The header of a request: `struct fuse_uring_req_header`.
#[repr(C)]
pub struct ReqHeader {
    in_out: [u8; 128],
    op_in: [u8; 128],
    flags: u64,
    commit_id: u64,
    payload_bytes: u32,
    padding: u32,
    reserved: u64,
}

impl ReqHeader {
    /// `struct fuse_in_header` (40 bytes) at its start.
    pub fn in_out(&self) -> &[u8; 128] {
        &self.in_out
    }

    /// The operation's first argument (e.g. `struct fuse_read_in`); stale bytes behind it and where there is none.
    pub fn op_in(&self) -> &[u8; 128] {
        &self.op_in
    }

    pub(crate) fn commit_id(&self) -> u64 {
        self.commit_id
    }

    pub(crate) fn payload_bytes(&self) -> usize {
        self.payload_bytes as usize
    }

    /// `unique` of `struct fuse_in_header`: u32 len, u32 opcode, u64 unique.
    pub(crate) fn unique(&self) -> u64 {
        let mut unique = [0; 8];
        unique.copy_from_slice(&self.in_out[8..16]);
        u64::from_ne_bytes(unique)
    }
}

impl std::fmt::Debug for ReqHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReqHeader")
            .field("unique", &self.unique())
            .field("commit_id", &self.commit_id)
            .field("payload_bytes", &self.payload_bytes)
            .finish_non_exhaustive()
    }
}

/// An entry's memory. A slot holds it while the kernel has it; an `Entry` holds it between fetch and commit.
#[derive(Debug)]
pub(crate) struct Place {
    mapping: Mapping,
    payload_bytes: usize,
    pub(crate) connection: Rc<Connection>,
}

impl Place {
    /// Maps header and payload; pages come when they are touched.
    pub(crate) fn new(connection: &Rc<Connection>, payload_bytes: usize) -> io::Result<Rc<Self>> {
        let payload_bytes = payload_bytes.next_multiple_of(PAGE_BYTES);
        let mapping = Mapping::new(PAGE_BYTES + payload_bytes)?;
        let place = Self { mapping, payload_bytes, connection: Rc::clone(connection) };
        let iovecs = [
            Iovec { base: place.mapping.base(), bytes: HEADER_BYTES },
            Iovec { base: place.payload_base(), bytes: payload_bytes },
        ];
        // SAFETY: the iovecs' bytes are inside the first page (asserted above), 8-aligned, and nobody else's yet.
        unsafe { place.iovecs().cast::<[Iovec; 2]>().write(iovecs) };
        Ok(Rc::new(place))
    }

    /// Address of the two iovecs, for REGISTER.
    pub(crate) fn iovecs(&self) -> *mut u8 {
        self.mapping.base().wrapping_add(IOVEC_OFFSET)
    }

    /// Leaves the memory mapped for ever: the ring was closed while the kernel had the entry.
    pub(crate) fn abandon(&self) {
        self.mapping.abandon();
    }

    fn payload_base(&self) -> *mut u8 {
        self.mapping.base().wrapping_add(PAGE_BYTES)
    }

    /// Size of the payload memory in bytes.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// The header.
    ///
    /// # Safety
    /// The kernel must not have the entry (a request was fetched and not yet answered), and no exclusive reference
    /// to the header may exist.
    pub(crate) unsafe fn header(&self) -> &ReqHeader {
        // SAFETY: page aligned, inside the mapping, plain data for which every value is valid, not written to by
        // the kernel now (caller).
        unsafe { &*self.mapping.base().cast::<ReqHeader>() }
    }

    /// The payload memory, all of it.
    ///
    /// # Safety
    /// As [`Place::header`], for the payload.
    pub(crate) unsafe fn payload(&self) -> &[u8] {
        // SAFETY: inside the mapping (`new`), initialized by the kernel with zeros, not written to now (caller).
        unsafe { std::slice::from_raw_parts(self.payload_base(), self.payload_bytes) }
    }

    /// The payload memory, for writing.
    ///
    /// # Safety
    /// As [`Place::header`], for the payload, and no other reference to it may exist.
    #[expect(
        clippy::mut_from_ref,
        reason = "the exclusive borrow is the caller's: a Fetched is borrowed mutably"
    )]
    pub(crate) unsafe fn payload_mut(&self) -> &mut [u8] {
        // SAFETY: inside the mapping (`new`), and not aliased (caller).
        unsafe { std::slice::from_raw_parts_mut(self.payload_base(), self.payload_bytes) }
    }

    /// Writes the answer's header: `struct fuse_out_header` {len u32, error i32, unique u64} and the payload's size.
    ///
    /// # Safety
    /// As [`Place::header`], and no reference to the header may exist.
    pub(crate) unsafe fn write_answer(&self, error: i32, unique: u64, payload_bytes: u32) {
        let base = self.mapping.base().cast::<ReqHeader>();
        // SAFETY: as in `header`, and not aliased (caller).
        let header = unsafe { &mut *base };
        // The kernel ignores `len` on the ring (it takes payload_sz), 16 + payload is what it would be.
        header.in_out[..4].copy_from_slice(&(16 + payload_bytes).to_ne_bytes());
        header.in_out[4..8].copy_from_slice(&error.to_ne_bytes());
        header.in_out[8..16].copy_from_slice(&unique.to_ne_bytes());
        header.payload_bytes = payload_bytes;
    }
}
