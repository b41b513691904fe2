//! What operations give back.

use flexfs_wire::attr::Attr;
use flexfs_wire::message::Entry;
use flexfs_wire::seal::Node;

use super::state::Grant;

/// How long the kernel may use something without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidFor {
    secs: u64,
    nanos: u32,
}

impl ValidFor {
    /// Ask every time.
    pub const NOTHING: Self = Self { secs: 0, nanos: 0 };
    /// Until it is told otherwise: a lease holds it. Some years, far from the bounds of the kernel's jiffies.
    pub const LEASE: Self = Self { secs: 1 << 27, nanos: 0 };

    /// As long as the lease, if there is one.
    #[must_use]
    pub const fn lease(held: bool) -> Self {
        if held { Self::LEASE } else { Self::NOTHING }
    }

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

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// An inode.
    Found(Found),
    /// Nothing, for so long.
    Absent(ValidFor),
}

/// An open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its handle.
    pub fh: u64,
    /// The pages the kernel has are still the file's.
    pub keep_cache: bool,
    /// Reads and writes do not go through the kernel's pages.
    pub direct: bool,
    /// The kernel reads the file with this number by itself.
    pub passed: Option<i32>,
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
    /// Its handle and what was granted with it, for `Vfs::accept`.
    pub(crate) node: Option<(Node, Grant)>,
}

impl DirItem {
    /// A line.
    #[must_use]
    pub fn new(name: &[u8], ino: u64, kind: u32, offset: u64, found: Option<Found>) -> Self {
        Self { name: name.into(), ino, kind, offset, found, node: None }
    }

    /// It comes with its inode.
    pub(crate) fn bring(&mut self, entry: Entry, grant: Grant) {
        let Entry { node, attr } = entry;
        let (entry_valid, attr_valid) = (ValidFor::NOTHING, ValidFor::NOTHING);
        self.found = Some(Found { nodeid: node.ino.0, attr, entry_valid, attr_valid });
        self.node = Some((node, grant));
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }
}
