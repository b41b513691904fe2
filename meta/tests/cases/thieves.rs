//! What belongs to other sessions, and to no one: numbers, leases, resume keys, bytes of blocks.

use std::time::Duration;

use flexfs_wire::block;
use flexfs_wire::errno::Errno;
use flexfs_wire::extent::{Extent, NewBlock};
use flexfs_wire::hello::{self, Hello, Reason, Welcome};
use flexfs_wire::id::{BlockId, Ino, SessionId};
use flexfs_wire::lease::LEASE_BATCH_MAX;
use flexfs_wire::limits::{LINKS_PER_SESSION_MAX, PROTOCOL_VERSIONS};
use flexfs_wire::message::{Make, Reply, Request, Write};
use flexfs_wire::name::Name;
use flexfs_wire::settings::Compression;

use crate::client::Link;
use crate::client::cluster::Cluster;

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

#[test]
fn a_proof_is_good_for_one_link_of_one_session() {
    let cluster = Cluster::start();
    let (mut session, mut thief) = (cluster.open(), cluster.open());
    let prove = |key: &[u8; 32], session: SessionId, link: &Link| hello::prove(key, session, &link.exporter);
    let (key, id, own) = (session.granted.resume_key, session.id(), thief.granted.resume_key);
    let heard = prove(&key, id, &session.link);
    let claim = |resume: bool, session: SessionId, proof| match resume {
        true => Hello::Resume { versions: PROTOCOL_VERSIONS, session, proof },
        false => Hello::Attach { versions: PROTOCOL_VERSIONS, session, proof },
    };
    for resume in [false, true] {
        for attempt in 0..5 {
            let mut link = Link::connect(cluster.addr, cluster.pin).unwrap();
            let (claimed, proof) = match attempt {
                // Guessed; overheard on another connection; of another session's key; of a key that fits, for another
                // session; for a session that there is not.
                0 => (id, [0; 32]),
                1 => (id, heard),
                2 => (id, prove(&own, id, &link)),
                3 => (id, prove(&key, thief.id(), &link)),
                _ => (SessionId(u64::MAX), prove(&key, SessionId(u64::MAX), &link)),
            };
            let Welcome::Refused(refused) = link.hello(&claim(resume, claimed, proof)) else {
                panic!("attempt {attempt} got in")
            };
            assert_eq!(refused.reason, Reason::SessionUnknown, "attempt {attempt}");
        }
    }
    let (_, welcome) = session.another(false);
    assert!(matches!(welcome, Welcome::Attached { .. }));
    session.get(Request::Leave);
    for resume in [false, true] {
        let Welcome::Refused(refused) = session.another(resume).1 else { panic!("it has ended") };
        assert_eq!(refused.reason, Reason::SessionUnknown);
    }
    thief.get(Request::Heartbeat);
}

#[test]
fn numbers_are_for_whom_they_were_granted_to() {
    let cluster = Cluster::start();
    let (mut session, mut thief) = (cluster.open(), cluster.open());
    let ino = session.ino();
    let make = |ino| Make { ino, mode: 0o100_600, umask: 0, rdev: 0, target: Vec::new(), open: false };
    let taken = Request::Make { parent: thief.root(), name: Some(name("taken")), make: make(ino) };
    assert_eq!(thief.fail(taken), Errno::EINVAL);
    // Nor may the thief write what it sees next.
    let Reply::Granted(range) = session.get(Request::GrantBlocks { count: 16 }) else { panic!() };
    let mut stored = Vec::new();
    block::seal(b"mine", Compression::None, &mut stored).unwrap();
    let block = BlockId(range.start);
    assert_eq!(thief.call_with(Request::PutBlock { block }, &stored).0.result, Err(Errno::EACCES));
    let file = thief.make(thief.root(), "f", 0o100_600).node;
    let new = NewBlock { block, raw_bytes: 4, stored_bytes: 4 };
    let extents = vec![Extent { offset: 0, length: 4, block, block_offset: 0 }];
    let write = Write { extents, blocks: vec![new], ..Write::default() };
    assert_eq!(thief.fail(Request::Write { node: file, write }), Errno::EINVAL);
    let named = session.make(session.root(), "g", 0o100_600);
    assert_ne!(named.attr.ino, ino);
}

/// Numbers are durable when they are granted, and kept: who asks for more and more of them and uses none gets no more, and others do.
#[test]
fn numbers_are_not_hoarded() {
    // As many times as four for each link that a session may have.
    const GRANTS: usize = 4 * LINKS_PER_SESSION_MAX;
    let mut cluster = Cluster::start();
    let (mut hoarder, mut honest) = (cluster.open(), cluster.open());
    let root = honest.root();
    let inos = || Request::GrantInodes { count: 1 };
    let blocks = || Request::GrantBlocks { count: 1 };
    let mut first = None;
    for round in 0..GRANTS {
        let Reply::Inodes { range, .. } = hoarder.get(inos()) else { panic!() };
        first.get_or_insert(range.start);
        hoarder.get(blocks());
        // In between others are granted numbers, and use them.
        let Reply::Inodes { range, .. } = honest.get(inos()) else { panic!() };
        let make = Make {
            ino: Ino(range.start),
            mode: 0o100_600,
            umask: 0,
            rdev: 0,
            target: Vec::new(),
            open: false,
        };
        honest.get(Request::Make { parent: root, name: Some(name(&format!("{round}"))), make });
    }
    // An answer that is lost costs nothing: who asks again with the same request gets the same numbers.
    let id = honest.number();
    let answers: Vec<_> = (0..3)
        .map(|_| {
            honest.link.request(id, blocks(), &[]);
            honest.link.answer(id).0.result.unwrap()
        })
        .collect();
    assert!(answers.iter().all(|reply| *reply == answers[0]), "{answers:?}");
    for _ in 0..3 {
        assert_eq!(hoarder.fail(inos()), Errno::EPROTO);
        assert_eq!(hoarder.fail(blocks()), Errno::EPROTO);
        honest.get(inos());
        honest.get(blocks());
    }
    cluster.kill_meta();
    cluster.start_meta();
    std::thread::scope(|scope| {
        for session in [&mut hoarder, &mut honest] {
            scope.spawn(|| session.recover(Vec::new()));
        }
    });
    assert_eq!(hoarder.fail(inos()), Errno::EPROTO);
    // One that is used makes room for another.
    let make = Make {
        ino: Ino(first.unwrap()),
        mode: 0o100_600,
        umask: 0,
        rdev: 0,
        target: Vec::new(),
        open: false,
    };
    hoarder.get(Request::Make { parent: root, name: Some(name("used")), make });
    hoarder.get(inos());
    assert_eq!(hoarder.fail(inos()), Errno::EPROTO);
    hoarder.get(Request::Leave);
    honest.get(Request::Leave);
    assert!(cluster.stop_meta() && cluster.verify().status.success());
}

/// A block that says it holds more than it does: its file is broken, and nothing else.
#[test]
fn a_block_that_lies_about_its_length_gives_no_bytes_of_others() {
    let cluster = Cluster::start();
    let mut session = cluster.open();
    let file = session.make(session.root(), "f", 0o100_600).node;
    let Reply::Granted(range) = session.get(Request::GrantBlocks { count: 2 }) else { panic!() };
    let (short, absent) = (BlockId(range.start), BlockId(range.start + 1));
    let mut stored = Vec::new();
    block::seal(b"short", Compression::None, &mut stored).unwrap();
    assert_eq!(session.call_with(Request::PutBlock { block: short }, &stored).0.result, Ok(Reply::Done));
    let raw_bytes = 4 << 20;
    let extent = |block, offset| Extent { offset, length: raw_bytes, block, block_offset: 0 };
    let new = |block| NewBlock { block, raw_bytes, stored_bytes: u32::MAX };
    let write = Write {
        extents: vec![extent(short, 0), extent(absent, u64::from(raw_bytes))],
        blocks: vec![new(short), new(absent)],
        ..Write::default()
    };
    session.get(Request::Write { node: file, write });
    let read = |block, first, count| Request::ReadBlock { node: file, block, first, count };
    assert_eq!(session.call_with(read(short, 0, 1), &[]).1, b"short");
    for (first, count) in [(0, 2), (1, 1), (63, 1), (0, u32::MAX), (u32::MAX, u32::MAX)] {
        assert_eq!(session.fail(read(short, first, count)), Errno::EINVAL, "{first} {count}");
    }
    assert_eq!(session.fail(read(absent, 0, 1)), Errno::ENOENT);
    let beyond = Write { extents: vec![Extent { block_offset: 1, ..extent(short, 0) }], ..Write::default() };
    assert_eq!(session.fail(Request::Write { node: file, write: beyond }), Errno::EINVAL);
    session.get(Request::Leave);
}

/// To answer recalls of others, or to give back what is theirs, changes nothing for them.
#[test]
fn leases_are_given_back_by_their_holders_only() {
    let cluster = Cluster::start();
    let (mut holder, mut thief, mut reader) = (cluster.open(), cluster.open(), cluster.open());
    let request = holder.make_request(holder.root(), "f", 0o100_600);
    let made = holder.begin(request);
    let Ok(Reply::Entry(file)) = holder.link.answer(made).0.result else { panic!() };
    thief.get(Request::GiveBack { inos: vec![file.attr.ino, Ino::ROOT, Ino(0), Ino(u64::MAX)] });
    let lookup = Request::Lookup { parent: reader.root(), name: name("f") };
    let looked = reader.begin(lookup);
    // Ids count from the start of the server on.
    let first = thief.granted.epoch.0 << 40;
    thief.get(Request::Recalled { ids: (first..).take(LEASE_BATCH_MAX).collect() });
    thief.get(Request::DropLeases { epoch: thief.granted.epoch });
    assert!(reader.link.is_silent(Duration::from_millis(300)) && reader.link.answered(looked).is_none());
    let recalls = holder.obey();
    assert!(recalls.iter().any(|recall| recall.ino == file.attr.ino && recall.id > first), "{recalls:?}");
    assert!(reader.link.answer(looked).0.result.is_ok());
    let too_many = Request::Recalled { ids: vec![0; LEASE_BATCH_MAX + 1] };
    assert_eq!(thief.fail(too_many), Errno::EINVAL);
}
