//! The FUSE kernel ABI, version 7.45, under the kernel's own names (`include/uapi/linux/fuse.h`).
//!
//! Only what this client speaks. All structs are `repr(C)`, without hidden padding, in the byte order of the
//! machine, and their sizes are asserted. They are always copied out of and into byte slices, so nothing here
//! asks for alignment.
#![expect(
    dead_code,
    reason = "a mirror is complete where it is cheap: values nobody sends yet are refused by name"
)]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Major version of the protocol.
pub(crate) const FUSE_KERNEL_VERSION: u32 = 7;
/// Newest minor version this file mirrors.
pub(crate) const FUSE_KERNEL_MINOR_VERSION: u32 = 45;
/// Oldest minor version spoken: `FUSE_INIT_EXT`, `FUSE_SETXATTR_EXT` and `flags2` are there (Linux 5.17).
pub(crate) const FUSE_KERNEL_MINOR_VERSION_MIN: u32 = 36;
/// Node id of the root directory.
pub(crate) const FUSE_ROOT_ID: u64 = 1;
/// Bit of an INTERRUPT's `unique`; the rest is the request's.
pub(crate) const FUSE_INT_REQ_BIT: u64 = 1;
/// Bit of a resent request's `unique`.
pub(crate) const FUSE_UNIQUE_RESEND: u64 = 1 << 63;

macro_rules! abi {
    ($($(#[$doc:meta])* struct $name:ident[$size:literal] { $($field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub(crate) struct $name { $(pub(crate) $field: $type),* }
        const _: () = assert!(size_of::<$name>() == $size);
    )*};
}

abi! {
    /// In front of every request.
    struct fuse_in_header[40] {
        len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32, total_extlen: u16, padding: u16,
    }
    /// In front of every answer and notification.
    struct fuse_out_header[16] { len: u32, error: i32, unique: u64 }
    /// Attributes.
    struct fuse_attr[88] {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32,
        mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32, blksize: u32, flags: u32,
    }
    /// Time of `fuse_statx`.
    struct fuse_sx_time[16] { tv_sec: i64, tv_nsec: u32, reserved: i32 }
    /// Attributes as `statx(2)` has them.
    struct fuse_statx[256] {
        mask: u32, blksize: u32, attributes: u64, nlink: u32, uid: u32, gid: u32, mode: u16, spare0: u16,
        ino: u64, size: u64, blocks: u64, attributes_mask: u64,
        atime: fuse_sx_time, btime: fuse_sx_time, ctime: fuse_sx_time, mtime: fuse_sx_time,
        rdev_major: u32, rdev_minor: u32, dev_major: u32, dev_minor: u32, spare2: [u64; 14],
    }
    struct fuse_kstatfs[80] {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64,
        bsize: u32, namelen: u32, frsize: u32, padding: u32, spare: [u32; 6],
    }
    struct fuse_file_lock[24] { start: u64, end: u64, r#type: u32, pid: u32 }
    struct fuse_entry_out[128] {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64,
        entry_valid_nsec: u32, attr_valid_nsec: u32, attr: fuse_attr,
    }
    struct fuse_forget_in[8] { nlookup: u64 }
    struct fuse_forget_one[16] { nodeid: u64, nlookup: u64 }
    struct fuse_batch_forget_in[8] { count: u32, dummy: u32 }
    struct fuse_getattr_in[16] { getattr_flags: u32, dummy: u32, fh: u64 }
    struct fuse_attr_out[104] { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: fuse_attr }
    struct fuse_statx_in[24] { getattr_flags: u32, reserved: u32, fh: u64, sx_flags: u32, sx_mask: u32 }
    struct fuse_statx_out[288] { attr_valid: u64, attr_valid_nsec: u32, flags: u32, spare: [u64; 2], stat: fuse_statx }
    struct fuse_mknod_in[16] { mode: u32, rdev: u32, umask: u32, padding: u32 }
    struct fuse_mkdir_in[8] { mode: u32, umask: u32 }
    struct fuse_rename_in[8] { newdir: u64 }
    struct fuse_rename2_in[16] { newdir: u64, flags: u32, padding: u32 }
    struct fuse_link_in[8] { oldnodeid: u64 }
    struct fuse_setattr_in[88] {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }
    struct fuse_open_in[8] { flags: u32, open_flags: u32 }
    struct fuse_create_in[16] { flags: u32, mode: u32, umask: u32, open_flags: u32 }
    struct fuse_open_out[16] { fh: u64, open_flags: u32, backing_id: i32 }
    struct fuse_release_in[24] { fh: u64, flags: u32, release_flags: u32, lock_owner: u64 }
    struct fuse_flush_in[24] { fh: u64, unused: u32, padding: u32, lock_owner: u64 }
    struct fuse_read_in[40] {
        fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32,
    }
    struct fuse_write_in[40] {
        fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32,
    }
    struct fuse_write_out[8] { size: u32, padding: u32 }
    struct fuse_statfs_out[80] { st: fuse_kstatfs }
    struct fuse_fsync_in[16] { fh: u64, fsync_flags: u32, padding: u32 }
    /// With `FUSE_SETXATTR_EXT`, which is always negotiated where this file's parser is used.
    struct fuse_setxattr_in[16] { size: u32, flags: u32, setxattr_flags: u32, padding: u32 }
    struct fuse_getxattr_in[8] { size: u32, padding: u32 }
    struct fuse_getxattr_out[8] { size: u32, padding: u32 }
    struct fuse_lk_in[48] { fh: u64, owner: u64, lk: fuse_file_lock, lk_flags: u32, padding: u32 }
    struct fuse_lk_out[24] { lk: fuse_file_lock }
    struct fuse_access_in[8] { mask: u32, padding: u32 }
    struct fuse_init_in[64] {
        major: u32, minor: u32, max_readahead: u32, flags: u32, flags2: u32, unused: [u32; 11],
    }
    struct fuse_init_out[64] {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16, congestion_threshold: u16,
        max_write: u32, time_gran: u32, max_pages: u16, map_alignment: u16, flags2: u32, max_stack_depth: u32,
        request_timeout: u16, unused: [u16; 11],
    }
    struct fuse_interrupt_in[8] { unique: u64 }
    struct fuse_fallocate_in[32] { fh: u64, offset: u64, length: u64, mode: u32, padding: u32 }
    /// In front of a name in READDIR; names are padded to 8 bytes.
    struct fuse_dirent[24] { ino: u64, off: u64, namelen: u32, r#type: u32 }
    struct fuse_notify_inval_inode_out[24] { ino: u64, off: i64, len: i64 }
    struct fuse_notify_inval_entry_out[16] { parent: u64, namelen: u32, flags: u32 }
    struct fuse_notify_store_out[24] { nodeid: u64, offset: u64, size: u32, padding: u32 }
    struct fuse_lseek_in[24] { fh: u64, offset: u64, whence: u32, padding: u32 }
    struct fuse_lseek_out[8] { offset: u64 }
    struct fuse_copy_file_range_in[56] {
        fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64, len: u64, flags: u64,
    }
    struct fuse_copy_file_range_out[8] { bytes_copied: u64 }
}

/// Bytes of the fixed part of a READDIRPLUS entry: `fuse_direntplus` without its name.
pub(crate) const FUSE_DIRENTPLUS_BYTES: usize = size_of::<fuse_entry_out>() + size_of::<fuse_dirent>();

/// `FUSE_COMPAT_INIT_IN_SIZE`: what kernels without `FUSE_INIT_EXT` send.
pub(crate) const FUSE_INIT_IN_SHORT: usize = 16;

/// Request codes.
pub(crate) mod opcode {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const SETATTR: u32 = 4;
    pub(crate) const READLINK: u32 = 5;
    pub(crate) const SYMLINK: u32 = 6;
    pub(crate) const MKNOD: u32 = 8;
    pub(crate) const MKDIR: u32 = 9;
    pub(crate) const UNLINK: u32 = 10;
    pub(crate) const RMDIR: u32 = 11;
    pub(crate) const RENAME: u32 = 12;
    pub(crate) const LINK: u32 = 13;
    pub(crate) const OPEN: u32 = 14;
    pub(crate) const READ: u32 = 15;
    pub(crate) const WRITE: u32 = 16;
    pub(crate) const STATFS: u32 = 17;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const FSYNC: u32 = 20;
    pub(crate) const SETXATTR: u32 = 21;
    pub(crate) const GETXATTR: u32 = 22;
    pub(crate) const LISTXATTR: u32 = 23;
    pub(crate) const REMOVEXATTR: u32 = 24;
    pub(crate) const FLUSH: u32 = 25;
    pub(crate) const INIT: u32 = 26;
    pub(crate) const OPENDIR: u32 = 27;
    pub(crate) const READDIR: u32 = 28;
    pub(crate) const RELEASEDIR: u32 = 29;
    pub(crate) const FSYNCDIR: u32 = 30;
    pub(crate) const GETLK: u32 = 31;
    pub(crate) const SETLK: u32 = 32;
    pub(crate) const SETLKW: u32 = 33;
    pub(crate) const ACCESS: u32 = 34;
    pub(crate) const CREATE: u32 = 35;
    pub(crate) const INTERRUPT: u32 = 36;
    pub(crate) const BMAP: u32 = 37;
    pub(crate) const DESTROY: u32 = 38;
    pub(crate) const IOCTL: u32 = 39;
    pub(crate) const POLL: u32 = 40;
    pub(crate) const NOTIFY_REPLY: u32 = 41;
    pub(crate) const BATCH_FORGET: u32 = 42;
    pub(crate) const FALLOCATE: u32 = 43;
    pub(crate) const READDIRPLUS: u32 = 44;
    pub(crate) const RENAME2: u32 = 45;
    pub(crate) const LSEEK: u32 = 46;
    pub(crate) const COPY_FILE_RANGE: u32 = 47;
    pub(crate) const SYNCFS: u32 = 50;
    pub(crate) const TMPFILE: u32 = 51;
    pub(crate) const STATX: u32 = 52;
    pub(crate) const COPY_FILE_RANGE_64: u32 = 53;
}

/// `fuse_setattr_in::valid`.
pub(crate) mod fattr {
    pub(crate) const MODE: u32 = 1 << 0;
    pub(crate) const UID: u32 = 1 << 1;
    pub(crate) const GID: u32 = 1 << 2;
    pub(crate) const SIZE: u32 = 1 << 3;
    pub(crate) const ATIME: u32 = 1 << 4;
    pub(crate) const MTIME: u32 = 1 << 5;
    pub(crate) const FH: u32 = 1 << 6;
    pub(crate) const ATIME_NOW: u32 = 1 << 7;
    pub(crate) const MTIME_NOW: u32 = 1 << 8;
    pub(crate) const LOCKOWNER: u32 = 1 << 9;
    pub(crate) const CTIME: u32 = 1 << 10;
    pub(crate) const KILL_SUIDGID: u32 = 1 << 11;
}

/// `fuse_open_out::open_flags`.
pub(crate) mod fopen {
    pub(crate) const DIRECT_IO: u32 = 1 << 0;
    pub(crate) const KEEP_CACHE: u32 = 1 << 1;
    pub(crate) const NONSEEKABLE: u32 = 1 << 2;
    pub(crate) const CACHE_DIR: u32 = 1 << 3;
    pub(crate) const STREAM: u32 = 1 << 4;
    pub(crate) const NOFLUSH: u32 = 1 << 5;
    pub(crate) const PARALLEL_DIRECT_WRITES: u32 = 1 << 6;
    pub(crate) const PASSTHROUGH: u32 = 1 << 7;
}

/// Flags of INIT; bits from 32 on travel in `flags2`.
pub(crate) mod init_flag {
    pub(crate) const ASYNC_READ: u64 = 1 << 0;
    pub(crate) const POSIX_LOCKS: u64 = 1 << 1;
    pub(crate) const FILE_OPS: u64 = 1 << 2;
    pub(crate) const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub(crate) const EXPORT_SUPPORT: u64 = 1 << 4;
    pub(crate) const BIG_WRITES: u64 = 1 << 5;
    pub(crate) const DONT_MASK: u64 = 1 << 6;
    pub(crate) const SPLICE_WRITE: u64 = 1 << 7;
    pub(crate) const SPLICE_MOVE: u64 = 1 << 8;
    pub(crate) const SPLICE_READ: u64 = 1 << 9;
    pub(crate) const FLOCK_LOCKS: u64 = 1 << 10;
    pub(crate) const HAS_IOCTL_DIR: u64 = 1 << 11;
    pub(crate) const AUTO_INVAL_DATA: u64 = 1 << 12;
    pub(crate) const DO_READDIRPLUS: u64 = 1 << 13;
    pub(crate) const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub(crate) const ASYNC_DIO: u64 = 1 << 15;
    pub(crate) const WRITEBACK_CACHE: u64 = 1 << 16;
    pub(crate) const NO_OPEN_SUPPORT: u64 = 1 << 17;
    pub(crate) const PARALLEL_DIROPS: u64 = 1 << 18;
    pub(crate) const HANDLE_KILLPRIV: u64 = 1 << 19;
    pub(crate) const POSIX_ACL: u64 = 1 << 20;
    pub(crate) const ABORT_ERROR: u64 = 1 << 21;
    pub(crate) const MAX_PAGES: u64 = 1 << 22;
    pub(crate) const CACHE_SYMLINKS: u64 = 1 << 23;
    pub(crate) const NO_OPENDIR_SUPPORT: u64 = 1 << 24;
    pub(crate) const EXPLICIT_INVAL_DATA: u64 = 1 << 25;
    pub(crate) const MAP_ALIGNMENT: u64 = 1 << 26;
    pub(crate) const SUBMOUNTS: u64 = 1 << 27;
    pub(crate) const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub(crate) const SETXATTR_EXT: u64 = 1 << 29;
    pub(crate) const INIT_EXT: u64 = 1 << 30;
    pub(crate) const SECURITY_CTX: u64 = 1 << 32;
    pub(crate) const HAS_INODE_DAX: u64 = 1 << 33;
    pub(crate) const CREATE_SUPP_GROUP: u64 = 1 << 34;
    pub(crate) const HAS_EXPIRE_ONLY: u64 = 1 << 35;
    pub(crate) const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
    pub(crate) const PASSTHROUGH: u64 = 1 << 37;
    pub(crate) const NO_EXPORT_SUPPORT: u64 = 1 << 38;
    pub(crate) const HAS_RESEND: u64 = 1 << 39;
    pub(crate) const ALLOW_IDMAP: u64 = 1 << 40;
    pub(crate) const OVER_IO_URING: u64 = 1 << 41;
    pub(crate) const REQUEST_TIMEOUT: u64 = 1 << 42;
}

/// `fuse_release_in::release_flags`: the file is to be flushed.
pub(crate) const FUSE_RELEASE_FLUSH: u32 = 1 << 0;
/// `fuse_release_in::release_flags`: its flock locks end.
pub(crate) const FUSE_RELEASE_FLOCK_UNLOCK: u32 = 1 << 1;
/// `fuse_getattr_in::getattr_flags`: `fh` is valid.
pub(crate) const FUSE_GETATTR_FH: u32 = 1 << 0;
/// `fuse_lk_in::lk_flags`: `flock(2)`, not `fcntl(2)`.
pub(crate) const FUSE_LK_FLOCK: u32 = 1 << 0;
/// `fuse_write_in::write_flags`: comes from the page cache, the handle is a guess.
pub(crate) const FUSE_WRITE_CACHE: u32 = 1 << 0;
/// `fuse_write_in::write_flags`: clear set-uid and set-gid.
pub(crate) const FUSE_WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// `fuse_setxattr_in::setxattr_flags`: an access list takes set-gid off.
pub(crate) const FUSE_SETXATTR_ACL_KILL_SGID: u32 = 1 << 0;
/// `fuse_fsync_in::fsync_flags`: `fdatasync(2)`.
pub(crate) const FUSE_FSYNC_FDATASYNC: u32 = 1 << 0;
/// `open_flags` of OPEN and CREATE: clear set-uid and set-gid.
pub(crate) const FUSE_OPEN_KILL_SUIDGID: u32 = 1 << 0;

/// Codes of notifications, in `fuse_out_header::error`.
pub(crate) const FUSE_NOTIFY_INVAL_INODE: i32 = 2;
/// See [`FUSE_NOTIFY_INVAL_INODE`].
pub(crate) const FUSE_NOTIFY_INVAL_ENTRY: i32 = 3;
/// See [`FUSE_NOTIFY_INVAL_INODE`].
pub(crate) const FUSE_NOTIFY_STORE: i32 = 4;
/// See [`FUSE_NOTIFY_INVAL_INODE`]. Since 7.44.
pub(crate) const FUSE_NOTIFY_INC_EPOCH: i32 = 8;
