//! What client and metadata server say to each other once a session stands.
//!
//! Encoded with postcard: the order of variants and fields IS the protocol; append, never reorder, and the golden
//! tests will say so. Nodes in requests are sealed (`seal`); the server checks them at its border and seals what it hands out.

use serde::{Deserialize, Serialize};

use crate::attr::{Attr, SetAttr};
use crate::errno::Errno;
use crate::extent::{Extent, Layout, NewBlock};
use crate::id::{BlockId, Commit, Epoch, Ino, Range, RequestId};
use crate::lease::Recall;
use crate::name::Name;
use crate::seal::{Node, Sealer};
use crate::time::Time;

/// Who acts: the ids of the process on the client's machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// File system user id.
    pub uid: u32,
    /// File system group id.
    pub gid: u32,
}

/// Body of a `Kind::Request` frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Who acts.
    pub caller: Caller,
    /// When the client told its program that it is done, by the server's clock as the client knows it: the time stamps it
    /// gives are of then. The server takes it on a full disk, too. `None`: the program waits for the answer.
    pub told: Option<Time>,
    /// What is asked for.
    pub request: Request,
}

impl Call {
    /// One whose program waits.
    #[must_use]
    pub fn new(caller: Caller, request: Request) -> Self {
        Self { caller, told: None, request }
    }
}

/// `Rename` refuses to replace the target (`RENAME_NOREPLACE`).
pub const RENAME_NOREPLACE: u32 = 1;
/// `Rename` swaps source and target (`RENAME_EXCHANGE`).
pub const RENAME_EXCHANGE: u32 = 2;

/// `Fallocate` leaves the size alone (`FALLOC_FL_KEEP_SIZE`).
pub const FALLOC_KEEP_SIZE: u32 = 0x01;
/// `Fallocate` makes a hole (`FALLOC_FL_PUNCH_HOLE`, comes with keep-size).
pub const FALLOC_PUNCH_HOLE: u32 = 0x02;
/// `Fallocate` makes allocated zeros (`FALLOC_FL_ZERO_RANGE`).
pub const FALLOC_ZERO_RANGE: u32 = 0x10;

/// How an extended attribute may be set (`setxattr(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum XattrMode {
    /// Create or replace.
    Any,
    /// `EEXIST` when there.
    Create,
    /// `ENODATA` when absent.
    Replace,
    /// As `Any`; an access list also takes set-gid off, for the caller is not of the file's group
    /// (`FUSE_SETXATTR_ACL_KILL_SGID`).
    AnyWithoutSetGid,
}

/// Family of a lock; families do not see each other, as on Linux local file systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LockFamily {
    /// `fcntl(2)` record locks, POSIX and OFD.
    Posix,
    /// `flock(2)`, whole file.
    Flock,
}

/// Strength of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LockKind {
    /// Release the range.
    Unlock,
    /// Shared.
    Read,
    /// Exclusive.
    Write,
}

/// A lock on a byte range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Family.
    pub family: LockFamily,
    /// Strength.
    pub kind: LockKind,
    /// Owner within the session, as the kernel names it.
    pub owner: u64,
    /// Process id for `F_GETLK`.
    pub pid: u32,
    /// First byte.
    pub start: u64,
    /// Last byte, inclusive; `u64::MAX` to the end of any file.
    pub end: u64,
}

/// What a client asks for.
#[expect(missing_docs, reason = "the variant's line names its fields")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    // ---- Reads: may be answered twice, change nothing.
    /// Entry of `name` in a directory -> `Entry`. `ENOENT`, `ENOTDIR`.
    Lookup { parent: Node, name: Name },
    /// -> `Attr`.
    GetAttr { node: Node },
    /// -> `Bytes`: target of a symlink.
    ReadLink { node: Node },
    /// -> `Entries` behind `cookie` (0 = start), about `bytes_max` of them; `plus` adds attributes. `.` and `..` are the client's to make.
    ReadDir { node: Node, cookie: u64, bytes_max: u32, plus: bool },
    /// -> `Bytes`: an extended attribute. `ENODATA`.
    GetXattr {
        node: Node,
        #[serde(with = "serde_bytes")]
        name: Vec<u8>,
    },
    /// -> `Bytes`: names, each with a NUL behind it, as `listxattr(2)` gives them.
    ListXattr { node: Node },
    /// -> `StatFs`.
    StatFs,
    /// -> `Layout` of at least a part of `start .. end` from `start` on (all of the inline bytes always).
    ReadLayout { node: Node, start: u64, end: u64 },
    /// -> `Segments` `first .. first + count` of a hosted block, stored bytes as payload. `ENOENT` when collected.
    ReadBlock { node: Node, block: BlockId, first: u32, count: u32 },
    /// -> `Locked`: the lock that would be in the way, kind `Unlock` if none (`F_GETLK`).
    TestLock { node: Node, lock: Lock },

    // ---- Session business: idempotent.
    /// -> `Done`. Keeps the session alive.
    Heartbeat,
    /// -> `Inodes`: inode numbers for `Make`. Durable when answered. `EPROTO` when far more are held and not used than a client needs.
    GrantInodes { count: u64 },
    /// -> `Granted`: block ids for `PutBlock`. Durable when answered.
    GrantBlocks { count: u64 },
    /// -> `Done` when every commit up to this one is durable.
    Sync { up_to: Commit },
    /// Payload = the encoded block. -> `Done` when it is on stable storage. Same id again: same answer, first bytes stay. `ENOSPC` also
    /// when too much is stored that no file refers to. A block may go before a `Write` names it, which is then refused with `EINVAL`.
    PutBlock { block: BlockId },
    /// Ends a `Lock` wait, which then answers `EINTR`. -> `Done`.
    CancelWait { request: RequestId },
    /// The client unmounts: its session ends, with opens and locks. -> `Done`.
    Leave,

    // ---- Session state and mutations: once each, resends are answered from the dedup table.
    /// Counts one open of the inode by this session -> `Opened`. `truncate` cuts it to 0 first (a mutation then).
    Open { node: Node, write: bool, truncate: bool, kill_privileges: bool },
    /// Takes back `count` opens -> `Done`. An orphan dies with its last open on any session.
    Close { node: Node, count: u32 },
    /// Makes an inode -> `Entry`. `name` None: an orphan that `Link` may name (`O_TMPFILE`), open by this session.
    Make { parent: Node, name: Option<Name>, make: Make },
    /// Another name for an inode -> `Entry`.
    Link { node: Node, parent: Node, name: Name },
    /// Removes a name; `dir`: `rmdir(2)`, else `unlink(2)` -> `Done`.
    Remove { parent: Node, name: Name, dir: bool },
    /// `renameat2(2)` with `RENAME_*` flags -> `Done`.
    Rename { parent: Node, name: Name, new_parent: Node, new_name: Name, flags: u32 },
    /// -> `Attr`.
    SetAttr { node: Node, change: SetAttr },
    /// -> `Done`.
    SetXattr {
        node: Node,
        #[serde(with = "serde_bytes")]
        name: Vec<u8>,
        #[serde(with = "serde_bytes")]
        value: Vec<u8>,
        mode: XattrMode,
    },
    /// -> `Done`. `ENODATA`.
    RemoveXattr {
        node: Node,
        #[serde(with = "serde_bytes")]
        name: Vec<u8>,
    },
    /// New content -> `Attr`.
    Write { node: Node, write: Write },
    /// `fallocate(2)` with `FALLOC_*` -> `Attr`.
    Fallocate { node: Node, mode: u32, offset: u64, length: u64 },
    /// `copy_file_range(2)`: extents are shared, no data moves -> `Copied`.
    CopyRange { source: Node, source_offset: u64, target: Node, target_offset: u64, length: u64 },
    /// Takes, changes or releases a lock -> `Done`. In the way: `EAGAIN`, or with `wait` the answer comes later; `EDEADLK` when it never would.
    Lock { node: Node, lock: Lock, wait: bool },
    /// Releases every lock of an owner on an inode (close of a POSIX owner, last close of an open file description) -> `Done`.
    Unlock { node: Node, family: LockFamily, owner: u64 },

    // ---- Leases: session state that dies with the server or the session; idempotent.
    /// Wants the exclusive lease of a file -> `Attr`, when all others gave theirs back. Without `Leases::EXCLUSIVE` in the
    /// answer it was not granted: this session is itself asked to give the file back, and must write through.
    Acquire { node: Node },
    /// Recalls that were done as asked -> `Done`.
    Recalled { ids: Vec<u64> },
    /// Nothing of these inodes is cached any more -> `Done`. What was granted before the answer is void, and recalls of them
    /// are answered.
    GiveBack { inos: Vec<Ino> },
    /// Nothing that was granted before this start of the server is cached any more -> `Done`.
    DropLeases { epoch: Epoch },

    // ---- Reads, again.
    /// As `Lookup`, by one who is about to open what he finds -> `Found`.
    LookupToOpen { parent: Node, name: Name },
    /// Entries of a directory that will be looked up, with attributes, `AHEAD_ENTRIES_MAX` at most -> `Ahead`. Those behind `cookie`, or
    /// from `first` on in the same order (`ENOENT`). `open`: with the layouts of files, as in `Found`.
    ReadAhead { node: Node, cookie: u64, first: Option<Name>, count: u32, open: bool },
    /// -> `Pages` `first .. first + count` of one segment of a hosted block, as payload; `Segments` with all of that segment when it is not stored
    /// in a way that lets pages be verified one by one. Otherwise as `ReadBlock`.
    ReadPages { node: Node, block: BlockId, segment: u32, first: u32, count: u32 },
}

/// What to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Make {
    /// Number, from a range granted to the session.
    pub ino: Ino,
    /// Type and permission bits, umask already taken off unless the parent has a default ACL.
    pub mode: u32,
    /// The process's umask, for parents with a default ACL.
    pub umask: u32,
    /// Device number of device nodes.
    pub rdev: u32,
    /// Target of a symlink, else empty.
    #[serde(with = "serde_bytes")]
    pub target: Vec<u8>,
    /// Count one open by this session (`O_CREAT`).
    pub open: bool,
}

/// New content of a file. The size grows to the last byte written; it never shrinks here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Bytes for the inline part and their offset. Refused with `EAGAIN` when the file has extents or would pass
    /// `INLINE_BYTES_MAX`: the client then reads the layout anew and writes extents.
    pub inline: Option<Inline>,
    /// Extents, ascending, not overlapping; they replace what was there.
    pub extents: Vec<Extent>,
    /// Blocks the extents refer to that no write referred to before.
    pub blocks: Vec<NewBlock>,
    /// Clear set-uid and set-gid (the writer is not privileged).
    pub kill_privileges: bool,
    /// When the program wrote it, by the client's clock. mtime becomes the earlier of this and the server's now, ctime
    /// never goes back; `None`: both become now. Without it every flush would move an mtime that programs have
    /// already seen (git compares what `fstat` said before `close` with what `lstat` says later).
    pub time: Option<Time>,
    /// The program has closed the file and would not hear of an error: a few bytes, taken on a full disk, too.
    pub promised: bool,
    /// One of `blocks`, small enough to come along: no `PutBlock` comes before. It is stored, and becomes durable, with what names it.
    /// `EINVAL` when no extent refers to it, or when its number was stored before.
    pub carried: Option<Carried>,
    /// Somebody waits until this is durable: the server says so (`Notice::Durable`) as soon as it is. Nothing is lost with a
    /// notice that does not come, for `Sync` asks for the same.
    pub awaited: bool,
}

/// An encoded block in a `Write`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Its number.
    pub block: BlockId,
    /// As `PutBlock` has them; at most `CARRIED_BYTES_MAX`.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// Bytes for the inline part of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inline {
    /// Offset in the file.
    pub offset: u32,
    /// The bytes.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// Body of a `Kind::Reply` frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Where a mutation stands in the volume's history; the client keeps its call until this is durable. 0 for reads and refusals.
    pub commit: Commit,
    /// The server's time at which it was applied; a replay repeats it.
    pub at: Time,
    /// The outcome.
    pub result: Result<Reply, Errno>,
}

/// What a client gets.
#[expect(missing_docs, reason = "the variant's line names its fields")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Nothing to say.
    Done,
    /// An inode found or made.
    Entry(Entry),
    /// Attributes after the call.
    Attr(Attr),
    /// Bytes: a link target, an attribute value, a list of names.
    Bytes(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Directory entries; `eof` when none follow.
    Entries { entries: Vec<DirEntry>, eof: bool },
    /// Figures of the volume.
    StatFs(StatFs),
    /// Where bytes are.
    Layout(Layout),
    /// Segments of a block; their stored bytes are the payload, in order.
    Segments(Vec<Segment>),
    /// A lock.
    Locked(Lock),
    /// A range of numbers.
    Granted(Range),
    /// Inode numbers, and the seals of their handles: u64, little-endian, one behind the other. An inode may be named
    /// before its `Make` is answered.
    Inodes {
        range: Range,
        #[serde(with = "serde_bytes")]
        seals: Vec<u8>,
    },
    /// An inode is open. The layout is there when it is short (inline, or few extents).
    Opened { attr: Attr, layout: Option<Layout> },
    /// Bytes copied, and the target's attributes.
    Copied { length: u64, attr: Attr },
    /// An inode found. The layout is there for who may read a file, when it is short (inline, or few extents).
    Found { entry: Entry, layout: Option<Box<Layout>> },
    /// Directory entries as in `Entries`, and layouts of some of their files, each with the place of its entry, ascending.
    Ahead { entries: Vec<DirEntry>, layouts: Vec<(u32, Layout)>, eof: bool },
    /// Pages of this segment are the payload; `checks` are those of all of its pages (`block::check_pages`).
    Pages {
        segment: Segment,
        #[serde(with = "serde_bytes")]
        checks: Vec<u8>,
    },
}

/// An inode found or made, with what `stat` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its sealed handle.
    pub node: Node,
    /// Its attributes.
    pub attr: Attr,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirEntry {
    /// Name.
    pub name: Name,
    /// Inode number.
    pub ino: Ino,
    /// Type bits (`S_IFMT`).
    pub kind: u32,
    /// Position behind this entry, to go on from. Stable while entries come and go. Never 0, 1 or 2 (start, `.`, `..`).
    pub cookie: u64,
    /// With `plus`: the inode.
    pub entry: Option<Entry>,
}

/// Figures of `statfs(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatFs {
    /// Bytes the volume may hold (quota, or what the store can take).
    pub bytes_total: u64,
    /// Bytes of them free.
    pub bytes_free: u64,
    /// Inodes it may hold.
    pub inodes_total: u64,
    /// Inodes of them free.
    pub inodes_free: u64,
}

/// A segment as the block's index describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Bytes in the store.
    pub stored_bytes: u32,
    /// Bytes when opened: `SEGMENT_BYTES` but for the last of a block.
    pub raw_bytes: u32,
    /// `block::Codec` as a number.
    pub codec: u8,
    /// XXH3-64 of the stored bytes, or of the checks of its pages (`Codec::Paged`).
    pub check: u64,
}

/// What the server says unasked.
#[expect(missing_docs, reason = "the variant's line names its fields")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// Commits up to the frame's `mark` are durable.
    Durable,
    /// The token was revoked or expired: the session has ended. `text` for the log.
    Revoked { text: String },
    /// The server stops on purpose; reconnect.
    Closing,
    /// Somebody else needs what this session has leases of.
    Recall { recalls: Vec<Recall> },
}

/// Body of a `Kind::Replay` frame: a call that was answered, but not durable when the server died.
/// Sent in ascending order of `commit`, the frame's request id is the call's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// The commit it was answered with.
    pub commit: Commit,
    /// The time it was applied at.
    pub at: Time,
    /// The call.
    pub call: Call,
}

/// Body of a `Kind::Recovery` frame: the client has replayed all it had. The server answers with a `Reply` to the
/// frame's request id (`Done`) when the recovery of all sessions is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Inodes this session has open, and how often.
    pub opens: Vec<(Node, u32)>,
    /// Locks it holds.
    pub locks: Vec<(Node, Lock)>,
    /// Files it has unwritten data of under an exclusive lease.
    pub exclusive: Vec<Node>,
}

impl Request {
    /// Whether it changes the volume: answered once, kept for replay, refused in read-only sessions.
    #[must_use]
    pub fn is_mutation(&self) -> bool {
        match self {
            Self::Open { truncate, .. } => *truncate,
            Self::Make { .. }
            | Self::Link { .. }
            | Self::Remove { .. }
            | Self::Rename { .. }
            | Self::SetAttr { .. }
            | Self::SetXattr { .. }
            | Self::RemoveXattr { .. }
            | Self::Write { .. }
            | Self::Fallocate { .. }
            | Self::CopyRange { .. } => true,
            Self::Lookup { .. }
            | Self::LookupToOpen { .. }
            | Self::ReadAhead { .. }
            | Self::GetAttr { .. }
            | Self::ReadLink { .. }
            | Self::ReadDir { .. }
            | Self::GetXattr { .. }
            | Self::ListXattr { .. }
            | Self::StatFs
            | Self::ReadLayout { .. }
            | Self::ReadBlock { .. }
            | Self::ReadPages { .. }
            | Self::TestLock { .. }
            | Self::Heartbeat
            | Self::GrantInodes { .. }
            | Self::GrantBlocks { .. }
            | Self::Sync { .. }
            | Self::PutBlock { .. }
            | Self::CancelWait { .. }
            | Self::Leave
            | Self::Close { .. }
            | Self::Lock { .. }
            | Self::Unlock { .. }
            | Self::Acquire { .. }
            | Self::Recalled { .. }
            | Self::GiveBack { .. }
            | Self::DropLeases { .. } => false,
        }
    }

    /// Whether a resend must be answered from memory: it changes the volume or counts in the session.
    #[must_use]
    pub fn is_once(&self) -> bool {
        self.is_mutation()
            || matches!(
                self,
                Self::Open { .. } | Self::Close { .. } | Self::Lock { .. } | Self::Unlock { .. }
            )
    }

    /// The names of directory entries it gives, each with its directory.
    #[must_use]
    pub fn names(&self) -> [Option<(Node, &Name)>; 2] {
        match self {
            Self::Lookup { parent, name }
            | Self::LookupToOpen { parent, name }
            | Self::ReadAhead { node: parent, first: Some(name), .. }
            | Self::Link { parent, name, .. }
            | Self::Remove { parent, name, .. }
            | Self::Make { parent, name: Some(name), .. } => [Some((*parent, name)), None],
            Self::Rename { parent, name, new_parent, new_name, .. } => {
                [Some((*parent, name)), Some((*new_parent, new_name))]
            }
            _ => [None, None],
        }
    }

    /// The sealed nodes it names, for the server's check.
    #[must_use]
    pub fn nodes(&self) -> [Option<Node>; 2] {
        match self {
            Self::Lookup { parent: node, .. }
            | Self::LookupToOpen { parent: node, .. }
            | Self::GetAttr { node }
            | Self::ReadLink { node }
            | Self::ReadDir { node, .. }
            | Self::ReadAhead { node, .. }
            | Self::GetXattr { node, .. }
            | Self::ListXattr { node }
            | Self::ReadLayout { node, .. }
            | Self::ReadBlock { node, .. }
            | Self::ReadPages { node, .. }
            | Self::TestLock { node, .. }
            | Self::Open { node, .. }
            | Self::Close { node, .. }
            | Self::Make { parent: node, .. }
            | Self::Remove { parent: node, .. }
            | Self::SetAttr { node, .. }
            | Self::SetXattr { node, .. }
            | Self::RemoveXattr { node, .. }
            | Self::Write { node, .. }
            | Self::Fallocate { node, .. }
            | Self::Lock { node, .. }
            | Self::Unlock { node, .. }
            | Self::Acquire { node } => [Some(*node), None],
            Self::Link { node, parent, .. } => [Some(*node), Some(*parent)],
            Self::Rename { parent, new_parent, .. } => [Some(*parent), Some(*new_parent)],
            Self::CopyRange { source, target, .. } => [Some(*source), Some(*target)],
            Self::StatFs
            | Self::Heartbeat
            | Self::GrantInodes { .. }
            | Self::GrantBlocks { .. }
            | Self::Sync { .. }
            | Self::PutBlock { .. }
            | Self::CancelWait { .. }
            | Self::Leave
            | Self::Recalled { .. }
            | Self::GiveBack { .. }
            | Self::DropLeases { .. } => [None, None],
        }
    }
}

impl Reply {
    /// Seals every node handed out. Called once, at the server's border.
    pub fn seal(&mut self, sealer: &Sealer) {
        match self {
            Self::Entry(entry) | Self::Found { entry, .. } => entry.node = sealer.seal(entry.node.ino),
            Self::Entries { entries, .. } | Self::Ahead { entries, .. } => {
                for entry in entries.iter_mut().filter_map(|entry| entry.entry.as_mut()) {
                    entry.node = sealer.seal(entry.node.ino);
                }
            }
            Self::Inodes { range, seals } => {
                let numbers = range.start..range.start.saturating_add(range.count);
                *seals = numbers.flat_map(|ino| sealer.seal(Ino(ino)).seal.to_le_bytes()).collect();
            }
            Self::Done
            | Self::Attr(_)
            | Self::Bytes(_)
            | Self::StatFs(_)
            | Self::Layout(_)
            | Self::Segments(_)
            | Self::Pages { .. }
            | Self::Locked(_)
            | Self::Granted(_)
            | Self::Opened { .. }
            | Self::Copied { .. } => {}
        }
    }
}
