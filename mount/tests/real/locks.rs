//! Locks of processes and of clients against each other: flock, POSIX ranges, waits, interrupts, ends of owners.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::child::{Child, posix};
use crate::harness::{Cluster, Transport, within};

/// Time for a lock that is free to be granted.
const GRANT: Duration = Duration::from_secs(5);

both!(flock_waits, posix_ranges, clients, servers_restart, deadlocks, crowds, counters);

fn open(path: &Path) -> File {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).unwrap()
}

fn flock_waits(transport: Transport) {
    let cluster = Cluster::start(transport);
    let path = cluster.path("file");
    let file = open(&path);
    flock(&file, FlockOperation::LockExclusive).unwrap();
    // Another description of this very process is another owner.
    let again = open(&path);
    assert_eq!(flock(&again, FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK));
    let mut waiter = Child::start("flock-ex", &path);
    assert!(waiter.is_waiting(), "got a lock that is held");
    // More waiters than a core has queue entries must not keep the unlock out.
    let crowd: Vec<Child> = (0..12).map(|_| Child::start("flock-sh", &path)).collect();
    assert!(waiter.interrupt(Duration::from_secs(3)), "a waiter does not end at kill -INT");
    flock(&file, FlockOperation::Unlock).unwrap();
    for child in &crowd {
        assert_eq!(child.says(GRANT).as_deref(), Some("done"), "shared locks go together");
    }
    assert_eq!(flock(&file, FlockOperation::NonBlockingLockExclusive), Err(Errno::WOULDBLOCK));
    flock(&again, FlockOperation::NonBlockingLockShared).unwrap();
    // A holder that is killed holds nothing.
    for child in crowd {
        child.kill();
    }
    flock(&again, FlockOperation::Unlock).unwrap();
    let file = within(GRANT, "lock after its holders died", move || {
        flock(&file, FlockOperation::LockExclusive).unwrap();
        file
    });
    // The last close of a description releases; a duplicate keeps it.
    let double = file.try_clone().unwrap();
    drop(file);
    assert_eq!(flock(&again, FlockOperation::NonBlockingLockExclusive), Err(Errno::WOULDBLOCK));
    drop(double);
    within(GRANT, "lock after the last close", move || flock(&again, FlockOperation::LockExclusive).unwrap());
    cluster.finish();
}

fn posix_ranges(transport: Transport) {
    let cluster = Cluster::start(transport);
    let path = cluster.path("file");
    fs::write(&path, vec![0; 1000]).unwrap();
    let file = open(&path);
    let set = |kind, start, length| fcntl(&file, FcntlArg::F_SETLK(&posix(kind, start, length)));
    set(libc::F_WRLCK, 100, 100).unwrap();
    let next = Child::start("posix-try 200 100", &path);
    assert_eq!(next.says(GRANT).as_deref(), Some("done"), "ranges that only touch");
    let denied = Child::start("posix-try 150 1", &path);
    assert_eq!(denied.says(GRANT).as_deref(), Some("failed"));
    assert!(set(libc::F_WRLCK, 250, 10).is_err(), "the other's range is its own");
    let mut found = posix(libc::F_WRLCK, 0, 0);
    fcntl(&file, FcntlArg::F_GETLK(&mut found)).unwrap();
    assert_eq!((found.l_start, found.l_len, i32::from(found.l_type)), (200, 100, libc::F_WRLCK));
    assert!(found.l_pid > 0, "who holds it");
    // A hole cut into a range leaves both ends; a waiter for the hole gets it, one for the rest waits on.
    let in_hole = Child::start("posix-wait 140 20", &path);
    let mut beside = Child::start("posix-wait 100 10", &path);
    assert!(in_hole.is_waiting() && beside.is_waiting());
    set(libc::F_UNLCK, 140, 20).unwrap();
    assert_eq!(in_hole.says(GRANT).as_deref(), Some("done"));
    assert!(beside.is_waiting(), "got a range that is held");
    assert!(beside.interrupt(Duration::from_secs(3)), "a waiter does not end at kill -INT");
    // Two that would wait for each other: one is told so.
    let third = Child::start("posix-wait 100 1", &path);
    assert!(third.is_waiting());
    drop(third);
    next.kill();
    within(GRANT, "range of a killed holder", {
        let file = file.try_clone().unwrap();
        move || fcntl(&file, FcntlArg::F_SETLKW(&posix(libc::F_WRLCK, 200, 100))).unwrap()
    });
    // POSIX: any close of the file by the process drops all its locks.
    drop(open(&path));
    let all = Child::start("posix-try 160 40", &path);
    assert_eq!(all.says(GRANT).as_deref(), Some("done"));
    drop((all, file, in_hole, denied));
    cluster.finish();
}

/// Takes a lock that reaches other clients: flock, but over /dev/fuse a POSIX one, for fuser cannot tell the two apart and
/// leaves flock to the kernel of each client.
fn take(file: &File, transport: Transport) {
    match transport {
        Transport::Uring => flock(file, FlockOperation::LockExclusive).unwrap(),
        Transport::Dev => {
            fcntl(file, FcntlArg::F_SETLK(&posix(libc::F_WRLCK, 100, 0))).unwrap();
        }
    }
}

/// What a child does that wants the lock of `take`.
fn whole(transport: Transport) -> &'static str {
    transport.scale("flock-ex", "posix-wait 100 0")
}

/// Locks hold between two clients, and are gone with the client that held them.
fn clients(transport: Transport) {
    let cluster = Cluster::start(transport);
    let other = cluster.second_mount();
    let path = cluster.path("file");
    let file = open(&path);
    take(&file, transport);
    fcntl(&file, FcntlArg::F_SETLK(&posix(libc::F_WRLCK, 0, 10))).unwrap();
    let there = Child::start(whole(transport), &other.join("file"));
    let range = Child::start("posix-wait 5 1", &other.join("file"));
    assert!(there.is_waiting() && range.is_waiting(), "a lock does not reach the other client");
    // kill -9 of the holder's client: its locks go when its session has ended (lease 10 s).
    cluster.kill_mount();
    assert_eq!(there.says(Duration::from_secs(25)).as_deref(), Some("done"), "a dead client's lock stays");
    assert_eq!(range.says(GRANT).as_deref(), Some("done"));
    drop((file, there, range));
    cluster.remount();
    cluster.finish();
}

/// Locks survive a restart of the server: the client holds them again before anybody else may take them.
fn servers_restart(transport: Transport) {
    let cluster = Cluster::start(transport);
    let other = cluster.second_mount();
    let path = cluster.path("file");
    let file = open(&path);
    take(&file, transport);
    cluster.kill_meta();
    cluster.restart();
    let waiter = Child::start(whole(transport), &other.join("file"));
    assert!(waiter.says(Duration::from_secs(4)).is_none(), "the lock was lost with the server");
    fcntl(&file, FcntlArg::F_SETLK(&posix(libc::F_UNLCK, 100, 0))).unwrap();
    flock(&file, FlockOperation::Unlock).unwrap();
    assert_eq!(waiter.says(Duration::from_secs(30)).as_deref(), Some("done"));
    drop(waiter);
    drop(file);
    cluster.finish();
}

/// `EDEADLK` to the one that closes a circle of record locks, over two clients and three processes, and to nobody else.
fn deadlocks(transport: Transport) {
    let cluster = Cluster::start(transport);
    let other = cluster.second_mount();
    let path = cluster.path("file");
    fs::write(&path, vec![0; 100]).unwrap();
    let paths = [path.clone(), other.join("file")];
    let start = |verb: &str, at: usize| {
        let child = Child::start(verb, &paths[at % 2]);
        assert_eq!(child.says(GRANT).as_deref(), Some("done"));
        child
    };
    for length in [2, 3] {
        let mut circle: Vec<Child> = (0..length)
            .map(|index| start(&format!("posix-chain {index} {}", (index + 1) % length), index))
            .collect();
        for child in &mut circle[..length - 1] {
            child.tell();
            assert!(child.is_waiting(), "a chain of {length} is no circle yet");
        }
        // One more who waits at its end is in nobody's way.
        let mut beside = start("posix-chain 50 0", 1);
        beside.tell();
        assert!(beside.is_waiting());
        circle[length - 1].tell();
        assert_eq!(circle[length - 1].says(GRANT).as_deref(), Some("deadlock"), "a circle of {length}");
        // It gives up what it holds: the others get theirs, one after the other.
        circle.pop().unwrap().kill();
        while let Some(child) = circle.pop() {
            assert_eq!(child.says(GRANT).as_deref(), Some("done"));
            child.kill();
        }
        assert_eq!(beside.says(GRANT).as_deref(), Some("done"));
    }
    // Locks of descriptions have no process that could be told: they wait, and go on when somebody lets go.
    let mut first = start("ofd-chain 0 1", 0);
    let mut second = start("ofd-chain 1 0", 1);
    first.tell();
    assert!(first.is_waiting());
    second.tell();
    assert!(second.is_waiting(), "a circle of descriptions");
    first.kill();
    assert_eq!(second.says(GRANT).as_deref(), Some("done"));
    drop(second);
    cluster.finish();
}

/// More waiters than all queues have entries, of one client; everything else goes on, and so does the unlock.
fn crowds(transport: Transport) {
    let cluster = Cluster::start(transport);
    let path = cluster.path("file");
    let file = open(&path);
    flock(&file, FlockOperation::LockExclusive).unwrap();
    let waiters = 400;
    let crowd = Child::start(&format!("flock-crowd {waiters}"), &path);
    assert!(crowd.is_waiting() && crowd.is_waiting());
    let folder = cluster.path("folder");
    within(Duration::from_secs(20), "work beside waiting locks", move || {
        fs::create_dir(&folder).unwrap();
        for index in 0..100 {
            fs::write(folder.join(index.to_string()), vec![1; 10_000]).unwrap();
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 100);
    });
    let mut interrupted = Child::start("flock-ex", &path);
    assert!(interrupted.is_waiting());
    assert!(interrupted.interrupt(Duration::from_secs(3)), "a waiter does not end at kill -INT");
    flock(&file, FlockOperation::Unlock).unwrap();
    assert_eq!(crowd.says(Duration::from_secs(30)).as_deref(), Some("done"));
    // And a crowd that is killed leaves nothing behind.
    within(GRANT, "lock after a crowd", {
        let file = file.try_clone().unwrap();
        move || flock(&file, FlockOperation::LockExclusive).unwrap()
    });
    let crowd = Child::start(&format!("flock-crowd {waiters}"), &path);
    assert!(crowd.is_waiting());
    crowd.kill();
    flock(&file, FlockOperation::Unlock).unwrap();
    within(GRANT, "lock after a killed crowd", move || flock(&file, FlockOperation::LockExclusive).unwrap());
    cluster.finish();
}

/// Two processes on each of two clients count under a lock: no step is lost.
fn counters(transport: Transport) {
    let cluster = Cluster::start(transport);
    let other = cluster.second_mount();
    let times = transport.scale(150, 60);
    // flock is each machine's own over /dev/fuse, so there only record locks.
    for kind in [Some("posix"), (transport == Transport::Uring).then_some("flock")].into_iter().flatten() {
        let path = cluster.path(kind);
        fs::write(&path, "7").unwrap();
        fs::write(path.with_extension("lock"), "").unwrap();
        let there = other.join(kind);
        let verb = format!("count {times} {kind}");
        let children: Vec<Child> =
            [&path, &there, &path, &there].iter().map(|path| Child::start(&verb, path)).collect();
        for child in &children {
            assert_eq!(child.says(Duration::from_secs(120)).as_deref(), Some("done"), "{kind}");
        }
        let count = fs::read_to_string(&path).unwrap();
        assert_eq!(count, (7 + 4 * times).to_string(), "{kind}");
    }
    cluster.finish();
}
