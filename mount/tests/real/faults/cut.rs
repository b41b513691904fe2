//! The cable between a client's host and the servers' is pulled and plugged in again.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::thread::sleep;
use std::time::Duration;

use super::workload::Workload;
use super::{LEASE, RECOVERY, SLACK};
use crate::child::Child;
use crate::files::pattern;
use crate::harness::{Network, Transport, now, soon, within};

both!(short, beyond_the_lease);

/// A cut the session survives: nobody notices more than a pause.
fn short(transport: Transport) {
    let cluster = super::cluster(transport);
    let network = Network::new();
    let host = network.host();
    let creds = cluster.open_to(&network);
    let far = cluster.mount_on(&host, &creds);
    let mounts = [cluster.mnt(), &far];
    let load = Workload::start(&mounts, 3);
    for _ in 0..transport.scale(2, 1) {
        load.goes_on(RECOVERY, "before the cut");
        host.cut();
        let before = load.counts();
        sleep(Duration::from_secs(3));
        // What the client had heard of before is answered from its memory, no more.
        let during = load.counts()[1] - before[1];
        host.heal();
        let healed = now();
        load.goes_on(RECOVERY, "after the cable is back");
        println!("{during} steps while the cable was out, more {:?} after it was back", healed.elapsed());
    }
    let ended = load.end(RECOVERY);
    ended.no_errors();
    ended.check(&mounts);
    assert_eq!(cluster.link_figure(&far, "sessionsLost"), 0, "the session was lost to a short cut");
    cluster.as_made_by_up();
    cluster.finish();
}

/// A cut the session does not survive: the others get its locks, and when it is back both see the same files and work on.
fn beyond_the_lease(transport: Transport) {
    let cluster = super::cluster(transport);
    let network = Network::new();
    let host = network.host();
    let creds = cluster.open_to(&network);
    let far = cluster.mount_on(&host, &creds);
    fs::write(far.join("synced"), pattern(0, 300_000)).unwrap();
    File::open(far.join("synced")).unwrap().sync_all().unwrap();
    fs::write(far.join("locked"), "x").unwrap();
    let unnamed = OpenOptions::new().create_new(true).read(true).write(true).open(far.join("unnamed"));
    let unnamed = unnamed.unwrap();
    unnamed.write_all_at(b"still here", 0).unwrap();
    unnamed.sync_all().unwrap();
    fs::remove_file(far.join("unnamed")).unwrap();
    let holder = Child::start("posix-wait 0 0", &far.join("locked"));
    assert_eq!(holder.says(SLACK).as_deref(), Some("done"));
    let waiter = Child::start("posix-wait 0 0", &cluster.path("locked"));
    assert!(waiter.is_waiting(), "a lock does not reach the other client");
    let mut dirty = File::create(far.join("dirty")).unwrap();
    dirty.write_all(&pattern(5, 200_000)).unwrap();
    host.cut();
    let cut = now();
    let asks = Child::start("stat", &far.join("synced-not"));
    assert!(asks.is_waiting(), "an answer without a server");
    // The other one goes on, with what the cut one had locked too.
    fs::write(cluster.path("synced"), pattern(1, 400_000)).unwrap();
    fs::write(cluster.path("beside"), "y").unwrap();
    assert_eq!(waiter.says(LEASE + SLACK).as_deref(), Some("done"), "the lock of a client cut off stays");
    println!("the lock was there {:?} after the cut", cut.elapsed());
    assert!(cut.elapsed() < LEASE + SLACK);
    sleep(Duration::from_secs(14).saturating_sub(cut.elapsed()));
    assert!(asks.says(Duration::ZERO).is_none(), "gave up although it should wait");
    host.heal();

    // Without mounting again: what waited is answered, what the others did is seen.
    assert_eq!(asks.says(RECOVERY).as_deref(), Some("failed"), "there is no such file");
    let path = far.join("beside");
    within(RECOVERY, "the other's new file", move || assert_eq!(fs::read_to_string(path).unwrap(), "y"));
    let path = far.join("synced");
    assert!(
        soon(SLACK, || fs::read(&path).unwrap() == pattern(1, 400_000)),
        "what the others wrote is not seen"
    );
    // Nobody else has touched the file: what was written while the cable was out goes to the server now.
    within(RECOVERY, "fsync", move || dirty.sync_all()).unwrap();
    for mnt in [cluster.mnt(), &far] {
        assert!(soon(SLACK, || fs::read(mnt.join("dirty")).unwrap() == pattern(5, 200_000)), "{mnt:?}");
    }
    // Its locks are gone, its file without a name too, and its log says so.
    let again = Child::start("posix-try 0 0", &far.join("locked"));
    assert_eq!(again.says(SLACK).as_deref(), Some("failed"), "the lock is the other's now");
    let mut bytes = [0; 10];
    let read = unnamed.read_exact_at(&mut bytes, 0);
    println!("the file without a name: {read:?}");
    let log = cluster.log_of(&far);
    let line = log.lines().find(|line| line.contains("no longer knew the session")).expect(&log);
    assert!(line.contains("lost_locks=1") && line.contains("lost_opens=1"), "{line}");
    assert_eq!(cluster.link_figure(&far, "sessionsLost"), 1);
    drop((unnamed, holder, waiter, asks, again));
    let load = Workload::start(&[cluster.mnt(), &far], 14);
    load.goes_on(RECOVERY, "after the cable is back");
    let ended = load.end(RECOVERY);
    ended.no_errors();
    ended.check(&[cluster.mnt(), &far]);
    cluster.as_made_by_up();
    cluster.finish();
}
