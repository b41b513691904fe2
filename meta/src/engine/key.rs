//! Keys of a volume. A tag, then numbers big-endian, so that the order of bytes is the order of numbers.
//!
//! ```text
//!  1                          State                 counters
//!  2 ino                      Inode
//!  3 dir name                 Dentry                entry by name
//!  4 dir cookie               Cookie                entry by position
//!  5 ino end                  StoredExtent          by the offset just past it: the extents that overlap a range are
//!                                                   found by one forward scan
//!  6 ino                      bytes                 inline part of a file, target of a symlink
//!  7 ino name                 bytes                 extended attribute
//!  8 block                    BlockRecord
//!  9 block ino                u64                   live bytes in files other than the block's first one
//! 10 seconds block            nothing               blocks without live bytes, oldest first
//! 11 ino                      nothing               orphans: inodes without a name
//! 12 ino                      [DeadRange]           ranges whose old extents wait to be removed
//! 13 session                  bytes                 sessions, opaque
//! 14 session kind start       Grant                 numbers granted to a session: how many from `start`, and which were used
//! 15 session request          Kept                  answers for resends
//! 16 name                     bytes                 what the server keeps with the volume
//! 17 block                    u64                   blocks that are stored and that no file refers to: bytes of the file
//! 18 block                    bytes                 small blocks that came with the write that names them, whole: no file has them.
//!                                                   An engine may keep these rows apart, for they are large
//! ```
//! 0 is the engine's own (sequence).

use flexfs_wire::id::{BlockId, Ino, RequestId, SessionId};

/// First byte of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tag {
    State = 1,
    Inode = 2,
    Dentry = 3,
    Cookie = 4,
    Extent = 5,
    Data = 6,
    Xattr = 7,
    Block = 8,
    Share = 9,
    Garbage = 10,
    Orphan = 11,
    Dead = 12,
    Session = 13,
    Grant = 14,
    Dedup = 15,
    Kept = 16,
    Idle = 17,
    Carried = 18,
}

/// Which numbers were granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Granted {
    Inodes = 0,
    Blocks = 1,
}

struct Key(Vec<u8>);

impl Key {
    fn new(tag: Tag) -> Self {
        let mut bytes = Vec::with_capacity(24);
        bytes.push(tag as u8);
        Self(bytes)
    }
    fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

pub(crate) fn state() -> Vec<u8> {
    Key::new(Tag::State).0
}
pub(crate) fn inode(ino: Ino) -> Vec<u8> {
    Key::new(Tag::Inode).number(ino.0).0
}
pub(crate) fn dentry(dir: Ino, name: &[u8]) -> Vec<u8> {
    Key::new(Tag::Dentry).number(dir.0).bytes(name).0
}
pub(crate) fn cookie(dir: Ino, cookie: u64) -> Vec<u8> {
    Key::new(Tag::Cookie).number(dir.0).number(cookie).0
}
pub(crate) fn extent(ino: Ino, end: u64) -> Vec<u8> {
    Key::new(Tag::Extent).number(ino.0).number(end).0
}
pub(crate) fn data(ino: Ino) -> Vec<u8> {
    Key::new(Tag::Data).number(ino.0).0
}
pub(crate) fn xattr(ino: Ino, name: &[u8]) -> Vec<u8> {
    Key::new(Tag::Xattr).number(ino.0).bytes(name).0
}
pub(crate) fn block(block: BlockId) -> Vec<u8> {
    Key::new(Tag::Block).number(block.0).0
}
pub(crate) fn share(block: BlockId, ino: Ino) -> Vec<u8> {
    Key::new(Tag::Share).number(block.0).number(ino.0).0
}
/// `seconds` are biased, so that times before 1970 sort first.
pub(crate) fn garbage(seconds: i64, block: BlockId) -> Vec<u8> {
    Key::new(Tag::Garbage).number(bias(seconds)).number(block.0).0
}
pub(crate) fn orphan(ino: Ino) -> Vec<u8> {
    Key::new(Tag::Orphan).number(ino.0).0
}
pub(crate) fn dead(ino: Ino) -> Vec<u8> {
    Key::new(Tag::Dead).number(ino.0).0
}
pub(crate) fn session(session: SessionId) -> Vec<u8> {
    Key::new(Tag::Session).number(session.0).0
}
pub(crate) fn grant(session: SessionId, kind: Granted, start: u64) -> Vec<u8> {
    Key::new(Tag::Grant).number(session.0).bytes(&[kind as u8]).number(start).0
}
pub(crate) fn dedup(session: SessionId, request: RequestId) -> Vec<u8> {
    Key::new(Tag::Dedup).number(session.0).number(request.0).0
}
pub(crate) fn idle(block: BlockId) -> Vec<u8> {
    Key::new(Tag::Idle).number(block.0).0
}
pub(crate) fn carried(block: BlockId) -> Vec<u8> {
    Key::new(Tag::Carried).number(block.0).0
}
pub(crate) fn kept(name: &str) -> Vec<u8> {
    Key::new(Tag::Kept).bytes(name.as_bytes()).0
}

/// First and past-the-last key of a table.
pub(crate) fn table(tag: Tag) -> (Vec<u8>, Vec<u8>) {
    (vec![tag as u8], vec![tag as u8 + 1])
}

/// First and past-the-last key of a table's rows whose first number is `number`.
pub(crate) fn rows(tag: Tag, number: u64) -> (Vec<u8>, Vec<u8>) {
    let to = number.checked_add(1).map_or_else(|| vec![tag as u8 + 1], |next| Key::new(tag).number(next).0);
    (Key::new(tag).number(number).0, to)
}

/// The number that begins at byte `at` of a key, if the key is that long.
pub(crate) fn number(key: &[u8], at: usize) -> Option<u64> {
    let bytes = key.get(at..at + 8)?;
    bytes.try_into().ok().map(u64::from_be_bytes)
}

/// Bytes behind the tag and `numbers` numbers.
pub(crate) fn rest(key: &[u8], numbers: usize) -> &[u8] {
    key.get(1 + 8 * numbers..).unwrap_or_default()
}

/// Undoes the bias of [`garbage`].
pub(crate) fn unbias(number: u64) -> i64 {
    (number ^ (1 << 63)).cast_signed()
}

fn bias(seconds: i64) -> u64 {
    seconds.cast_unsigned() ^ (1 << 63)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_bytes_is_order_of_numbers() {
        assert!(extent(Ino(1), 255) < extent(Ino(1), 256));
        assert!(extent(Ino(1), u64::MAX) < extent(Ino(2), 0));
        assert!(garbage(-5, BlockId(9)) < garbage(0, BlockId(1)));
        assert_eq!(number(&garbage(-5, BlockId(9)), 1).map(unbias), Some(-5));
        let (from, to) = rows(Tag::Cookie, 7);
        assert!(from <= cookie(Ino(7), 0) && cookie(Ino(7), u64::MAX) < to && to <= cookie(Ino(8), 0));
        let (_, to) = rows(Tag::Cookie, u64::MAX);
        assert!(cookie(Ino(u64::MAX), u64::MAX) < to);
        assert_eq!(rest(&dentry(Ino(7), b"name"), 1), b"name");
    }
}
