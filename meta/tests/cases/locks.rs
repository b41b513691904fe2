//! Waiting for locks: granted late, cancelled, dropped with their link; sessions that fall silent let go.

use std::time::{Duration, Instant};

use flexfs_wire::errno::Errno;
use flexfs_wire::id::RequestId;
use flexfs_wire::limits::LEASE_MS;
use flexfs_wire::message::{Lock, LockFamily, LockKind, Reply, Request};
use flexfs_wire::seal::Node;

use crate::client::cluster::Cluster;

fn lock(node: Node, owner: u64, kind: LockKind, wait: bool) -> Request {
    let lock = Lock { family: LockFamily::Posix, kind, owner, pid: 1, start: 0, end: u64::MAX };
    Request::Lock { node, lock, wait }
}

#[test]
fn waits_end_by_unlock_cancel_and_loss_of_the_link() {
    let cluster = Cluster::start();
    let mut holder = cluster.open();
    let file = holder.make(holder.root(), "f", 0o100_600).node;
    assert_eq!(holder.get(lock(file, 1, LockKind::Write, false)), Reply::Done);
    let mut waiter = cluster.open();
    assert_eq!(waiter.fail(lock(file, 2, LockKind::Read, false)), Errno::EAGAIN);

    let id = waiter.number();
    waiter.link.request(id, lock(file, 2, LockKind::Read, true), &[]);
    assert!(waiter.link.is_silent(Duration::from_millis(200)), "it waits");
    assert_eq!(waiter.get(Request::CancelWait { request: RequestId(id) }), Reply::Done);
    assert_eq!(waiter.link.answer(id).0.result, Err(Errno::EINTR));

    let id = waiter.number();
    waiter.link.request(id, lock(file, 2, LockKind::Write, true), &[]);
    assert!(waiter.link.is_silent(Duration::from_millis(100)));
    assert_eq!(holder.get(lock(file, 1, LockKind::Unlock, false)), Reply::Done);
    assert_eq!(waiter.link.answer(id).0.result, Ok(Reply::Done));

    // A wait whose link is gone must not get the lock.
    let (mut second, _) = holder.another(false);
    second.request(800, lock(file, 3, LockKind::Write, true), &[]);
    assert!(second.is_silent(Duration::from_millis(100)));
    drop(second);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(waiter.get(lock(file, 2, LockKind::Unlock, false)), Reply::Done);
    assert_eq!(waiter.get(lock(file, 2, LockKind::Write, false)), Reply::Done);
}

#[test]
fn a_silent_session_lets_go_of_its_locks() {
    let cluster = Cluster::start();
    let mut silent = cluster.open();
    let file = silent.make(silent.root(), "f", 0o100_600).node;
    assert_eq!(silent.get(lock(file, 1, LockKind::Write, false)), Reply::Done);
    let mut waiter = cluster.open();
    let start = Instant::now();
    let id = waiter.number();
    waiter.link.request(id, lock(file, 2, LockKind::Write, true), &[]);
    // The waiter shows signs of life, the other does not.
    let mut beats = 0;
    while waiter.link.is_silent(Duration::from_secs(2)) {
        assert_eq!(waiter.get(Request::Heartbeat), Reply::Done);
        beats += 1;
        assert!(beats < 15);
    }
    assert_eq!(waiter.link.answer(id).0.result, Ok(Reply::Done));
    assert!(start.elapsed() >= Duration::from_millis(LEASE_MS - 500), "{:?}", start.elapsed());
    silent.link.wait_closed();
    assert!(cluster.log().contains("no sign of life"));
}
