//! A client with a good token and bad manners: handles, ranges, counts and names that cannot be, frames out of order. Each is
//! refused, at worst its link ends; the server and its other clients go on.

use flexfs_wire::attr::{SetAttr, SetTime};
use flexfs_wire::errno::Errno;
use flexfs_wire::extent::{Extent, NewBlock};
use flexfs_wire::frame::{self, HEADER_BYTES, Header, Kind};
use flexfs_wire::hello::Welcome;
use flexfs_wire::id::{BlockId, Commit, Ino, RequestId};
use flexfs_wire::limits::BODY_BYTES_MAX;
use flexfs_wire::message::{
    Answer, Call, Caller, Carried, Inline, Lock, LockFamily, LockKind, Make, Notice, Recovery, Reply,
    Request, Write, XattrMode,
};
use flexfs_wire::name::Name;
use flexfs_wire::seal::Node;
use flexfs_wire::settings::Flags;
use flexfs_wire::time::Time;

use crate::client::cluster::Cluster;
use crate::client::witness::Witness;
use crate::client::{Session, open_hello};

/// Numbers at the ends of things.
const ENDS: [u64; 12] = [
    0,
    1,
    4095,
    16_384,
    65_537,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    i64::MAX as u64 - 4096,
    i64::MAX as u64,
    u64::MAX - 1,
    u64::MAX,
];

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn lock(start: u64, end: u64, kind: LockKind) -> Lock {
    Lock { family: LockFamily::Posix, kind, owner: 1, pid: 1, start, end }
}

/// Requests that name nodes, each with this one in every place there is for one.
pub(super) fn with_node(node: Node, good: Node) -> Vec<Request> {
    let write = Write::default();
    vec![
        Request::Lookup { parent: node, name: name("f") },
        Request::GetAttr { node },
        Request::ReadLink { node },
        Request::ReadDir { node, cookie: 0, bytes_max: 100, plus: true },
        Request::GetXattr { node, name: b"user.x".to_vec() },
        Request::ListXattr { node },
        Request::ReadLayout { node, start: 0, end: 1 },
        Request::ReadBlock { node, block: BlockId(1), first: 0, count: 1 },
        Request::ReadPages { node, block: BlockId(1), segment: 0, first: 0, count: 1 },
        Request::TestLock { node, lock: lock(0, 1, LockKind::Read) },
        Request::Open { node, write: false, truncate: false, kill_privileges: false },
        Request::Open { node, write: true, truncate: true, kill_privileges: false },
        Request::Close { node, count: 1 },
        Request::Link { node, parent: good, name: name("l") },
        Request::Link { node: good, parent: node, name: name("l") },
        Request::Remove { parent: node, name: name("f"), dir: false },
        Request::Rename { parent: node, name: name("f"), new_parent: good, new_name: name("g"), flags: 0 },
        Request::Rename { parent: good, name: name("f"), new_parent: node, new_name: name("g"), flags: 0 },
        Request::SetAttr { node, change: SetAttr::default() },
        Request::SetXattr { node, name: b"user.x".to_vec(), value: vec![1], mode: XattrMode::Any },
        Request::RemoveXattr { node, name: b"user.x".to_vec() },
        Request::Write { node, write },
        Request::Fallocate { node, mode: 0, offset: 0, length: 1 },
        Request::CopyRange { source: node, source_offset: 0, target: good, target_offset: 0, length: 1 },
        Request::CopyRange { source: good, source_offset: 0, target: node, target_offset: 0, length: 1 },
        Request::Lock { node, lock: lock(0, 1, LockKind::Write), wait: true },
        Request::Unlock { node, family: LockFamily::Posix, owner: 1 },
        Request::Acquire { node },
    ]
}

#[test]
fn handles_that_were_never_given_are_stale() {
    let mut cluster = Cluster::start();
    let mut all = cluster.open();
    all.make(all.root(), "team", 0o040_755);
    let token = cluster.another_token(&["--mountPath", "/team"]);
    let mut session = cluster.try_open(&token, Flags::default()).unwrap();
    let good = session.make(session.root(), "f", 0o100_600).node;
    let bad = [
        Node::unsealed(good.ino),
        Node { ino: good.ino, seal: good.seal ^ 1 },
        Node { ino: Ino(good.ino.0 + 1), seal: good.seal },
        Node { ino: Ino(0), seal: u64::MAX },
        Node { ino: Ino(u64::MAX), seal: 0 },
        // Of the scope above.
        all.root(),
    ];
    for node in bad {
        for request in with_node(node, good) {
            let shown = format!("{request:?}");
            assert_eq!(session.fail(request), Errno::ESTALE, "{shown}");
        }
        let ino = session.ino();
        let make = Make { ino, mode: 0o100_600, umask: 0, rdev: 0, target: Vec::new(), open: false };
        let request = Request::Make { parent: node, name: Some(name("m")), make };
        assert_eq!(session.fail(request), Errno::ESTALE);
    }
    session.get(Request::GetAttr { node: good });
    ends_well(&mut cluster, [all, session]);
}

/// Everybody leaves, the server stops in order, its database is sound.
fn ends_well(cluster: &mut Cluster, sessions: impl IntoIterator<Item = Session>) {
    for mut session in sessions {
        session.get(Request::Leave);
    }
    assert!(cluster.stop_meta());
    let checked = cluster.verify();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

fn make(ino: Ino, mode: u32, target: &[u8]) -> Make {
    Make { ino, mode, umask: 0, rdev: 0, target: target.to_vec(), open: false }
}

/// Arguments that cannot be, with what must be said to them.
fn impossible(session: &mut Session, file: Node, dir: Node) -> Vec<(Request, Errno)> {
    use Errno as E;
    let root = session.root();
    let extent = |offset, length, block, block_offset| Extent { offset, length, block, block_offset };
    let write = |write| Request::Write { node: file, write };
    let extents = |extents: Vec<Extent>| write(Write { extents, ..Write::default() });
    let zero = BlockId(0);
    let xattr = |name: Vec<u8>, value| Request::SetXattr { node: file, name, value, mode: XattrMode::Any };
    let block = |block, raw_bytes| {
        let new = NewBlock { block: BlockId(block), raw_bytes, stored_bytes: 1 };
        write(Write { blocks: vec![new], ..Write::default() })
    };
    vec![
        (Request::ReadLayout { node: file, start: 2, end: 1 }, E::EINVAL),
        (Request::ReadLayout { node: dir, start: 0, end: 1 }, E::EISDIR),
        (Request::ReadLink { node: file }, E::EINVAL),
        (Request::ReadDir { node: file, cookie: 0, bytes_max: 0, plus: false }, E::ENOTDIR),
        (
            Request::ReadBlock { node: file, block: BlockId(u64::MAX), first: u32::MAX, count: u32::MAX },
            E::ENOENT,
        ),
        (Request::TestLock { node: file, lock: lock(2, 1, LockKind::Read) }, E::EINVAL),
        (Request::Lock { node: file, lock: lock(2, 1, LockKind::Write), wait: true }, E::EINVAL),
        (Request::Sync { up_to: Commit(u64::MAX) }, E::EINVAL),
        (extents(vec![extent(u64::MAX, 1, zero, 0)]), E::EFBIG),
        (extents(vec![extent(i64::MAX as u64, 1, zero, 0)]), E::EFBIG),
        (extents(vec![extent(0, 0, zero, 0)]), E::EINVAL),
        (extents(vec![extent(0, 10, zero, 0), extent(5, 10, zero, 0)]), E::EINVAL),
        (extents(vec![extent(0, 10, BlockId(u64::MAX), u32::MAX)]), E::EINVAL),
        (extents(vec![extent(0, 1, zero, 0); 5000]), E::E2BIG),
        (
            write(Write { inline: Some(Inline { offset: u32::MAX, bytes: vec![1] }), ..Write::default() }),
            E::EAGAIN,
        ),
        (block(0, 1), E::EINVAL),
        (block(u64::MAX, 1), E::EINVAL),
        (block(1, u32::MAX), E::EINVAL),
        (Request::Fallocate { node: file, mode: 0, offset: u64::MAX, length: 1 }, E::EFBIG),
        (Request::Fallocate { node: file, mode: 0, offset: 0, length: 0 }, E::EINVAL),
        (Request::Fallocate { node: file, mode: u32::MAX, offset: 0, length: 1 }, E::EOPNOTSUPP),
        (
            Request::CopyRange {
                source: file,
                source_offset: 0,
                target: file,
                target_offset: u64::MAX,
                length: 9,
            },
            E::EFBIG,
        ),
        (
            Request::SetAttr { node: file, change: SetAttr { size: Some(u64::MAX), ..SetAttr::default() } },
            E::EFBIG,
        ),
        (xattr(Vec::new(), vec![1]), E::ERANGE),
        (xattr(vec![b'u'; 300], vec![1]), E::ERANGE),
        (xattr(b"user.x".to_vec(), vec![0; 70_000]), E::E2BIG),
        (
            Request::Rename {
                parent: root,
                name: name("f"),
                new_parent: root,
                new_name: name("g"),
                flags: u32::MAX,
            },
            E::EINVAL,
        ),
    ]
}

/// Inodes that cannot be made.
fn unmakeable(session: &mut Session, file: Node) -> Vec<(Request, Errno)> {
    use Errno as E;
    let (fresh, root) = (session.ino(), session.root());
    let made = |make| Request::Make { parent: root, name: Some(name("impossible")), make };
    vec![
        (made(make(Ino(0), 0o100_600, b"")), E::EINVAL),
        (made(make(Ino::ROOT, 0o100_600, b"")), E::EINVAL),
        (made(make(Ino(u64::MAX), 0o100_600, b"")), E::EINVAL),
        (made(make(file.ino, 0o100_600, b"")), E::EINVAL),
        (made(make(fresh, 0, b"")), E::EINVAL),
        (made(make(fresh, 0o170_000, b"")), E::EINVAL),
        (made(make(fresh, 0o120_777, &[b'x'; 5000])), E::ENAMETOOLONG),
    ]
}

#[test]
fn arguments_that_cannot_be_are_refused() {
    let mut cluster = Cluster::start();
    let mut session = cluster.open();
    let file = session.make(session.root(), "f", 0o100_600).node;
    let dir = session.make(session.root(), "d", 0o040_700).node;
    session.write_inline(file, b"as it was");
    let mut wrong = Vec::new();
    let mut all = impossible(&mut session, file, dir);
    all.extend(unmakeable(&mut session, file));
    for (request, errno) in all {
        let mut shown = format!("{request:?}");
        shown.truncate(150);
        let said = session.call(request).result;
        if said != Err(errno) {
            wrong.push(format!("{shown}: {said:?}, not {errno:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Counts without bounds get what there is a bound for.
    for request in [Request::GrantInodes { count: u64::MAX }, Request::GrantBlocks { count: u64::MAX }] {
        let (Reply::Granted(range) | Reply::Inodes { range, .. }) = session.get(request) else { panic!() };
        assert!(range.count <= 100_000, "{range:?}");
    }
    session.get(Request::Close { node: file, count: u32::MAX });
    let huge = Request::ReadDir { node: session.root(), cookie: u64::MAX, bytes_max: u32::MAX, plus: true };
    assert!(matches!(session.get(huge), Reply::Entries { entries, eof: true } if entries.is_empty()));
    assert_eq!(session.read_inline(file), b"as it was");
    ends_well(&mut cluster, [session]);
}

/// A stream of numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % end as u64).unwrap()
    }
    fn end(&mut self) -> u64 {
        ENDS[self.below(ENDS.len())]
    }
    fn small(&mut self) -> u32 {
        u32::try_from(self.end() & u64::from(u32::MAX)).unwrap()
    }
    fn yes(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// A request with numbers from the ends of things, on nodes that are good.
fn wild(random: &mut Random, nodes: &[Node], own: u64) -> Request {
    let node = nodes[random.below(nodes.len())];
    let other = nodes[random.below(nodes.len())];
    let entry = name(["f", "d", "g", "h"][random.below(4)]);
    let (a, b) = (random.end(), random.end());
    match random.below(18) {
        0 => Request::ReadDir { node, cookie: a, bytes_max: random.small(), plus: random.yes() },
        1 => Request::ReadLayout { node, start: a, end: b },
        2 if random.yes() => {
            let [segment, first, count] = [(); 3].map(|()| random.small());
            Request::ReadPages { node, block: BlockId(a), segment, first, count }
        }
        2 => Request::ReadBlock { node, block: BlockId(a), first: random.small(), count: random.small() },
        3 => Request::Close { node, count: random.small() },
        4 => {
            let ino = if random.yes() { own } else { a };
            wild_make(random, node, entry, ino)
        }
        5 => Request::Rename {
            parent: node,
            name: entry,
            new_parent: other,
            new_name: name("h"),
            flags: random.small(),
        },
        6 => wild_change(random, node, a),
        7 | 8 => {
            let length = random.small();
            let extent =
                |offset, length| Extent { offset, length, block: BlockId(b & 1), block_offset: length };
            let extents = vec![extent(a, length), extent(b, 1)];
            let inline = random.yes().then(|| Inline { offset: length, bytes: vec![1; 100] });
            let new = NewBlock { block: BlockId(own), raw_bytes: length, stored_bytes: u32::MAX };
            let blocks = if random.yes() { vec![new] } else { Vec::new() };
            let time = Some(Time { secs: i64::MIN, nanos: u32::MAX });
            let (promised, awaited) = (random.yes(), random.yes());
            let carried = random.yes().then(|| Carried { block: BlockId(own), bytes: vec![2; 100] });
            let kill_privileges = true;
            Request::Write {
                node,
                write: Write { inline, extents, blocks, kill_privileges, time, promised, carried, awaited },
            }
        }
        9 => {
            Request::Fallocate { node, mode: u32::try_from(random.below(64)).unwrap(), offset: a, length: b }
        }
        10 => Request::CopyRange {
            source: node,
            source_offset: a,
            target: other,
            target_offset: b,
            length: random.end(),
        },
        11 => Request::Lock { node, lock: lock(a, b, LockKind::Write), wait: random.yes() },
        12 => Request::TestLock { node, lock: lock(a, b, LockKind::Read) },
        13 => Request::CancelWait { request: RequestId(a) },
        14 => Request::Sync { up_to: Commit(a) },
        15 => Request::SetXattr {
            node,
            name: if random.yes() { b"user.wild".to_vec() } else { vec![0xff; random.below(300)] },
            value: vec![7; random.below(2000)],
            mode: XattrMode::Any,
        },
        16 => Request::Remove { parent: node, name: entry, dir: random.yes() },
        _ => Request::Link { node, parent: other, name: entry },
    }
}

fn wild_make(random: &mut Random, parent: Node, entry: Name, ino: u64) -> Request {
    let mode = random.small();
    let make = Make {
        ino: Ino(ino),
        mode: if random.yes() { 0o100_000 | mode } else { mode },
        umask: random.small(),
        rdev: random.small(),
        target: vec![b'x'; random.below(5000)],
        open: random.yes(),
    };
    Request::Make { parent, name: random.yes().then_some(entry), make }
}

fn wild_change(random: &mut Random, node: Node, number: u64) -> Request {
    let secs = i64::from_le_bytes(number.to_le_bytes());
    let time = SetTime::At(Time { secs, nanos: random.small() });
    let change = SetAttr {
        mode: Some(random.small()),
        uid: Some(random.small()),
        size: random.yes().then_some(number),
        atime: Some(time),
        mtime: Some(time),
        ctime: random.yes().then_some(time),
        ..SetAttr::default()
    };
    Request::SetAttr { node, change }
}

#[test]
fn random_requests_break_nothing() {
    const BATCH: u64 = 200;
    let mut cluster = Cluster::start();
    let mut session = cluster.open();
    let witness = Witness::start(cluster.open());
    let root = session.root();
    let nodes = [
        root,
        session.make(root, "d", 0o040_700).node,
        session.make(root, "f", 0o100_600).node,
        session.make(root, "g", 0o100_600).node,
    ];
    let Reply::Inodes { range: inos, .. } = session.get(Request::GrantInodes { count: 60_000 }) else {
        panic!()
    };
    let mut random = Random(std::process::id().into());
    println!("seed {}", random.0);
    let (mut done, mut refused) = (0, 0);
    for round in 0..60 {
        let ids: Vec<u64> = (0..BATCH).map(|_| session.number()).collect();
        for (index, id) in (round * BATCH..).zip(&ids) {
            let request = wild(&mut random, &nodes, inos.start + index);
            session.link.request(*id, request, &[]);
        }
        session.get(Request::Heartbeat);
        // It reads no recall; others would wait for it.
        session.get(Request::GiveBack { inos: (1..4_000).map(Ino).collect() });
        for id in ids {
            // A wait for a lock ends when another wild request lets it go, or never.
            if let Some(answer) = session.link.answered(id) {
                if answer.result.is_ok() { done += 1 } else { refused += 1 }
            }
        }
    }
    println!("{done} done, {refused} refused");
    assert!(done > 100 && refused > 100);
    witness.end("wild requests");
    ends_well(&mut cluster, [session]);
}

/// A header with a kind there is none of, its check good.
fn odd_kind(kind: u8) -> [u8; HEADER_BYTES] {
    let mut bytes = Header::new(Kind::Request, RequestId(1)).encode();
    bytes[24] = kind;
    let mut check = u32::MAX;
    for byte in &bytes[..28] {
        check ^= u32::from(*byte);
        for _ in 0..8 {
            check = (check >> 1) ^ (0xedb8_8320 & (check & 1).wrapping_neg());
        }
    }
    bytes[28..].copy_from_slice(&(!check).to_le_bytes());
    bytes
}

fn encoded<T: serde::Serialize>(kind: Kind, body: &T) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(Header::new(kind, RequestId(77)), body, 0, &mut out).unwrap();
    out
}

/// Bytes that no client sends within a session: each ends the link they come on.
fn out_of_order(session: &Session, token: &str) -> Vec<(String, Vec<u8>)> {
    let answer = Answer { commit: Commit(1), at: Time::default(), result: Ok(Reply::Done) };
    let mut all = vec![
        ("hello twice".to_owned(), encoded(Kind::Hello, &open_hello(token, "main", Flags::default()))),
        ("claim twice".to_owned(), encoded(Kind::Hello, &session.claim(&session.link, false))),
        (
            "a welcome".to_owned(),
            encoded(Kind::Welcome, &Welcome::Granted(Box::new(session.granted.clone()))),
        ),
        ("a reply to nothing".to_owned(), encoded(Kind::Reply, &answer)),
        ("a notice".to_owned(), encoded(Kind::Notice, &Notice::Closing)),
        ("not a call".to_owned(), encoded(Kind::Request, &(1u8, "text"))),
        ("no body".to_owned(), Header::new(Kind::Request, RequestId(1)).encode().to_vec()),
    ];
    for kind in [0, 8, 255] {
        all.push((format!("kind {kind}"), odd_kind(kind).to_vec()));
    }
    for kind in
        [Kind::Hello, Kind::Welcome, Kind::Request, Kind::Reply, Kind::Notice, Kind::Replay, Kind::Recovery]
    {
        let mut header = Header::new(kind, RequestId(1));
        header.body_bytes = u32::try_from(BODY_BYTES_MAX).unwrap();
        let mut bytes = header.encode().to_vec();
        bytes.resize(HEADER_BYTES + BODY_BYTES_MAX, 0xee);
        all.push((format!("{kind:?} of garbage, as long as it can be"), bytes));
        header.body_bytes += 1;
        all.push((format!("{kind:?}, too long"), header.encode().to_vec()));
        if kind != Kind::Request {
            let mut header = Header::new(kind, RequestId(1));
            header.payload_bytes = 1;
            all.push((format!("{kind:?} with a payload"), header.encode().to_vec()));
        }
    }
    all
}

#[test]
fn frames_out_of_order_end_the_link_only() {
    let mut cluster = Cluster::start();
    let mut session = cluster.open();
    let witness = Witness::start(cluster.open());
    let before = cluster.rss_kib();
    for (what, bytes) in out_of_order(&session, &cluster.token) {
        let (mut link, welcome) = session.another(false);
        assert!(matches!(welcome, Welcome::Attached { .. }), "{what}: {welcome:?}");
        // The server may hang up in the middle.
        let _ = link.send_raw(&bytes);
        let start = std::time::Instant::now();
        link.wait_closed();
        assert!(start.elapsed().as_secs() < 10, "{what}: the link goes on");
        session.get(Request::Heartbeat);
    }
    // The end of a replay, where none was: it is over.
    let recovery =
        Recovery { opens: vec![(session.root(), u32::MAX); 1000], locks: Vec::new(), exclusive: Vec::new() };
    let id = session.number();
    session.link.send(Header::new(Kind::Recovery, RequestId(id)), &recovery, &[]);
    assert_eq!(session.link.answer(id).0.result, Ok(Reply::Done));
    println!("memory: {before} KiB before, {} KiB after", cluster.rss_kib());
    witness.end("frames out of order");
    ends_well(&mut cluster, [session]);
}

#[test]
fn nobody_cancels_for_others() {
    let mut cluster = Cluster::start();
    let (mut holder, mut waiter, mut stranger) = (cluster.open(), cluster.open(), cluster.open());
    let file = holder.make(holder.root(), "f", 0o100_600).node;
    let whole = |kind| lock(0, u64::MAX, kind);
    holder.get(Request::Lock { node: file, lock: whole(LockKind::Write), wait: false });
    let id = waiter.number();
    waiter.link.request(id, Request::Lock { node: file, lock: whole(LockKind::Write), wait: true }, &[]);
    assert!(waiter.link.is_silent(std::time::Duration::from_millis(200)));
    for request in [0, id, u64::MAX] {
        stranger.get(Request::CancelWait { request: RequestId(request) });
    }
    // Nor let go: owner numbers are each session's own.
    stranger.get(Request::Lock { node: file, lock: whole(LockKind::Unlock), wait: false });
    stranger.get(Request::Unlock { node: file, family: LockFamily::Posix, owner: 1 });
    assert!(waiter.link.is_silent(std::time::Duration::from_millis(200)), "its wait was ended by a stranger");
    holder.get(Request::Lock { node: file, lock: whole(LockKind::Unlock), wait: false });
    assert_eq!(waiter.link.answer(id).0.result, Ok(Reply::Done));
    // A request number used again is answered as the first time, and done once.
    let request = holder.make_request(holder.root(), "once", 0o100_600);
    let call = Call::new(Caller { uid: 0, gid: 0 }, request);
    let id = holder.number();
    holder.link.request_call(id, &call, &[]);
    let first = holder.link.answer(id).0;
    let remove = Request::Remove { parent: holder.root(), name: name("once"), dir: false };
    holder.link.request(id, remove, &[]);
    assert_eq!(holder.link.answer(id).0, first);
    assert!(holder.lookup("once").is_ok());
    ends_well(&mut cluster, [holder, waiter, stranger]);
}
