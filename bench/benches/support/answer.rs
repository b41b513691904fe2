//! What operations of `vfs` give back, for the replies written from it.

use flexfs_mount::vfs::{DirItem, Found, ValidFor};
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
    }
}

pub(crate) fn found(ino: u64) -> Found {
    let valid = ValidFor::SECOND;
    Found { nodeid: ino, attr: file_attr(ino), entry_valid: valid, attr_valid: valid }
}

/// Lines of a listing, with attributes.
pub(crate) fn items(count: u64) -> Vec<DirItem> {
    let item = |number: u64| {
        let name = format!("file-{number:07}.bin");
        DirItem::new(name.as_bytes(), number, 0o100_000, number, Some(found(number)))
    };
    (1..=count).map(item).collect()
}
