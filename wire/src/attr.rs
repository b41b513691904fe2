//! Attributes of an inode.

use serde::{Deserialize, Serialize};

use crate::id::Ino;
use crate::time::Time;

/// File type bits of a mode (`S_IFMT`).
pub const S_IFMT: u32 = 0o170_000;
/// Socket.
pub const S_IFSOCK: u32 = 0o140_000;
/// Symbolic link.
pub const S_IFLNK: u32 = 0o120_000;
/// Regular file.
pub const S_IFREG: u32 = 0o100_000;
/// Block device.
pub const S_IFBLK: u32 = 0o060_000;
/// Directory.
pub const S_IFDIR: u32 = 0o040_000;
/// Character device.
pub const S_IFCHR: u32 = 0o020_000;
/// FIFO.
pub const S_IFIFO: u32 = 0o010_000;
/// Set user id on execution.
pub const S_ISUID: u32 = 0o4_000;
/// Set group id on execution; on a directory: new entries take its group.
pub const S_ISGID: u32 = 0o2_000;
/// Restricted deletion.
pub const S_ISVTX: u32 = 0o1_000;

/// Execution by the group: without it, set-gid means mandatory locking (`inode_remove_suid(9)`).
pub const S_IXGRP: u32 = 0o010;

/// A mode without set-uid, and without set-gid where group execution is on (`FUSE_HANDLE_KILLPRIV_V2`).
#[must_use]
pub fn without_privileges(mode: u32) -> u32 {
    let set_gid = if mode & S_IXGRP == 0 { 0 } else { S_ISGID };
    mode & !(S_ISUID | set_gid)
}

/// What `stat` shows, and the data version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attr {
    /// Inode number.
    pub ino: Ino,
    /// Type and permission bits, as `st_mode`.
    pub mode: u32,
    /// Hard links; of a directory 2 and one for each subdirectory.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node, as the kernel encodes it.
    pub rdev: u32,
    /// Size in bytes; of a directory its number of entries, of a symlink its target's length.
    pub size: u64,
    /// Space used in units of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of data.
    pub mtime: Time,
    /// Last change of attributes.
    pub ctime: Time,
    /// Creation.
    pub btime: Time,
    /// Raised by every change of data or size: equal versions mean equal bytes and equal extents.
    pub version: u64,
    /// It has extended attributes, access lists among them. Without, nobody need ask for one.
    pub has_xattrs: bool,
}

/// Version of an inode nobody has written to.
pub const VERSION_FIRST: u64 = 1;

impl Attr {
    /// What is new and empty, made at `time`: one link (two of a directory), of root.
    #[must_use]
    pub fn new(ino: Ino, mode: u32, time: Time) -> Self {
        Self {
            ino,
            mode,
            nlink: if mode & S_IFMT == S_IFDIR { 2 } else { 1 },
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            version: VERSION_FIRST,
            has_xattrs: false,
        }
    }

    /// Type bits of the mode.
    #[must_use]
    pub fn kind(&self) -> u32 {
        self.mode & S_IFMT
    }
    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind() == S_IFDIR
    }
    /// Whether it is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.kind() == S_IFREG
    }
}

/// A time to set: now by the server's clock, or a given one (`utimensat(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetTime {
    /// The server's now (`UTIME_NOW`).
    Now,
    /// This time.
    At(Time),
}

/// Attributes to change; `None` is left as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAttr {
    /// Permission bits (07777).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<SetTime>,
    /// Modification time.
    pub mtime: Option<SetTime>,
    /// Change time, where it is not to become now: an access time noted by a reader. It never goes back.
    pub ctime: Option<SetTime>,
    /// Clear set-uid, and set-gid where group execution is on (`FATTR_KILL_SUIDGID`).
    pub kill_privileges: bool,
}

impl SetAttr {
    /// Whether it only notes that somebody read: an access time, with the change time as it was.
    #[must_use]
    pub fn is_mere_access(&self) -> bool {
        let Self { mode, uid, gid, size, atime, mtime, ctime, kill_privileges } = *self;
        let others = mode.is_some() || uid.is_some() || gid.is_some() || size.is_some() || mtime.is_some();
        atime.is_some() && ctime.is_some() && !others && !kill_privileges
    }
}
