//! Attributes, as they travel and as the kernel gets them.

use flexfs_wire::attr::Attr;
use flexfs_wire::id::Ino;
use flexfs_wire::time::Time;

/// A regular file.
pub(crate) fn file_attr(ino: u64) -> Attr {
    let time = Time { secs: 1_700_000_000, nanos: 5 };
    Attr {
        ino: Ino(ino),
        mode: 0o100_644,
        nlink: 1,
        uid: 1000,
        gid: 100,
        rdev: 0,
        size: 1 << 20,
        blocks: 2048,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        version: 3,
        has_xattrs: false,
    }
}
