//! kill -9 and what comes after: nothing that was acknowledged is lost.

use std::time::{Duration, Instant};

use flexfs_wire::errno::Errno;
use flexfs_wire::hello::{Reason, Welcome};
use flexfs_wire::id::RequestId;
use flexfs_wire::limits::LEASE_MS;
use flexfs_wire::message::{Call, Caller, Replay, Reply, Request};

use crate::client::Session;
use crate::client::cluster::Cluster;

#[test]
fn acknowledged_calls_survive_a_kill() {
    let mut cluster = Cluster::start();
    let mut one = cluster.open();
    let mut two = cluster.open();
    let root = one.root();
    let mut open = None;
    for number in 0..200 {
        let session = if number % 2 == 0 { &mut one } else { &mut two };
        let made = session.make(root, &format!("f{number}"), 0o100_644);
        session.write_inline(made.node, format!("content {number}").as_bytes());
        if number == 0 {
            one.get(Request::Open { node: made.node, write: true, truncate: false, kill_privileges: false });
            open = Some(made.node);
        }
    }
    // One file builds on what the other session did just before.
    let name = |name: &str| flexfs_wire::name::Name::new(name.as_bytes()).unwrap();
    for number in 0..20 {
        let (old, new) = (name(&format!("f{}", number * 2 + 1)), name(&format!("g{number}")));
        one.get(Request::Rename { parent: root, name: old, new_parent: root, new_name: new, flags: 0 });
    }
    cluster.kill_meta();
    cluster.start_meta();

    let (_, welcome) = one.another(false);
    assert!(matches!(welcome, Welcome::Refused(refused) if refused.reason == Reason::MustRecover));
    // A new session has to wait for those that were there before.
    let (addr, pin, token) = (cluster.addr, cluster.pin, cluster.token.clone());
    let late = std::thread::spawn(move || {
        let start = Instant::now();
        let session = Session::try_open(addr, pin, &token, flexfs_wire::settings::Flags::default());
        (start.elapsed(), session.unwrap())
    });
    std::thread::sleep(Duration::from_millis(700));
    let two_thread = std::thread::spawn(move || {
        let replayed = two.recover(Vec::new());
        (two, replayed)
    });
    std::thread::sleep(Duration::from_millis(300));
    let replayed = one.recover(vec![(open.unwrap(), 1)]);
    let (mut two, replayed_two) = two_thread.join().unwrap();
    let (waited, mut new) = late.join().unwrap();
    println!("replayed {replayed} + {replayed_two} calls");
    assert!(waited >= Duration::from_millis(900), "{waited:?}");

    for number in 0..200 {
        let renamed = number % 2 == 1 && number / 2 < 20;
        let name = if renamed { format!("g{}", number / 2) } else { format!("f{number}") };
        for session in [&mut one, &mut two, &mut new] {
            let node = session.lookup(&name).unwrap_or_else(|errno| panic!("{name}: {errno}")).node;
            assert_eq!(session.read_inline(node), format!("content {number}").as_bytes());
        }
    }
    assert_eq!(one.lookup("f1").unwrap_err(), Errno::ENOENT);

    // Answers are remembered across the restart: a resend of the last call is not done twice.
    let (RequestId(id), replay) = one.log.last().unwrap().clone();
    one.link.request_call(id, &replay.call, &[]);
    assert_eq!(one.link.answer(id).0.result, Ok(Reply::Done));

    // Life goes on, with new numbers for commits.
    let made = one.make(root, "after", 0o100_644);
    let call = one.log.last().unwrap().1.commit;
    assert_eq!(one.get(Request::Sync { up_to: call }), Reply::Done);
    assert!(one.link.durable >= call);
    let (mut more, welcome) = one.another(false);
    assert!(matches!(welcome, Welcome::Attached { .. }));
    let call = Call::new(Caller { uid: 0, gid: 0 }, Request::GetAttr { node: made.node });
    more.request_call(7777, &call, &[]);
    assert!(more.answer(7777).0.result.is_ok());

    assert!(cluster.stop_meta(), "{}", cluster.log());
    let checked = cluster.verify();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

#[test]
fn sessions_that_do_not_come_back_are_ended() {
    let mut cluster = Cluster::start();
    let mut back = cluster.open();
    let mut lost = cluster.open();
    let root = back.root();
    let orphan = lost.make(root, "orphan", 0o100_600);
    lost.get(Request::Open { node: orphan.node, write: true, truncate: false, kill_privileges: false });
    back.make(root, "kept", 0o100_600);
    cluster.kill_meta();
    cluster.start_meta();
    let start = Instant::now();
    back.recover(Vec::new());
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(LEASE_MS - 2000) && took < Duration::from_secs(30), "{took:?}");
    assert!(back.lookup("kept").is_ok());
    let (_, welcome) = lost.another(true);
    assert!(matches!(welcome, Welcome::Refused(refused) if refused.reason == Reason::SessionUnknown));
    assert!(cluster.log().contains("did not come back"));
    assert!(cluster.stop_meta());
    let checked = cluster.verify();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

#[test]
fn a_kill_under_load_does_everything_once() {
    const COUNT: usize = 3000;
    let mut cluster = Cluster::start();
    let mut session = cluster.open();
    let root = session.root();
    let calls: Vec<(u64, Call)> = (0..COUNT)
        .map(|number| {
            let request = session.make_request(root, &format!("f{number}"), 0o100_600);
            (session.number(), Call::new(Caller { uid: 0, gid: 0 }, request))
        })
        .collect();
    for window in calls.chunks(500).take(3) {
        for (id, call) in window {
            session.link.request_call(*id, call, &[]);
        }
    }
    // Some were answered when it dies, some were applied and not answered, some never arrived.
    for (id, call) in calls.iter().take(700) {
        let (answer, _) = session.link.answer(*id);
        assert!(answer.result.is_ok());
        session
            .log
            .push((RequestId(*id), Replay { commit: answer.commit, at: answer.at, call: call.clone() }));
    }
    cluster.kill_meta();
    for (id, call) in calls.iter().skip(700) {
        let Ok((answer, _)) = session.link.try_answer(*id) else { break };
        session
            .log
            .push((RequestId(*id), Replay { commit: answer.commit, at: answer.at, call: call.clone() }));
    }
    let answered = session.log.len();
    cluster.start_meta();
    let replayed = session.recover(Vec::new());
    println!("{answered} answered, {replayed} replayed");
    for (id, call) in calls.iter().skip(answered) {
        session.link.request_call(*id, call, &[]);
        let (answer, _) = session.link.answer(*id);
        assert!(matches!(answer.result, Ok(Reply::Entry(_))), "{id}: {:?}", answer.result);
    }
    // And once more, as after a link that broke: the same answers, nothing is done twice.
    for (id, call) in calls.iter().step_by(100) {
        session.link.request_call(*id, call, &[]);
        assert!(matches!(session.link.answer(*id).0.result, Ok(Reply::Entry(_))));
    }
    for number in (0..COUNT).step_by(50) {
        session.lookup(&format!("f{number}")).unwrap();
    }
    let Reply::Attr(attr) = session.get(Request::GetAttr { node: root }) else { panic!() };
    assert_eq!(attr.size, COUNT as u64);
    assert!(cluster.stop_meta());
    let checked = cluster.verify();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

/// What admin said when the volume was opened first holds after a restart without admin.
#[test]
fn settings_survive_a_restart_without_admin() {
    let mut cluster = Cluster::start();
    cluster.configure(&["update", "volume", "main", "--maxInodes", "5"]);
    let mut session = cluster.open();
    let total = |session: &mut Session| match session.get(Request::StatFs) {
        Reply::StatFs(figures) => figures.inodes_total,
        other => panic!("{other:?}"),
    };
    assert_eq!(total(&mut session), 5);
    cluster.kill_meta();
    cluster.kill_admin();
    cluster.start_meta();
    session.recover(Vec::new());
    assert_eq!(total(&mut session), 5);
}
