//! Requests of the namespace over one link and over two.

use std::time::Duration;

use flexfs_wire::block;
use flexfs_wire::errno::Errno;
use flexfs_wire::frame::{self, Header, Kind};
use flexfs_wire::hello::{Reason, Welcome};
use flexfs_wire::id::{BlockId, Ino, RequestId};
use flexfs_wire::limits::LINKS_PER_SESSION_MAX;
use flexfs_wire::message::{Call, Caller, Notice, Reply, Request};
use flexfs_wire::seal::Node;
use flexfs_wire::settings::Compression;

use crate::client::Link;
use crate::client::cluster::Cluster;

#[test]
fn files_are_made_written_and_read() {
    let cluster = Cluster::start();
    let mut session = cluster.open();
    assert_eq!(session.granted.attr.ino, Ino::ROOT);
    let root = session.root();
    let dir = session.make(root, "dir", 0o040_755);
    let file = session.make(root, "file", 0o100_644);
    let written = session.write_inline(file.node, b"hello flexfs");
    assert!(matches!(written.result, Ok(Reply::Attr(attr)) if attr.size == 12));
    assert_eq!(session.read_inline(file.node), b"hello flexfs");
    assert_eq!(session.lookup("file").unwrap().attr.size, 12);
    assert_eq!(session.lookup("none").unwrap_err(), Errno::ENOENT);
    let list = Request::ReadDir { node: root, cookie: 0, bytes_max: 65_536, plus: true };
    let Reply::Entries { entries, eof: true } = session.get(list) else { panic!() };
    assert_eq!(entries.len(), 2);
    let found = entries.iter().find(|entry| entry.name.as_bytes() == b"dir").unwrap();
    assert_eq!(found.entry.unwrap().node, dir.node, "sealed alike");
    let Reply::StatFs(space) = session.get(Request::StatFs) else { panic!() };
    assert!(space.bytes_free > 0 && space.bytes_free <= space.bytes_total);

    // Sync waits for the disk; a mark says so without being asked.
    assert_eq!(session.get(Request::Sync { up_to: written.commit }), Reply::Done);
    assert!(session.link.durable >= written.commit);
    let removed = session.call(Request::Remove {
        parent: root,
        name: flexfs_wire::name::Name::new(b"file").unwrap(),
        dir: false,
    });
    // A disk that is quicker than the answer needs no notice: the answer's own mark says it.
    let was_told = session.link.durable >= removed.commit;
    session.link.wait_durable(removed.commit);
    assert!(was_told || session.link.notices.contains(&Notice::Durable));
    assert_eq!(session.get(Request::Leave), Reply::Done);
    session.link.wait_closed();
}

#[test]
fn resends_are_answered_from_memory() {
    let cluster = Cluster::start();
    let mut session = cluster.open();
    let request = session.make_request(session.root(), "once", 0o100_600);
    let id = session.number();
    session.link.request(id, request.clone(), &[]);
    let (first, _) = session.link.answer(id);
    session.link.request(id, request.clone(), &[]);
    let (again, _) = session.link.answer(id);
    assert_eq!(first, again);
    // The same on another link of the session; as a new request it is refused.
    let (mut second, welcome) = session.another(false);
    assert!(matches!(welcome, Welcome::Attached { .. }));
    second.request(id, request.clone(), &[]);
    assert_eq!(second.answer(id).0, first);
    assert_eq!(session.fail(request), Errno::EEXIST);
}

#[test]
fn links_need_a_proof_of_their_own() {
    let cluster = Cluster::start();
    let mut session = cluster.open();
    let (mut second, welcome) = session.another(false);
    let Welcome::Attached { epoch, .. } = welcome else { panic!("{welcome:?}") };
    assert_eq!(epoch, session.granted.epoch);
    let made = session.make(session.root(), "seen", 0o100_600);
    second.request(900, Request::GetAttr { node: made.node }, &[]);
    assert!(matches!(second.answer(900).0.result, Ok(Reply::Attr(attr)) if attr.ino == made.attr.ino));

    let refused = |mut link: Link, hello| match link.hello(&hello) {
        Welcome::Refused(refused) => refused.reason,
        other => panic!("{other:?}"),
    };
    // A proof made for another link, a wrong key, another session's number.
    let link = Link::connect(cluster.addr, cluster.pin).unwrap();
    assert_eq!(refused(link, session.claim(&second, false)), Reason::SessionUnknown);
    let other = cluster.open();
    for (key, resume) in [(other.granted.resume_key, true), ([0; 32], false)] {
        session.granted.resume_key = key;
        let link = Link::connect(cluster.addr, cluster.pin).unwrap();
        let hello = session.claim(&link, resume);
        assert_eq!(refused(link, hello), Reason::SessionUnknown);
    }
}

#[test]
fn handles_cannot_be_made_up() {
    let cluster = Cluster::start();
    let mut session = cluster.open();
    let file = session.make(session.root(), "f", 0o100_600);
    let forged = Node { ino: file.attr.ino, seal: file.node.seal ^ 1 };
    assert_eq!(session.fail(Request::GetAttr { node: forged }), Errno::ESTALE);
    let guessed = Node { ino: Ino(file.attr.ino.0 + 1), seal: file.node.seal };
    assert_eq!(
        session.fail(Request::Open { node: guessed, write: false, truncate: false, kill_privileges: false }),
        Errno::ESTALE
    );
}

#[test]
fn thousands_of_requests_at_once() {
    const COUNT: u64 = 20_000;
    let cluster = Cluster::start();
    let mut session = cluster.open();
    let file = session.make(session.root(), "f", 0o100_600);
    // Far more than a link may have in flight: the server stops reading, nothing is lost, replies are batched.
    let mut bytes = Vec::new();
    for id in 1000..1000 + COUNT {
        let call = Call::new(Caller { uid: 1, gid: 1 }, Request::GetAttr { node: file.node });
        frame::encode(Header::new(Kind::Request, RequestId(id)), &call, 0, &mut bytes).unwrap();
    }
    for piece in bytes.chunks(64 * 1024) {
        session.link.send_raw(piece).unwrap();
    }
    for id in 1000..1000 + COUNT {
        assert!(session.link.answer(id).0.result.is_ok());
    }
    assert!(session.link.is_silent(Duration::from_millis(50)));
}

#[test]
fn links_of_a_session_are_bounded() {
    let cluster = Cluster::start();
    let mut session = cluster.open();
    let mut links: Vec<Link> = Vec::new();
    while links.len() < LINKS_PER_SESSION_MAX - 1 {
        let (link, welcome) = session.another(false);
        assert!(matches!(welcome, Welcome::Attached { .. }), "{}: {welcome:?}", links.len());
        links.push(link);
    }
    let (_, welcome) = session.another(false);
    assert!(matches!(welcome, Welcome::Refused(refused) if refused.reason == Reason::Busy));
    let root = session.root();
    for (number, link) in (0..).zip(&mut links) {
        link.request(5000 + number, Request::GetAttr { node: root }, &[]);
    }
    for (number, link) in (0..).zip(&mut links) {
        assert!(link.answer(5000 + number).0.result.is_ok());
    }
    // A place that is given back can be taken again.
    links.truncate(100);
    std::thread::sleep(Duration::from_millis(300));
    assert!(matches!(session.another(false).1, Welcome::Attached { .. }));
    assert_eq!(session.get(Request::Leave), Reply::Done);
    for link in &mut links {
        link.wait_closed();
    }
}

#[test]
fn sessions_work_side_by_side() {
    let cluster = Cluster::start();
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let cluster = &cluster;
            scope.spawn(move || {
                let mut session = cluster.open();
                let root = session.root();
                let dir = session.make(root, &format!("d{worker}"), 0o040_755).node;
                let Reply::Granted(range) = session.get(Request::GrantBlocks { count: 10 }) else { panic!() };
                for number in 0..40 {
                    let file = session.make(dir, &format!("f{number}"), 0o100_600);
                    session.write_inline(file.node, &[worker; 500]);
                    assert_eq!(session.read_inline(file.node), [worker; 500]);
                }
                for block in range.start..range.start + range.count {
                    let block = BlockId(block);
                    let raw = vec![worker; 300_000];
                    let mut stored = Vec::new();
                    block::seal(&raw, Compression::None, &mut stored).unwrap();
                    assert_eq!(
                        session.call_with(Request::PutBlock { block }, &stored).0.result,
                        Ok(Reply::Done)
                    );
                    let read = Request::ReadBlock { node: dir, block, first: 0, count: 5 };
                    let (answer, payload) = session.call_with(read, &[]);
                    assert!(answer.result.is_ok() && payload == raw, "{block} {:?}", answer.result);
                }
                session.get(Request::Leave);
            });
        }
    });
}
