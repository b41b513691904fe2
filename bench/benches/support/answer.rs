//! What operations of `vfs` give back, for the replies written from it.

use flexfs_mount::vfs::{DirItem, Found, ValidFor};

use crate::attr::file_attr;

pub(crate) fn found(ino: u64) -> Found {
    let valid = ValidFor::LEASE;
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
