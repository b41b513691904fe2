//! Arguments of operations that come together.

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFlags {
    /// It may be written.
    pub write: bool,
    /// It may not be read.
    pub blind: bool,
    /// It is cut to nothing first.
    pub truncate: bool,
    /// It must not be there yet (CREATE).
    pub exclusive: bool,
    /// Its access time is not to change.
    pub no_atime: bool,
    /// Set-uid and set-gid are to be cleared with the truncation.
    pub kill_privileges: bool,
    /// Every write goes to the end.
    pub append: bool,
    /// Past the kernel's pages (`O_DIRECT`).
    pub direct: bool,
}

/// Where to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadArgs {
    /// Handle.
    pub fh: u64,
    /// Offset in the file.
    pub offset: u64,
    /// The bytes may not be for the kernel's pages.
    pub direct: bool,
}

/// A range to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteArgs {
    /// Handle; a guess when the write comes from the page cache.
    pub fh: u64,
    /// Offset in the file.
    pub offset: u64,
    /// Clear set-uid and set-gid.
    pub kill_privileges: bool,
    /// The bytes are to be durable when answered (`O_SYNC`, `O_DSYNC`).
    pub sync: bool,
    /// The bytes go to the end of the file, wherever that is.
    pub append: bool,
    /// The bytes come from the kernel's pages.
    pub from_pages: bool,
    /// The kernel holds no pages for it.
    pub direct: bool,
}

/// A new inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MakeArgs {
    /// Type and permission bits, the umask already taken off.
    pub mode: u32,
    /// The process's umask.
    pub umask: u32,
    /// Device number.
    pub rdev: u32,
}

/// A server-side copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyArgs {
    /// Handle of the source.
    pub fh: u64,
    /// Offset in the source.
    pub offset: u64,
    /// Handle of the target.
    pub target_fh: u64,
    /// Offset in the target.
    pub target_offset: u64,
    /// Bytes.
    pub length: u64,
    /// The answer has 64 bits for the length.
    pub wide: bool,
}

/// Forgotten lookups of one inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forget {
    /// The inode.
    pub nodeid: u64,
    /// How many.
    pub lookups: u64,
}
