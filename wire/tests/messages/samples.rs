//! One value of every variant that travels, for the golden table. A variant added to a message and not here does
//! not compile; one without a sample fails `golden::every_variant_has_a_line`.

use flexfs_wire::attr::{Attr, SetAttr, SetTime};
use flexfs_wire::errno::Errno;
use flexfs_wire::extent::{Extent, Layout, NewBlock};
use flexfs_wire::hello::{Granted, Hello, Open, Reason, Refused, Welcome};
use flexfs_wire::id::{BlockId, Commit, Epoch, Ino, Range, RequestId, SessionId};
use flexfs_wire::lease::{Keep, Recall};
use flexfs_wire::message::{
    Answer, Call, Caller, Carried, DirEntry, Entry, Inline, Lock, LockFamily, LockKind, Make, Notice,
    Recovery, Replay, Reply, Request, Segment, StatFs, Write, XattrMode,
};
use flexfs_wire::name::Name;
use flexfs_wire::seal::Node;
use flexfs_wire::settings::{Compression, Flags, VolumeSettings};
use flexfs_wire::time::Time;

/// Names the variant of a value, and lists all names: the match has no wildcard, so the list cannot fall behind.
macro_rules! variants {
    ($function:ident, $all:ident, $type:ident: $($variant:ident),+ $(,)?) => {
        pub(crate) const $all: &[&str] = &[$(stringify!($variant)),+];
        pub(crate) fn $function(value: &$type) -> &'static str {
            match value { $($type::$variant { .. } => stringify!($variant)),+ }
        }
    };
}

variants!(request_name, REQUESTS, Request: Lookup, GetAttr, ReadLink, ReadDir, GetXattr, ListXattr, StatFs,
    ReadLayout, ReadBlock, TestLock, Heartbeat, GrantInodes, GrantBlocks, Sync, PutBlock, CancelWait, Leave, Open,
    Close, Make, Link, Remove, Rename, SetAttr, SetXattr, RemoveXattr, Write, Fallocate, CopyRange, Lock, Unlock,
    Acquire, Recalled, GiveBack, DropLeases, LookupToOpen, ReadAhead, ReadPages);
variants!(reply_name, REPLIES, Reply: Done, Entry, Attr, Bytes, Entries, StatFs, Layout, Segments, Locked, Granted, Inodes,
    Opened, Copied, Found, Ahead, Pages);
variants!(notice_name, NOTICES, Notice: Durable, Revoked, Closing, Recall);
variants!(hello_name, HELLOS, Hello: Open, Attach, Resume);
variants!(welcome_name, WELCOMES, Welcome: Granted, Attached, Recovering, Refused);
variants!(reason_name, REASONS, Reason: Version, TokenMalformed, TokenKind, TokenUnknown, TokenExpired, Volume,
    Scope, AdminUnreachable, SessionUnknown, MustRecover, Busy, Server, Protocol, Network);

fn node(ino: u64) -> Node {
    Node { ino: Ino(ino), seal: 0x1122_3344_5566_7788 }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

pub(crate) fn attr() -> Attr {
    Attr {
        ino: Ino(42),
        mode: 0o100_644,
        nlink: 2,
        uid: 1000,
        gid: 100,
        rdev: 0,
        size: 1 << 40,
        blocks: 8,
        atime: Time { secs: 1, nanos: 2 },
        mtime: Time { secs: -3, nanos: 999_999_999 },
        ctime: Time { secs: 5, nanos: 6 },
        btime: Time { secs: 7, nanos: 8 },
        version: 9,
        has_xattrs: true,
    }
}

fn lock() -> Lock {
    Lock {
        family: LockFamily::Flock,
        kind: LockKind::Write,
        owner: 0xabcd,
        pid: 77,
        start: 10,
        end: u64::MAX,
    }
}

fn extent() -> Extent {
    Extent { offset: 1 << 33, length: 65_536, block: BlockId(5), block_offset: 131_072 }
}

fn layout() -> Layout {
    Layout { inline: b"abc".to_vec(), extents: vec![extent()], start: 0, end: u64::MAX, version: 4 }
}

fn entry() -> Entry {
    Entry { node: node(42), attr: attr() }
}

fn make() -> Make {
    Make {
        ino: Ino(4096),
        mode: 0o120_777,
        umask: 0o022,
        rdev: 0x0103,
        target: b"../to".to_vec(),
        open: true,
    }
}

fn write() -> Write {
    Write {
        inline: Some(Inline { offset: 7, bytes: vec![0, 255] }),
        extents: vec![extent()],
        blocks: vec![NewBlock { block: BlockId(5), raw_bytes: 196_608, stored_bytes: 70_000 }],
        kill_privileges: true,
        time: Some(Time { secs: 1_700_000_000, nanos: 5 }),
        promised: true,
        carried: Some(Carried { block: BlockId(5), bytes: vec![0, 255, 7] }),
        awaited: true,
    }
}

fn set_attr() -> SetAttr {
    SetAttr {
        mode: Some(0o600),
        uid: Some(1),
        gid: None,
        size: Some(0),
        atime: Some(SetTime::Now),
        mtime: Some(SetTime::At(Time { secs: -1, nanos: 1 })),
        ctime: None,
        kill_privileges: true,
    }
}

pub(crate) fn requests() -> Vec<Request> {
    let (n, m) = (node(42), node(1));
    vec![
        Request::Lookup { parent: m, name: name("file") },
        Request::GetAttr { node: n },
        Request::ReadLink { node: n },
        Request::ReadDir { node: m, cookie: 3, bytes_max: 65_536, plus: true },
        Request::GetXattr { node: n, name: b"user.a".to_vec() },
        Request::ListXattr { node: n },
        Request::StatFs,
        Request::ReadLayout { node: n, start: 1, end: 1 << 20 },
        Request::ReadBlock { node: n, block: BlockId(5), first: 1, count: 2 },
        Request::TestLock { node: n, lock: lock() },
        Request::Heartbeat,
        Request::GrantInodes { count: 4096 },
        Request::GrantBlocks { count: 256 },
        Request::Sync { up_to: Commit(300) },
        Request::PutBlock { block: BlockId(5) },
        Request::CancelWait { request: RequestId(12) },
        Request::Leave,
        Request::Open { node: n, write: true, truncate: false, kill_privileges: false },
        Request::Close { node: n, count: 1 },
        Request::Make { parent: m, name: Some(name("link")), make: make() },
        Request::Make { parent: m, name: None, make: make() },
        Request::Link { node: n, parent: m, name: name("second") },
        Request::Remove { parent: m, name: name("gone"), dir: true },
        Request::Rename { parent: m, name: name("a"), new_parent: n, new_name: name("b"), flags: 2 },
        Request::SetAttr { node: n, change: set_attr() },
        Request::SetXattr { node: n, name: b"user.a".to_vec(), value: vec![1, 2], mode: XattrMode::Replace },
        Request::RemoveXattr { node: n, name: b"user.a".to_vec() },
        Request::Write { node: n, write: write() },
        Request::Fallocate { node: n, mode: 3, offset: 4096, length: 8192 },
        Request::CopyRange { source: n, source_offset: 1, target: m, target_offset: 2, length: 3 },
        Request::Lock { node: n, lock: lock(), wait: true },
        Request::Unlock { node: n, family: LockFamily::Posix, owner: 9 },
        Request::Acquire { node: n },
        Request::Recalled { ids: vec![1, 300] },
        Request::GiveBack { inos: vec![Ino(42), Ino(1 << 40)] },
        Request::DropLeases { epoch: Epoch(3) },
        Request::LookupToOpen { parent: m, name: name("file") },
        Request::ReadAhead { node: n, cookie: 3, first: Some(name("file")), count: 64, open: true },
        Request::ReadPages { node: n, block: BlockId(5), segment: 3, first: 1, count: 2 },
    ]
}

pub(crate) fn replies() -> Vec<Reply> {
    let dir_entry =
        DirEntry { name: name("é"), ino: Ino(42), kind: 0o100_000, cookie: 1 << 60, entry: Some(entry()) };
    let figures = StatFs { bytes_total: 1 << 50, bytes_free: 1 << 49, inodes_total: 1000, inodes_free: 999 };
    let segment = Segment { stored_bytes: 30_000, raw_bytes: 65_536, codec: 1, check: u64::MAX };
    vec![
        Reply::Done,
        Reply::Entry(entry()),
        Reply::Attr(attr()),
        Reply::Bytes(b"target".to_vec()),
        Reply::Entries { entries: vec![dir_entry.clone()], eof: true },
        Reply::StatFs(figures),
        Reply::Layout(layout()),
        Reply::Segments(vec![segment]),
        Reply::Locked(lock()),
        Reply::Granted(Range { start: 4096, count: 4096 }),
        Reply::Inodes { range: Range { start: 9, count: 2 }, seals: (1..=16).collect() },
        Reply::Opened { attr: attr(), layout: Some(layout()) },
        Reply::Copied { length: 3, attr: attr() },
        Reply::Found { entry: entry(), layout: Some(Box::new(layout())) },
        Reply::Ahead { entries: vec![dir_entry], layouts: vec![(0, layout())], eof: false },
        Reply::Pages {
            segment: Segment { stored_bytes: 4096, raw_bytes: 4096, codec: 3, check: 7 },
            checks: vec![9; 8],
        },
    ]
}

pub(crate) fn notices() -> Vec<Notice> {
    let recalls = vec![
        Recall { id: 1, ino: Ino(42), keep: Keep::Nothing, name: None },
        Recall { id: 300, ino: Ino(1), keep: Keep::All, name: Some(name("é")) },
    ];
    vec![
        Notice::Durable,
        Notice::Revoked { text: "the token was deleted".into() },
        Notice::Closing,
        Notice::Recall { recalls },
    ]
}

pub(crate) fn hellos() -> Vec<Hello> {
    let open = Open {
        versions: (1, 1),
        token: "flexvol_x".into(),
        volume: "vol".into(),
        client: "host:/mnt".into(),
        flags: Flags { ro: true, umask: 0o027, ..Flags::default() },
    };
    let (versions, session, proof) = ((1, 1), SessionId(3), [7; 32]);
    vec![
        Hello::Open(open),
        Hello::Attach { versions, session, proof },
        Hello::Resume { versions, session, proof },
    ]
}

pub(crate) fn settings() -> VolumeSettings {
    VolumeSettings {
        id: "00000000-0000-4000-8000-000000000000".into(),
        name: "vol".into(),
        block_size: 4 << 20,
        compression: Compression::Zstd,
        max_blocks: 10,
        max_inodes: 0,
        retention: -1,
        flags: Flags::default(),
        encrypted: false,
    }
}

pub(crate) fn granted() -> Granted {
    Granted {
        version: 1,
        session: SessionId(3),
        resume_key: [8; 32],
        epoch: Epoch(2),
        root: node(1),
        attr: attr(),
        settings: settings(),
        flags: Flags { no_suid: true, ..Flags::default() },
        lease_ms: 10_000,
        durable: Commit(299),
    }
}

pub(crate) fn welcomes() -> Vec<Welcome> {
    vec![
        Welcome::Granted(Box::new(granted())),
        Welcome::Attached { epoch: Epoch(2), durable: Commit(300) },
        Welcome::Recovering { epoch: Epoch(3), durable: Commit(301) },
        Welcome::Refused(Refused { reason: Reason::TokenUnknown, text: "no".into() }),
    ]
}

pub(crate) fn reasons() -> Vec<Reason> {
    vec![
        Reason::Version,
        Reason::TokenMalformed,
        Reason::TokenKind,
        Reason::TokenUnknown,
        Reason::TokenExpired,
        Reason::Volume,
        Reason::Scope,
        Reason::AdminUnreachable,
        Reason::SessionUnknown,
        Reason::MustRecover,
        Reason::Busy,
        Reason::Server,
        Reason::Protocol,
        Reason::Network,
    ]
}

pub(crate) fn call(request: Request) -> Call {
    // Both are there: only some requests are told of before.
    let told =
        matches!(request, Request::Make { .. }).then_some(Time { secs: 1_700_000_000, nanos: 999_999_999 });
    Call { told, ..Call::new(Caller { uid: 1000, gid: 100 }, request) }
}

pub(crate) fn answers() -> Vec<(&'static str, Answer)> {
    let at = Time { secs: 1_700_000_000, nanos: 5 };
    vec![
        ("Ok", Answer { commit: Commit(300), at, result: Ok(Reply::Done) }),
        ("Err", Answer { commit: Commit(0), at, result: Err(Errno::ENOENT) }),
    ]
}

pub(crate) fn replay() -> Replay {
    let at = Time { secs: 1_700_000_000, nanos: 5 };
    Replay { commit: Commit(300), at, call: call(Request::GetAttr { node: node(42) }) }
}

pub(crate) fn recovery() -> Recovery {
    Recovery { opens: vec![(node(42), 2)], locks: vec![(node(42), lock())], exclusive: vec![node(42)] }
}
