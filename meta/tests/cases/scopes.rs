//! Sessions whose token opens a directory: ways out of it that a hostile client tries, and what becomes of it when others move
//! things out of the directory, or the directory itself.

use std::time::Duration;

use flexfs_wire::errno::Errno;
use flexfs_wire::frame::{self, Header, Kind};
use flexfs_wire::hello::{Reason, Welcome};
use flexfs_wire::id::{BlockId, Commit, Ino, RequestId};
use flexfs_wire::lease::Keep;
use flexfs_wire::message::{
    Call, Caller, Lock, LockFamily, LockKind, Make, Recovery, Replay, Reply, Request,
};
use flexfs_wire::name::Name;
use flexfs_wire::seal::Node;
use flexfs_wire::settings::Flags;
use flexfs_wire::time::Time;

use super::hostile::with_node;
use crate::client::Session;
use crate::client::cluster::Cluster;

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

/// A cluster with `/team` in it: a session of all of the volume, one of `/team`, the handle of `/team` for the first.
fn cluster() -> (Cluster, Session, Session, Node) {
    let cluster = Cluster::start();
    let mut all = cluster.open();
    let team = all.make(all.root(), "team", 0o040_755).node;
    let token = cluster.another_token(&["--mountPath", "/team"]);
    let session = cluster.try_open(&token, Flags::default()).unwrap();
    (cluster, all, session, team)
}

fn rename(session: &mut Session, (parent, old): (Node, &str), (new_parent, new): (Node, &str)) {
    session.get(Request::Rename { parent, name: name(old), new_parent, new_name: name(new), flags: 0 });
}

fn lock(kind: LockKind) -> Lock {
    Lock { family: LockFamily::Posix, kind, owner: 1, pid: 1, start: 0, end: u64::MAX }
}

fn call(request: Request) -> Call {
    Call::new(Caller { uid: 0, gid: 0 }, request)
}

fn make(ino: Ino) -> Make {
    Make { ino, mode: 0o100_600, umask: 0, rdev: 0, target: Vec::new(), open: false }
}

/// Names that no `Name` can hold are put into the bytes of a request.
#[test]
fn no_name_leads_upwards() {
    let (cluster, mut all, mut session, _) = cluster();
    all.make(all.root(), "secret", 0o100_600);
    let root = session.root();
    let file = session.make(root, "f", 0o100_600).node;
    let ino = session.ino();
    let requests = [
        Request::Lookup { parent: root, name: name("zq") },
        Request::Make { parent: root, name: Some(name("zq")), make: make(ino) },
        Request::Link { node: file, parent: root, name: name("zq") },
        Request::Remove { parent: root, name: name("zq"), dir: false },
        Request::Rename { parent: root, name: name("zq"), new_parent: root, new_name: name("g"), flags: 0 },
        Request::Rename { parent: root, name: name("f"), new_parent: root, new_name: name("zq"), flags: 0 },
    ];
    for request in requests {
        for evil in [b"..", b"/x", b"x/", b"\0x", b"x\0"] {
            let mut bytes = Vec::new();
            frame::encode(
                Header::new(Kind::Request, RequestId(9_000)),
                &call(request.clone()),
                0,
                &mut bytes,
            )
            .unwrap();
            let at = bytes.windows(2).position(|pair| pair == b"zq").unwrap();
            bytes[at..at + 2].copy_from_slice(evil);
            let (mut link, welcome) = session.another(false);
            assert!(matches!(welcome, Welcome::Attached { .. }));
            link.send_raw(&bytes).unwrap();
            assert!(link.try_answer(9_000).is_err(), "{request:?} with {evil:?} was answered");
        }
    }
    // A symlink is a text to the server: nothing is looked up below it.
    let target = Make { mode: 0o120_777, target: b"/secret".to_vec(), ..make(session.ino()) };
    let symlink = Request::Make { parent: root, name: Some(name("s")), make: target };
    let Reply::Entry(symlink) = session.get(symlink) else { panic!() };
    assert_eq!(session.get(Request::ReadLink { node: symlink.node }), Reply::Bytes(b"/secret".to_vec()));
    assert_eq!(session.fail(Request::Lookup { parent: symlink.node, name: name("secret") }), Errno::ENOTDIR);
    // No cookie leads out of a directory.
    for cookie in [0, 1, 2, 3, 1 << 32, u64::MAX - 1, u64::MAX] {
        let list = Request::ReadDir { node: root, cookie, bytes_max: 1 << 20, plus: true };
        let Reply::Entries { entries, .. } = session.get(list) else { panic!() };
        assert!(
            entries.iter().all(|entry| entry.name == name("f") || entry.name == name("s")),
            "{entries:?}"
        );
    }
    drop(cluster);
}

#[test]
fn what_is_moved_out_cannot_be_named_any_more() {
    let (_cluster, mut all, mut session, team) = cluster();
    let root = session.root();
    let dir = session.make(root, "dir", 0o040_700).node;
    let sub = session.make(dir, "sub", 0o040_700).node;
    let deep = session.make(sub, "deep", 0o100_600).node;
    let file = session.make(root, "file", 0o100_600).node;
    let stays = session.make(root, "stays", 0o100_600).node;
    for node in [deep, file] {
        session.write_inline(node, b"as it was");
        session.get(Request::Open { node, write: true, truncate: false, kill_privileges: false });
    }
    let volume = all.root();
    rename(&mut all, (team, "dir"), (volume, "dir"));
    rename(&mut all, (team, "file"), (volume, "file"));
    for node in [dir, sub, deep, file] {
        for request in with_node(node, stays).into_iter().chain([Request::Acquire { node }]) {
            let shown = format!("{request:?}");
            let gives_back = matches!(request, Request::Close { .. } | Request::Unlock { .. });
            let expected = if gives_back { Ok(Reply::Done) } else { Err(Errno::ESTALE) };
            assert_eq!(session.call(request).result, expected, "{shown}");
        }
        let request = Request::Make { parent: node, name: Some(name("m")), make: make(session.ino()) };
        assert_eq!(session.fail(request), Errno::ESTALE);
    }
    assert_eq!(session.get(Request::GetAttr { node: stays }), session.get(Request::GetAttr { node: stays }));
    // Put back, it is in the scope again.
    rename(&mut all, (volume, "dir"), (team, "back"));
    assert_eq!(session.read_inline(deep), b"as it was");
    assert!(session.lookup("back").is_ok());
}

#[test]
fn a_file_with_a_name_in_the_scope_is_in_it() {
    let (_cluster, mut all, mut session, team) = cluster();
    let volume = all.root();
    let file = all.make(volume, "outside", 0o100_600).node;
    all.write_inline(file, b"shared on purpose");
    all.get(Request::Link { node: file, parent: team, name: name("inside") });
    let node = session.lookup("inside").unwrap().node;
    assert_eq!(session.read_inline(node), b"shared on purpose");
    // The other name may go where it likes.
    rename(&mut all, (volume, "outside"), (volume, "elsewhere"));
    assert_eq!(session.read_inline(node), b"shared on purpose");
    all.get(Request::Remove { parent: team, name: name("inside"), dir: false });
    all.write_inline(file, b"not for the team any more");
    for request in with_node(node, session.root()) {
        if !matches!(request, Request::Close { .. } | Request::Unlock { .. }) {
            assert_eq!(session.fail(request), Errno::ESTALE);
        }
    }
    assert_eq!(all.read_inline(file), b"not for the team any more");
}

/// A directory that was listed is not told of after it was moved out, though its names are still leased.
#[test]
fn recalls_tell_nothing_of_what_was_moved_out() {
    let (_cluster, mut all, mut session, team) = cluster();
    let root = session.root();
    let dir = session.make(root, "dir", 0o040_700).node;
    let sub = session.make(dir, "sub", 0o040_700).node;
    let list = session.begin(Request::ReadDir { node: sub, cookie: 0, bytes_max: 1000, plus: true });
    assert!(session.link.answer(list).0.result.is_ok());
    let volume = all.root();
    rename(&mut all, (team, "dir"), (volume, "dir"));
    let lookup = |all: &mut Session, parent, text| {
        let Reply::Entry(entry) = all.get(Request::Lookup { parent, name: name(text) }) else { panic!() };
        entry.node
    };
    let moved = lookup(&mut all, volume, "dir");
    let moved_sub = lookup(&mut all, moved, "sub");
    let ino = all.ino();
    let made = all.begin(Request::Make { parent: moved_sub, name: Some(name("news")), make: make(ino) });
    let recalls = session.obey();
    assert!(
        recalls.iter().all(|recall| recall.name.is_none() && recall.keep == Keep::Nothing),
        "{recalls:?}"
    );
    assert!(all.link.answer(made).0.result.is_ok());
}

/// After a restart a session is asked for anything that it may still cache. That would tell one with a scope of every name.
#[test]
fn a_restart_tells_a_scope_nothing_of_elsewhere() {
    let (mut cluster, mut all, mut session, _) = cluster();
    session.make(session.root(), "f", 0o100_600);
    cluster.kill_meta();
    cluster.start_meta();
    let other = std::thread::spawn(move || {
        all.recover(Vec::new());
        all
    });
    let (_, epoch) = session.come_back(Vec::new());
    let mut all = other.join().unwrap();
    let request = all.make_request(all.root(), "secret-name", 0o100_600);
    let made = all.begin(request);
    assert!(session.link.is_silent(Duration::from_millis(1500)), "{:?}", session.link.notices);
    assert!(all.link.is_silent(Duration::from_millis(100)) && all.link.answered(made).is_none());
    session.get(Request::DropLeases { epoch });
    assert!(all.link.answer(made).0.result.is_ok());
    assert_eq!(session.recalls(), []);
}

/// Replays and the end of one are as much the client's word as any request.
#[test]
fn a_recovery_takes_nothing_from_outside() {
    let (mut cluster, mut all, mut session, team) = cluster();
    let ro = cluster.another_token(&["--flags", "ro"]);
    let mut reader = cluster.try_open(&ro, Flags::default()).unwrap();
    let secret = all.make(all.root(), "secret", 0o100_600).node;
    let moved = session.make(session.root(), "moved", 0o100_600).node;
    let volume = all.root();
    rename(&mut all, (team, "moved"), (volume, "moved"));
    let seen = reader.lookup("secret").unwrap().node;
    let last = all.write_inline(secret, b"as it was").commit;
    all.get(Request::Sync { up_to: last });
    cluster.kill_meta();
    cluster.start_meta();
    let remove = |parent, text| Request::Remove { parent, name: name(text), dir: false };
    let replay = |request| Replay { commit: Commit(u64::MAX), at: Time::default(), call: call(request) };
    // Handles of another scope: the link ends.
    for round in 0..2 {
        let (mut link, _) = session.another(true);
        let id = RequestId(7_000 + round);
        if round == 0 {
            link.send(Header::new(Kind::Replay, id), &replay(remove(volume, "secret")), &[]);
        } else {
            let recovery = Recovery {
                opens: vec![(secret, 1)],
                locks: vec![(secret, lock(LockKind::Write))],
                exclusive: vec![secret],
            };
            link.send(Header::new(Kind::Recovery, id), &recovery, &[]);
        }
        link.wait_closed();
    }
    // What was moved out, and what a read-only session may not do, is left out; the rest of the recovery counts.
    let write = |node, at| replay(Request::Fallocate { node, mode: 0, offset: at, length: 10 });
    let comes_back = |hostile: &mut Session, node: Node, foul: Replay| {
        let (link, _) = hostile.another(true);
        hostile.link = link;
        hostile.link.send(Header::new(Kind::Replay, RequestId(7_100)), &foul, &[]);
        let recovery = Recovery {
            opens: vec![(node, 1)],
            locks: vec![(node, lock(LockKind::Write))],
            exclusive: vec![node],
        };
        let id = hostile.number();
        hostile.link.send(Header::new(Kind::Recovery, RequestId(id)), &recovery, &[]);
        id
    };
    let foul = replay(remove(reader.root(), "secret"));
    let waits = [comes_back(&mut session, moved, write(moved, 5_000)), comes_back(&mut reader, seen, foul)];
    all.recover(Vec::new());
    for (hostile, id) in [&mut session, &mut reader].into_iter().zip(waits) {
        assert_eq!(hostile.link.answer(id).0.result, Ok(Reply::Done));
        hostile.get(Request::DropLeases { epoch: flexfs_wire::id::Epoch(u64::MAX) });
        hostile.get(Request::Leave);
    }
    assert_eq!(all.read_inline(secret), b"as it was");
    for text in ["secret", "moved"] {
        let node = all.lookup(text).unwrap().node;
        assert_eq!(all.get(Request::Lock { node, lock: lock(LockKind::Write), wait: false }), Reply::Done);
        let Reply::Attr(attr) = all.get(Request::GetAttr { node }) else { panic!() };
        assert!(attr.size < 5_000);
    }
    let log = cluster.log();
    assert!(
        log.contains("not in the session's scope") && log.contains("not permitted by the session's flags")
    );
    assert!(cluster.stop_meta() && cluster.verify().status.success());
}

/// Content is by block: its right goes by a file, and the file has to be in the scope.
#[test]
fn blocks_of_files_that_were_moved_out_are_not_read() {
    use flexfs_wire::block;
    use flexfs_wire::extent::{Extent, NewBlock};
    use flexfs_wire::message::Write;
    use flexfs_wire::settings::Compression;
    let (_cluster, mut all, mut session, team) = cluster();
    let volume = all.root();
    let file = all.make(team, "f", 0o100_600).node;
    let Reply::Granted(range) = all.get(Request::GrantBlocks { count: 2 }) else { panic!() };
    let id = BlockId(range.start);
    let mut stored = Vec::new();
    block::seal(b"secret", Compression::None, &mut stored).unwrap();
    assert_eq!(all.call_with(Request::PutBlock { block: id }, &stored).0.result, Ok(Reply::Done));
    let extent = Extent { offset: 0, length: 6, block: id, block_offset: 0 };
    let new = NewBlock { block: id, raw_bytes: 6, stored_bytes: u32::try_from(stored.len()).unwrap() };
    let write = Write { extents: vec![extent], blocks: vec![new], ..Write::default() };
    all.get(Request::Write { node: file, write });
    let node = session.lookup("f").unwrap().node;
    let read = Request::ReadBlock { node, block: id, first: 0, count: 1 };
    assert_eq!(session.call_with(read.clone(), &[]).1, b"secret");
    rename(&mut all, (team, "f"), (volume, "f"));
    assert_eq!(session.fail(read), Errno::ESTALE);
    // Nor through a file of its own, nor by making one refer to it.
    let own = session.make(session.root(), "own", 0o100_600).node;
    assert_eq!(session.fail(Request::ReadBlock { node: own, block: id, first: 0, count: 1 }), Errno::ENOENT);
    let write = Write { extents: vec![extent], ..Write::default() };
    assert_eq!(session.fail(Request::Write { node: own, write }), Errno::EINVAL);
    let write = Write { extents: vec![extent], blocks: vec![new], ..Write::default() };
    assert_eq!(session.fail(Request::Write { node: own, write }), Errno::EINVAL);
}

#[test]
fn a_scope_is_the_directory_that_was_found() {
    let cluster = Cluster::start();
    let mut all = cluster.open();
    let volume = all.root();
    let token = cluster.another_token(&["--mountPath", "/a/team"]);
    let refused = |why: &str| {
        let Err((reason, text)) = cluster.try_open(&token, Flags::default()) else { panic!("opened: {why}") };
        assert!(
            reason == Reason::Scope && text.contains("/a/team") && text.contains("make that directory"),
            "{text}"
        );
        text
    };
    refused("missing");
    let a = all.make(volume, "a", 0o040_755).node;
    all.make(a, "team", 0o100_600);
    assert!(refused("a file").to_lowercase().contains("not a directory"));
    all.get(Request::Remove { parent: a, name: name("team"), dir: false });
    all.make(volume, "real", 0o040_755);
    for (parent, text, target) in [(a, "team", &b"/real"[..]), (volume, "link", b"a")] {
        let make = Make { mode: 0o120_777, target: target.to_vec(), ..make(all.ino()) };
        all.get(Request::Make { parent, name: Some(name(text)), make });
    }
    refused("a symlink");
    let through = cluster.another_token(&["--mountPath", "/link/team"]);
    assert!(cluster.try_open(&through, Flags::default()).is_err(), "a symlink on the way");
    all.get(Request::Remove { parent: a, name: name("team"), dir: false });
    all.make(a, "team", 0o040_755);
    let mut session = cluster.try_open(&token, Flags::default()).unwrap();
    let file = session.make(session.root(), "f", 0o100_600).node;
    // Renamed, it goes on under its new name, as a mounted directory does; the token finds nothing.
    rename(&mut all, (a, "team"), (volume, "old-team"));
    session.get(Request::GetAttr { node: file });
    session.make(session.root(), "g", 0o100_600);
    refused("renamed");
    // Another one in its place is another scope.
    all.make(a, "team", 0o040_755);
    let mut second = cluster.try_open(&token, Flags::default()).unwrap();
    assert_eq!(second.lookup("f"), Err(Errno::ENOENT));
    assert_eq!(second.fail(Request::GetAttr { node: session.root() }), Errno::ESTALE);
    assert_eq!(second.fail(Request::GetAttr { node: file }), Errno::ESTALE);
    // Removed, there is nothing any more.
    for text in ["f", "g"] {
        session.get(Request::Remove { parent: session.root(), name: name(text), dir: false });
    }
    all.get(Request::Remove { parent: volume, name: name("old-team"), dir: true });
    assert_eq!(session.fail(Request::GetAttr { node: session.root() }), Errno::ESTALE);
    let request = session.make_request(session.root(), "h", 0o100_600);
    assert_eq!(session.fail(request), Errno::ESTALE);
}

/// What was written before the move arrives; but what only this session knows cannot be taken back into its scope.
#[test]
fn what_is_moved_out_is_not_brought_back_by_its_writer() {
    let (_cluster, mut all, mut session, team) = cluster();
    let root = session.root();
    let dir = session.make(root, "dir", 0o040_700).node;
    // Past `Session::call`, which gives back at once what it was granted.
    let request = session.make_request(dir, "f", 0o100_600);
    let made = session.begin(request);
    let Ok(Reply::Entry(file)) = session.link.answer(made).0.result else { panic!() };
    let file = file.node;
    let volume = all.root();
    rename(&mut all, (team, "dir"), (volume, "dir"));
    let ask = |session: &mut Session, request: Request| {
        let id = session.begin(request);
        session.link.answer(id).0.result
    };
    let write = |bytes: &[u8]| {
        let inline = Some(flexfs_wire::message::Inline { offset: 0, bytes: bytes.to_vec() });
        Request::Write { node: file, write: flexfs_wire::message::Write { inline, ..Default::default() } }
    };
    assert!(ask(&mut session, write(b"written before")).is_ok(), "it was his alone all the time");
    let link = Request::Link { node: file, parent: root, name: name("back") };
    assert_eq!(ask(&mut session, link.clone()), Err(Errno::ESTALE));
    let rename =
        Request::Rename { parent: dir, name: name("f"), new_parent: root, new_name: name("back"), flags: 0 };
    assert_eq!(ask(&mut session, rename), Err(Errno::ESTALE));
    // Somebody looks: it is his no more.
    let Reply::Entry(outside) = all.get(Request::Lookup { parent: volume, name: name("dir") }) else {
        panic!()
    };
    let looked = all.begin(Request::Lookup { parent: outside.node, name: name("f") });
    session.obey();
    let Ok(Reply::Entry(outside)) = all.link.answer(looked).0.result else { panic!() };
    assert_eq!(all.read_inline(outside.node), b"written before");
    for request in [write(b"later"), link, Request::GetAttr { node: file }] {
        assert_eq!(ask(&mut session, request), Err(Errno::ESTALE));
    }
}

/// An open file outlives its name in the scope, as everywhere; but its name elsewhere does not become one in the scope.
#[test]
fn an_open_file_without_a_name_in_the_scope_gets_none() {
    let (_cluster, mut all, mut session, team) = cluster();
    let root = session.root();
    let (file, volume) = (all.make(team, "inside", 0o100_600).node, all.root());
    all.get(Request::Link { node: file, parent: volume, name: name("outside") });
    let node = session.lookup("inside").unwrap().node;
    session.get(Request::Open { node, write: false, truncate: false, kill_privileges: false });
    all.get(Request::Remove { parent: team, name: name("inside"), dir: false });
    session.get(Request::GetAttr { node });
    let link = Request::Link { node, parent: root, name: name("back") };
    assert_eq!(session.fail(link), Errno::ESTALE);
    session.get(Request::Close { node, count: 1 });
    assert_eq!(session.fail(Request::GetAttr { node }), Errno::ESTALE);
    // `O_TMPFILE` has none yet, and gets one.
    let ino = session.ino();
    let request = Request::Make { parent: root, name: None, make: make(ino) };
    let Reply::Entry(fresh) = session.get(request) else { panic!() };
    session.get(Request::Link { node: fresh.node, parent: root, name: name("fresh") });
    assert!(session.lookup("fresh").is_ok());
}
