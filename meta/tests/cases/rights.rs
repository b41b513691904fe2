//! What a token and its flags permit, and what happens when it ends.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use flexfs_wire::attr::SetAttr;
use flexfs_wire::block;
use flexfs_wire::errno::Errno;
use flexfs_wire::hello::{Reason, Welcome};
use flexfs_wire::id::BlockId;
use flexfs_wire::message::{
    Call, Caller, Lock, LockFamily, LockKind, Notice, Reply, Request, Write, XattrMode,
};
use flexfs_wire::name::Name;
use flexfs_wire::settings::{Compression, Flags};
use flexfs_wire::token::{CaPin, Secret, Token};

use super::blocks::{grant, refer};
use crate::client::Session;
use crate::client::cluster::{Cluster, within};

#[test]
fn tokens_are_refused_by_their_cause() {
    let mut cluster = Cluster::start();
    let good = Token::parse(&cluster.token).unwrap();
    let foreign = Token { ca_pin: CaPin([7; 16]), ..good.clone() };
    let wrong = Token { secret: Secret::new([7; 32]), ..good.clone() };
    let refused = |token: &str| match cluster.try_open(token, Flags::default()) {
        Err(refusal) => refusal,
        Ok(_) => panic!("accepted"),
    };
    for (token, reason, text) in [
        (cluster.token[..60].to_owned(), Reason::TokenMalformed, "truncated"),
        ("hunter2".to_owned(), Reason::TokenMalformed, "not a flexfs token"),
        (cluster.meta_token.clone(), Reason::TokenKind, "volume token is needed"),
        (foreign.to_text().to_string(), Reason::TokenUnknown, "another cluster"),
        (wrong.to_text().to_string(), Reason::TokenUnknown, "unknown"),
    ] {
        let (found, said) = refused(&token);
        assert!(found == reason && said.contains(text), "{found:?} {said}");
    }
    // Admin away: sessions go on, new ones are told to wait.
    let mut session = cluster.open();
    cluster.kill_admin();
    std::thread::sleep(Duration::from_secs(6)); // The positive answer is forgotten after five.
    let Err((reason, said)) = cluster.try_open(&cluster.token, Flags::default()) else { panic!() };
    assert!(reason == Reason::AdminUnreachable && said.contains("running mounts go on"), "{said}");
    assert_eq!(session.get(Request::Heartbeat), Reply::Done);
    cluster.start_admin();
    cluster.open();
    session.make(session.root(), "f", 0o100_600);

    let log = cluster.log();
    assert!(log.contains(&good.id.to_string()));
    for token in [&cluster.token, &cluster.meta_token, &cluster.account] {
        assert!(!log.contains(&token[12..]));
    }
    assert!(log.contains("admin is back"));
}

#[test]
fn a_token_opens_and_attaches_from_its_networks_only() {
    let mut cluster = Cluster::start();
    let refused = |cluster: &Cluster, token: &str| match cluster.try_open(token, Flags::default()) {
        Err(refusal) => refusal,
        Ok(_) => panic!("accepted"),
    };
    let elsewhere = cluster.another_token(&["--networks", "10.1.0.0/16,2001:db8::/32"]);
    for _ in 0..2 {
        // The second time admin's answer is remembered.
        let (reason, text) = refused(&cluster, &elsewhere);
        assert!(reason == Reason::Network && text.contains("127.0.0.1"), "{reason:?} {text}");
    }
    let here = cluster.another_token(&["--networks", "127.0.0.1"]);
    let mut session = cluster.try_open(&here, Flags::default()).unwrap();
    session.make(session.root(), "f", 0o100_600);
    let attach = |session: &Session, last| session.attach_from(Ipv4Addr::new(127, 0, 0, last));
    assert!(matches!(attach(&session, 1), Welcome::Attached { .. }));
    let Welcome::Refused(refusal) = attach(&session, 2) else { panic!("attached from elsewhere") };
    assert_eq!(refusal.reason, Reason::Network);
    // As after a restart, too.
    cluster.kill_meta();
    cluster.start_meta();
    let Welcome::Refused(refusal) = attach(&session, 2) else { panic!("attached from elsewhere") };
    assert_eq!(refusal.reason, Reason::Network);
    // Taken away from under a session.
    let id = Token::parse(&here).unwrap().id.to_string();
    let mut session = cluster.try_open(&here, Flags::default()).unwrap();
    cluster.configure(&["update", "volume-token", &id, "--networks", "10.1.0.0/16"]);
    session.link.wait_closed();
    let told = session.link.notices.iter().any(|notice| matches!(notice, Notice::Revoked { .. }));
    assert!(told, "{:?}", session.link.notices);
    // For some seconds meta only knows that it was taken away.
    within(Duration::from_secs(10), || (refused(&cluster, &here).0 == Reason::Network).then_some(()));
}

#[test]
fn read_only_sessions_change_nothing() {
    let cluster = Cluster::start();
    let mut writer = cluster.open();
    let file = writer.make(writer.root(), "f", 0o100_644).node;
    let ro = Flags { ro: true, ..Flags::default() };
    let by_token = cluster.another_token(&["--flags", "ro"]);
    for mut session in [
        cluster.try_open(&cluster.token, ro).unwrap(),
        cluster.try_open(&by_token, Flags::default()).unwrap(),
    ] {
        assert!(session.granted.flags.ro);
        let node = session.lookup("f").unwrap().node;
        assert_eq!(node, file);
        let request = writer.make_request(session.root(), "g", 0o100_600);
        assert_eq!(session.fail(request), Errno::EROFS);
        for request in [
            Request::GrantInodes { count: 1 },
            Request::GrantBlocks { count: 1 },
            Request::Acquire { node },
            Request::Write { node, write: Write::default() },
        ] {
            assert_eq!(session.fail(request), Errno::EROFS);
        }
        let open = |write| Request::Open { node, write, truncate: false, kill_privileges: false };
        assert_eq!(session.fail(open(true)), Errno::EROFS);
        assert!(matches!(session.get(open(false)), Reply::Opened { .. }));
        let lock = |kind| Request::Lock {
            node,
            lock: Lock { family: LockFamily::Flock, kind, owner: 1, pid: 1, start: 0, end: u64::MAX },
            wait: false,
        };
        assert_eq!(session.fail(lock(LockKind::Write)), Errno::EROFS);
        assert_eq!(session.get(lock(LockKind::Read)), Reply::Done);
        let mut stored = Vec::new();
        block::seal(b"x", Compression::None, &mut stored).unwrap();
        let (answer, _) = session.call_with(Request::PutBlock { block: BlockId(1) }, &stored);
        assert_eq!(answer.result, Err(Errno::EROFS));
        session.get(Request::Leave);
    }
}

#[test]
fn root_is_nobody_where_the_flags_say_so() {
    let cluster = Cluster::start();
    let token = cluster.another_token(&["--flags", "rootSquash"]);
    let mut owner = cluster.open();
    let root = owner.root();
    let change = SetAttr { mode: Some(0o777), ..Default::default() };
    owner.get(Request::SetAttr { node: root, change });
    let mut session = cluster.try_open(&token, Flags::default()).unwrap();
    let made = session.make(session.root(), "f", 0o100_644);
    assert_eq!((made.attr.uid, made.attr.gid), (65_534, 65_534));
    let request = session.make_request(session.root(), "g", 0o100_644);
    let id = session.number();
    session.link.request_call(id, &Call::new(Caller { uid: 1000, gid: 1000 }, request), &[]);
    let Ok(Reply::Entry(entry)) = session.link.answer(id).0.result else { panic!() };
    assert_eq!((entry.attr.uid, entry.attr.gid), (1000, 1000));
}

/// A client that lies about who is calling: what is root's stays root's, on the way over blocks, too.
#[test]
fn a_liar_does_not_become_root() {
    let cluster = Cluster::start();
    let mut owner = cluster.open();
    let root = owner.root();
    let secret = owner.make(root, "secret", 0o100_600);
    let id = BlockId(grant(&mut owner).start);
    let mut stored = Vec::new();
    block::seal(b"secret", Compression::None, &mut stored).unwrap();
    assert_eq!(owner.call_with(Request::PutBlock { block: id }, &stored).0.result, Ok(Reply::Done));
    refer(&mut owner, secret.node, id, b"secret".len(), stored.len());
    let closed = owner.make(root, "closed", 0o040_700);
    owner.make(closed.node, "inner", 0o100_666);

    let token = cluster.another_token(&["--flags", "rootSquash"]);
    let mut liar = cluster.try_open(&token, Flags::default()).unwrap();
    // He knows the handles: somebody told him.
    let (node, dir) = (secret.node, closed.node);
    let inner = Name::new(b"inner").unwrap();
    let made = liar.make_request(root, "mine", 0o100_600);
    for caller in [Caller { uid: 0, gid: 0 }, Caller { uid: 1000, gid: 1000 }] {
        let mut refused = |request: Request| {
            let number = liar.number();
            liar.link.request_call(number, &Call::new(caller, request.clone()), &[]);
            let errno = liar.link.answer(number).0.result.err();
            assert!(matches!(errno, Some(Errno::EACCES | Errno::EPERM)), "{caller:?} {request:?}: {errno:?}");
        };
        refused(Request::Open { node, write: false, truncate: false, kill_privileges: false });
        refused(Request::ReadLayout { node, start: 0, end: 10 });
        refused(Request::ReadBlock { node, block: id, first: 0, count: 1 });
        refused(Request::Write { node, write: Write { inline: None, ..Write::default() } });
        refused(Request::SetAttr { node, change: SetAttr { mode: Some(0o666), ..SetAttr::default() } });
        refused(Request::Lookup { parent: dir, name: inner.clone() });
        refused(Request::ReadDir { node: dir, cookie: 0, bytes_max: 4096, plus: true });
        refused(Request::Acquire { node: dir });
        refused(made.clone());
    }
    let read = Request::ReadBlock { node, block: id, first: 0, count: 1 };
    assert_eq!(owner.call_with(read, &[]).1, b"secret");
}

/// What the token says holds, whatever the client says in its hello and keeps to itself.
#[test]
fn flags_of_the_token_hold_for_a_client_that_claims_none() {
    let cluster = Cluster::start();
    let mut owner = cluster.open();
    let change = SetAttr { mode: Some(0o777), ..Default::default() };
    owner.get(Request::SetAttr { node: owner.root(), change });
    let token = cluster.another_token(&["--flags", "noACL,umask=0077,rootSquash"]);
    let mut session = cluster.try_open(&token, Flags::default()).unwrap();
    let file = session.make(session.root(), "f", 0o100_666);
    assert_eq!((file.attr.mode & 0o777, file.attr.uid), (0o600, 65_534));
    let (node, name) = (file.node, b"system.posix_acl_access".to_vec());
    for request in [
        Request::SetXattr { node, name: name.clone(), value: vec![2, 0, 0, 0], mode: XattrMode::Any },
        Request::GetXattr { node, name: name.clone() },
        Request::RemoveXattr { node, name },
    ] {
        assert_eq!(session.fail(request), Errno::EOPNOTSUPP);
    }
    let name = b"user.x".to_vec();
    assert_eq!(
        session.get(Request::SetXattr { node, name, value: vec![1], mode: XattrMode::Any }),
        Reply::Done
    );
    // Of a volume that becomes stricter under it, too.
    cluster.configure(&["update", "volume", "main", "--flags", "ro"]);
    within(Duration::from_secs(10), || {
        session.call(Request::SetAttr { node, change: Default::default() }).result.err()
    });
    assert_eq!(session.fail(Request::Write { node, write: Write::default() }), Errno::EROFS);
}

/// Who was told that nothing changes may read past the server: nothing does until he has left.
#[test]
fn a_read_only_volume_stays_so_for_those_who_were_told() {
    let mut cluster = Cluster::start();
    let set_flags = |cluster: &Cluster, flags: &str| {
        cluster.configure(&["update", "volume", "main", "--flags", flags]);
    };
    let mut writer = cluster.open();
    writer.make(writer.root(), "f", 0o100_644);
    assert!(!writer.granted.settings.flags.ro);
    set_flags(&cluster, "ro");
    let mut told = cluster.open();
    assert!(told.granted.settings.flags.ro && told.granted.flags.ro);
    let is_refused = |session: &mut Session, name: &str| {
        let request = session.make_request(session.root(), name, 0o100_600);
        session.call(request).result == Err(Errno::EROFS)
    };
    let request =
        |session: &mut Session| Request::SetAttr { node: session.root(), change: Default::default() };
    let change = request(&mut writer);
    assert_eq!(writer.fail(change.clone()), Errno::EROFS, "in force with the first who is told");
    set_flags(&cluster, "");
    let mut later = within(Duration::from_secs(10), || {
        let session = cluster.open();
        (!session.granted.settings.flags.ro).then_some(session)
    });
    assert!(later.granted.flags.ro, "a mount that could not write is told so");
    let set = later.fail(request(&mut told));
    assert_eq!((set, writer.fail(change.clone())), (Errno::EROFS, Errno::EROFS));
    // A restart forgets nobody.
    cluster.kill_meta();
    cluster.start_meta();
    std::thread::scope(|scope| {
        for session in [&mut writer, &mut told, &mut later] {
            scope.spawn(|| session.recover(Vec::new()));
        }
    });
    assert_eq!(writer.fail(change.clone()), Errno::EROFS);
    told.get(Request::Leave);
    within(Duration::from_secs(10), || {
        (writer.call(change.clone()).result != Err(Errno::EROFS)).then_some(())
    });
    let mut fresh = cluster.open();
    assert!(!fresh.granted.flags.ro && !is_refused(&mut fresh, "g"));
}

#[test]
fn a_scope_is_a_world_of_its_own() {
    let cluster = Cluster::start();
    let mut all = cluster.open();
    let secret = all.make(all.root(), "secret", 0o100_600);
    let token = cluster.another_token(&["--mountPath", "/team"]);
    let Err((reason, text)) = cluster.try_open(&token, Flags::default()) else { panic!() };
    assert!(reason == Reason::Scope && text.contains("/team"), "{text}");
    let team = all.make(all.root(), "team", 0o040_755);
    let mut session = cluster.try_open(&token, Flags::default()).unwrap();
    assert_eq!(session.granted.attr.ino, team.attr.ino);
    let made = session.make(session.root(), "f", 0o100_600);
    assert_eq!(
        session.fail(Request::GetAttr { node: secret.node }),
        Errno::ESTALE,
        "sealed for another scope"
    );
    assert_eq!(session.fail(Request::GetAttr { node: all.root() }), Errno::ESTALE);
    assert_eq!(all.fail(Request::GetAttr { node: made.node }), Errno::ESTALE);
}

#[test]
fn a_revoked_token_ends_its_sessions() {
    let cluster = Cluster::start();
    let token = cluster.another_token(&[]);
    let id = Token::parse(&token).unwrap().id.to_string();
    let mut revoked = cluster.try_open(&token, Flags::default()).unwrap();
    let (mut second, _) = revoked.another(false);
    let mut other = cluster.open();
    let start = Instant::now();
    cluster.configure(&["delete", "volume-token", &id]);
    revoked.link.wait_closed();
    let took = start.elapsed();
    assert!(took < Duration::from_millis(1500), "{took:?}");
    assert!(revoked.link.notices.iter().any(|n| matches!(n, Notice::Revoked { text } if text.contains(&id))));
    second.wait_closed();
    assert!(second.notices.iter().any(|n| matches!(n, Notice::Revoked { .. })));
    let Err((reason, _)) = cluster.try_open(&token, Flags::default()) else { panic!() };
    assert_eq!(reason, Reason::TokenUnknown);
    let (_, welcome) = revoked.another(false);
    assert!(matches!(welcome, Welcome::Refused(r) if r.reason == Reason::SessionUnknown));
    assert!(matches!(other.get(Request::StatFs), Reply::StatFs(_)), "others go on");
}

#[test]
fn tokens_revoked_behind_the_back_are_noticed_on_reconnect() {
    let mut cluster = Cluster::start();
    let token = cluster.another_token(&[]);
    let id = Token::parse(&token).unwrap().id.to_string();
    let mut revoked = cluster.try_open(&token, Flags::default()).unwrap();
    let mut other = cluster.open();
    cluster.kill_meta();
    cluster.configure(&["delete", "volume-token", &id]);
    cluster.start_meta();
    // It is ended by the snapshot, so the other need not wait for it.
    let start = Instant::now();
    other.recover(Vec::new());
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    let (_, welcome) = revoked.another(true);
    assert!(matches!(welcome, Welcome::Refused(_)), "{welcome:?}");
    revoked.link.wait_closed();
}
