//! Answers of the FUSE kernel ABI (`include/uapi/linux/fuse.h`, 7.45) that the null server writes, in the byte order of
//! the machine and without hidden padding. Requests are parsed by `flexfs_mount::fuse::request`.

use flexfs_wire::errno::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! abi {
    ($($name:ident[$size:literal] { $($field:ident: $type:ty),* $(,)? })*) => {$(
        #[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub(super) struct $name { $(pub(super) $field: $type),* }
        const _: () = assert!(size_of::<$name>() == $size);
    )*};
}

abi! {
    OutHeader[16] { len: u32, error: i32, unique: u64 }
    Attr[88] {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32,
        mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32, blksize: u32, flags: u32,
    }
    EntryOut[128] {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64,
        entry_valid_nsec: u32, attr_valid_nsec: u32, attr: Attr,
    }
    AttrOut[104] { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr }
    OpenOut[16] { fh: u64, open_flags: u32, backing_id: i32 }
    WriteOut[8] { size: u32, padding: u32 }
    StatfsOut[80] {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64,
        bsize: u32, namelen: u32, frsize: u32, padding: u32, spare: [u32; 6],
    }
    Dirent[24] { ino: u64, off: u64, namelen: u32, kind: u32 }
    InitOut[64] {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16, congestion_threshold: u16,
        max_write: u32, time_gran: u32, max_pages: u16, map_alignment: u16, flags2: u32, max_stack_depth: u32,
        request_timeout: u16, unused: [u16; 11],
    }
}

/// `FOPEN_PARALLEL_DIRECT_WRITES`.
pub(super) const PARALLEL_DIRECT_WRITES: u32 = 1 << 6;
/// Type bits of a mode, a folder's and a plain file's.
pub(super) const S_IFMT: u32 = 0o170_000;
/// See [`S_IFMT`].
pub(super) const S_IFDIR: u32 = 0o040_000;
/// See [`S_IFMT`].
pub(super) const S_IFREG: u32 = 0o100_000;

/// Copies a struct to a place of `out`; returns where it ends.
///
/// # Errors
/// `EIO` when it does not fit.
pub(super) fn put<T: IntoBytes + Immutable>(out: &mut [u8], at: usize, value: &T) -> Result<usize, Errno> {
    let bytes = value.as_bytes();
    let end = at + bytes.len();
    out.get_mut(at..end).ok_or(Errno::EIO)?.copy_from_slice(bytes);
    Ok(end)
}
