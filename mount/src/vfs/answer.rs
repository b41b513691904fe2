//! What operations give back.

use flexfs_wire::attr::Attr;
use flexfs_wire::seal::Node;

/// How long the kernel may use something without asking. The one place leases will replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidFor {
    secs: u64,
    nanos: u32,
}

impl ValidFor {
    /// Ask every time.
    pub const NOTHING: Self = Self { secs: 0, nanos: 0 };
    /// What is known without a lease. Changes made on this machine pass through its kernel and are seen at once.
    pub const SECOND: Self = Self { secs: 1, nanos: 0 };

    /// Seconds and nanoseconds.
    #[must_use]
    pub const fn parts(self) -> (u64, u32) {
        (self.secs, self.nanos)
    }
}

/// An inode the kernel now holds one more lookup of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The kernel's name of it.
    pub nodeid: u64,
    /// Its attributes.
    pub attr: Attr,
    /// How long the name is good.
    pub entry_valid: ValidFor,
    /// How long the attributes are.
    pub attr_valid: ValidFor,
}

/// An open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its handle.
    pub fh: u64,
    /// The pages the kernel has are still the file's.
    pub keep_cache: bool,
}

/// One line of a directory listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirItem {
    name: Box<[u8]>,
    /// Inode number.
    pub ino: u64,
    /// Type bits (`S_IFMT`).
    pub kind: u32,
    /// Where the listing goes on behind it.
    pub offset: u64,
    /// The inode, in a listing with attributes; never of `.` and `..`.
    pub found: Option<Found>,
    /// Its handle, for `Vfs::accept`.
    pub(crate) node: Option<Node>,
}

impl DirItem {
    /// A line.
    #[must_use]
    pub fn new(name: &[u8], ino: u64, kind: u32, offset: u64, found: Option<Found>) -> Self {
        Self { name: name.into(), ino, kind, offset, found, node: None }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }
}
