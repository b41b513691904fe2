//! Values that travel: typical ones, and ones near their bounds.

use flexfs_wire::attr::Attr;
use flexfs_wire::extent::{Extent, Layout, NewBlock};
use flexfs_wire::frame::{self, Header, Kind};
use flexfs_wire::id::{BlockId, Commit, Ino, RequestId};
use flexfs_wire::limits::{EXTENTS_PER_WRITE_MAX, INLINE_BYTES_MAX};
use flexfs_wire::message::{Answer, Call, Caller, DirEntry, Entry, Inline, Make, Reply, Request, Write};
use flexfs_wire::name::Name;
use flexfs_wire::seal::Node;
use flexfs_wire::time::Time;
use flexfs_wire::token::{CaPin, Secret, Token, TokenId, TokenKind};

use crate::attr::file_attr;

/// Entries of a large listing: what fits into the 128 KiB the kernel asks for.
const LISTED: u64 = 600;
pub(crate) fn token() -> Token {
    Token {
        kind: TokenKind::Volume,
        id: TokenId([1; 16]),
        secret: Secret::new([2; 32]),
        ca_pin: CaPin([3; 16]),
    }
}

pub(crate) fn node(ino: u64) -> Node {
    Node { ino: Ino(ino), seal: 0x1122_3344_5566_7788 }
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

pub(crate) fn attr() -> Attr {
    file_attr(4_242)
}

pub(crate) fn call(request: Request) -> Call {
    Call::new(Caller { uid: 1000, gid: 100 }, request)
}

fn answer(reply: Reply) -> Answer {
    Answer { commit: Commit(300), at: Time { secs: 1_700_000_000, nanos: 5 }, result: Ok(reply) }
}

fn extents(count: usize) -> Vec<Extent> {
    let extent = |index: u32| Extent {
        offset: u64::from(index) * 8_192,
        length: 4_096,
        block: BlockId(77),
        block_offset: index * 4_096,
    };
    (0..).map(extent).take(count).collect()
}

pub(crate) fn write_inline() -> Request {
    let inline = Some(Inline { offset: 0, bytes: vec![7; INLINE_BYTES_MAX] });
    Request::Write { node: node(42), write: Write { inline, ..Write::default() } }
}

fn write_extents() -> Request {
    let blocks = vec![NewBlock { block: BlockId(77), raw_bytes: 4 << 20, stored_bytes: 2 << 20 }];
    let extents = extents(EXTENTS_PER_WRITE_MAX);
    Request::Write { node: node(42), write: Write { extents, blocks, ..Write::default() } }
}

pub(crate) fn lookup() -> Call {
    call(Request::Lookup { parent: node(42), name: name("a-file-name.txt") })
}

pub(crate) fn make() -> Request {
    let make =
        Make { ino: Ino(4096), mode: 0o100_644, umask: 0o022, rdev: 0, target: Vec::new(), open: true };
    Request::Make { parent: node(42), name: Some(name("a-file-name.txt")), make }
}

pub(crate) fn calls() -> [(&'static str, Call); 5] {
    let read = Request::ReadBlock { node: node(42), block: BlockId(5), first: 0, count: 16 };
    [
        ("lookup", lookup()),
        ("make", call(make())),
        ("read-block", call(read)),
        ("write-16k-inline-large", call(write_inline())),
        ("write-4096-extents-large", call(write_extents())),
    ]
}

fn listing() -> Reply {
    let entry = |number: u64| DirEntry {
        name: name(&format!("file-{number:07}.bin")),
        ino: Ino(number),
        kind: 0o100_000,
        cookie: number << 20,
        entry: Some(Entry { node: node(number), attr: attr() }),
    };
    Reply::Entries { entries: (1..=LISTED).map(entry).collect(), eof: false }
}

fn layout() -> Layout {
    Layout {
        inline: Vec::new(),
        extents: extents(EXTENTS_PER_WRITE_MAX),
        start: 0,
        end: u64::MAX,
        version: 4,
    }
}

pub(crate) fn found() -> Answer {
    answer(Reply::Entry(Entry { node: node(42), attr: attr() }))
}

pub(crate) fn answers() -> [(&'static str, Answer); 5] {
    [
        ("done", answer(Reply::Done)),
        ("entry", found()),
        ("bytes-64k-large", answer(Reply::Bytes(vec![7; 64 << 10]))),
        ("600-entries-plus-large", answer(listing())),
        ("layout-4096-extents-large", answer(Reply::Layout(layout()))),
    ]
}

/// Frames of many small requests, one behind the other, as a busy client sends them in one piece.
pub(crate) fn frames(count: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for number in 1..=count {
        frame::encode(Header::new(Kind::Request, RequestId(number)), &lookup(), 0, &mut out).unwrap();
    }
    out
}
