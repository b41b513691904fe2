//! The rows of the tables, as the engine keeps them: postcard, fields in this order.

use flexfs_wire::attr::{Attr, S_IFDIR, S_IFMT, S_IFREG};
use flexfs_wire::errno::Errno;
use flexfs_wire::extent::{Extent, ZERO_BLOCK};
use flexfs_wire::id::{BlockId, Ino};
use flexfs_wire::message::Reply;
use flexfs_wire::name::Name;
use flexfs_wire::time::Time;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Version of the rows; a database of a newer one is refused. 3: grants note which of their numbers are used; rows of blocks that no
/// file refers to. 4: small blocks are rows.
pub(crate) const FORMAT: u32 = 4;
/// Oldest version whose rows are still understood: such a database is [`FORMAT`]'s from its opening on, and older programs refuse it.
pub(crate) const FORMAT_OLDEST: u32 = 2;
/// Room for most rows, so that they do not grow byte by byte.
const ROW_BYTES: usize = 128;
/// First cookie of a directory: 0 is its start, 1 and 2 are `.` and `..`.
pub(crate) const COOKIE_FIRST: u64 = 3;

/// Counters of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) format: u32,
    pub(crate) next_ino: u64,
    pub(crate) next_block: u64,
    pub(crate) next_session: u64,
    /// Inodes, orphans counted.
    pub(crate) inodes: u64,
    /// Bytes allocated by files: extents and inline parts.
    pub(crate) bytes: u64,
    /// While a recovery runs: what had survived when it began.
    pub(crate) recovering_from: Option<u64>,
}

/// An inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inode {
    #[serde(skip)]
    pub(crate) ino: Ino,
    pub(crate) mode: u32,
    pub(crate) nlink: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) rdev: u32,
    pub(crate) size: u64,
    pub(crate) atime: Time,
    pub(crate) mtime: Time,
    pub(crate) ctime: Time,
    pub(crate) btime: Time,
    pub(crate) version: u64,
    /// Of a directory: the one it is in. Of others: one that has a name of it, or had its last one; 0 when none is known (it
    /// lost one of several names, or no release has noted it yet). 0 for the root.
    pub(crate) parent: Ino,
    /// Of a directory: the cookie of the next new entry.
    pub(crate) next_cookie: u64,
    /// Extents in the table, dead ones counted.
    pub(crate) extents: u64,
    /// Their bytes.
    pub(crate) extent_bytes: u64,
    /// Length of the inline part.
    pub(crate) inline_bytes: u32,
    /// Length of the list of extended attributes as `listxattr(2)` gives it.
    pub(crate) xattr_bytes: u32,
    /// Without a name, but may be given one (`O_TMPFILE`).
    pub(crate) linkable: bool,
    /// There is a row of dead ranges.
    pub(crate) dead: bool,
}

/// An entry found by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dentry {
    pub(crate) ino: Ino,
    /// Type bits.
    pub(crate) kind: u32,
    pub(crate) cookie: u64,
}

/// An entry found by its position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cookie {
    pub(crate) ino: Ino,
    pub(crate) kind: u32,
    pub(crate) name: Name,
}

/// An extent; the offset past it is in its key. Stored extents of a file never overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredExtent {
    pub(crate) start: u64,
    pub(crate) block: BlockId,
    pub(crate) block_offset: u32,
    /// Data version of the file with which it came: tells it from the dead ones of before.
    pub(crate) version: u64,
    #[serde(skip)]
    pub(crate) end: u64,
}

/// A block that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlockRecord {
    pub(crate) raw_bytes: u32,
    pub(crate) stored_bytes: u32,
    /// Bytes of it that extents refer to; shared ones count once per extent.
    pub(crate) live: u64,
    /// File that referred to it first; live bytes of others are in the share table.
    pub(crate) first: Ino,
    /// Without live bytes since (seconds).
    pub(crate) garbage: Option<i64>,
    /// Its file is being deleted: it cannot come back to life.
    pub(crate) collecting: bool,
}

/// Extents within `from .. to` that came with this data version or before are dead: truncated away, not yet removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeadRange {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) version: u64,
}

/// Numbers granted to a session at once; the first is in the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) count: u64,
    /// A bit for each that was used, the lowest first; empty when none was, as in rows of older releases.
    pub(crate) used: Vec<u64>,
    /// The same for those that are not the session's any more.
    pub(crate) spent: Vec<u64>,
}

impl Grant {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self.used.is_empty() && self.spent.is_empty() {
            true => encode(&self.count),
            false => encode(&(self.count, &self.used, &self.spent)),
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Errno> {
        let (count, rest): (u64, &[u8]) = postcard::take_from_bytes(bytes).map_err(|_| damaged("grant"))?;
        let (used, spent): (Vec<u64>, Vec<u64>) =
            if rest.is_empty() { Default::default() } else { decode(rest)? };
        let is_sound = |bits: &[u64]| bits.is_empty() || bits.len() as u64 == count.div_ceil(64);
        if is_sound(&used) && is_sound(&spent) {
            Ok(Self { count, used, spent })
        } else {
            Err(damaged("grant"))
        }
    }
}

/// The answer of a mutation, for a resend. Its commit is known in memory, or durable after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) at: Time,
    pub(crate) reply: Reply,
}

impl Inode {
    pub(crate) fn is_dir(&self) -> bool {
        self.kind() == S_IFDIR
    }
    pub(crate) fn is_file(&self) -> bool {
        self.kind() == S_IFREG
    }
    pub(crate) fn kind(&self) -> u32 {
        self.mode & S_IFMT
    }

    /// A name of it moves from one directory to another.
    pub(crate) fn moves(&mut self, from: Ino, to: Ino) {
        if self.is_dir() || self.nlink == 1 || self.parent == from || self.parent == Ino(0) {
            self.parent = to;
        }
    }

    /// Bytes that count as allocated.
    pub(crate) fn allocated(&self) -> u64 {
        if self.is_file() { self.extent_bytes + u64::from(self.inline_bytes) } else { 0 }
    }

    pub(crate) fn attr(&self) -> Attr {
        Attr {
            ino: self.ino,
            mode: self.mode,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: self.rdev,
            size: self.size,
            blocks: self.allocated().div_ceil(512),
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            btime: self.btime,
            version: self.version,
            has_xattrs: self.xattr_bytes > 0,
        }
    }

    /// New content or size: time stamps and version.
    pub(crate) fn touch_data(&mut self, now: Time) {
        self.version += 1;
        self.mtime = now;
        self.ctime = now;
    }

    /// Content that a program wrote at `time` by its own clock: not later than now; the change time never goes back.
    pub(crate) fn touch_written(&mut self, now: Time, time: Option<Time>) {
        let Some(time) = time else { return self.touch_data(now) };
        self.version += 1;
        self.mtime = time.min(now);
        self.ctime = self.ctime.max(self.mtime);
    }

    pub(crate) fn decode(ino: Ino, bytes: &[u8]) -> Result<Self, Errno> {
        let mut inode: Self = decode(bytes)?;
        inode.ino = ino;
        Ok(inode)
    }
}

impl StoredExtent {
    pub(crate) fn length(&self) -> u64 {
        self.end - self.start
    }

    /// The part of it within `from .. to`, which overlap it. Parts of at most `u32::MAX` bytes stay so.
    pub(crate) fn clip(&self, from: u64, to: u64) -> Self {
        let start = self.start.max(from);
        let skipped = u32::try_from(start - self.start).unwrap_or(u32::MAX);
        let block_offset = if self.block == ZERO_BLOCK { 0 } else { self.block_offset + skipped };
        Self { start, end: self.end.min(to), block_offset, ..*self }
    }

    pub(crate) fn is_dead(&self, dead: &[DeadRange]) -> bool {
        dead.iter()
            .any(|range| range.from <= self.start && self.end <= range.to && self.version <= range.version)
    }

    /// As the wire has it. Lengths fit: no stored extent is longer than the `u32` it came with.
    pub(crate) fn extent(&self) -> Extent {
        Extent {
            offset: self.start,
            length: u32::try_from(self.length()).unwrap_or(u32::MAX),
            block: self.block,
            block_offset: self.block_offset,
        }
    }

    pub(crate) fn decode(end: u64, bytes: &[u8]) -> Result<Self, Errno> {
        let mut extent: Self = decode(bytes)?;
        extent.end = end;
        if extent.start >= end {
            return Err(damaged("extent"));
        }
        Ok(extent)
    }
}

/// A row as bytes.
pub(crate) fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    postcard::to_extend(row, Vec::with_capacity(ROW_BYTES))
        .expect("rows hold nothing that postcard refuses, and a Vec grows")
}

/// A row from bytes; `EIO` and a line in the log when it is not one.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Errno> {
    match postcard::take_from_bytes(bytes) {
        Ok((row, [])) => Ok(row),
        Ok(_) | Err(_) => Err(damaged(std::any::type_name::<T>())),
    }
}

/// The database holds something that cannot be: `EIO` for the client, a line for the operator.
pub(crate) fn damaged(what: &str) -> Errno {
    tracing::error!(what, "the metadata database is damaged; run `meta.flexfs verify`");
    Errno::EIO
}
