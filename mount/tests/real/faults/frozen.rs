//! Processes that stand still for a while, as on a machine that is paused or swaps, and go on.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;

use super::workload::Workload;
use super::{LEASE, RECOVERY, SLACK};
use crate::child::Child;
use crate::files::pattern;
use crate::harness::{Transport, soon};

both!(servers, mount);

/// Longer than a lease.
const PAUSE: Duration = Duration::from_secs(16);

/// The metadata server heard nobody meanwhile, so nobody's silence counts: sessions and locks are as before.
fn servers(transport: Transport) {
    let cluster = super::cluster(transport);
    let other = cluster.second_mount();
    fs::write(cluster.path("locked"), "x").unwrap();
    let holder = Child::start("posix-wait 0 0", &cluster.path("locked"));
    assert_eq!(holder.says(SLACK).as_deref(), Some("done"));
    let load = Workload::start(&[cluster.mnt(), &other], 15);
    load.goes_on(RECOVERY, "before the pause");
    let servers = [cluster.meta(), cluster.admin()];
    servers.iter().for_each(|server| server.signal(Signal::STOP));
    sleep(PAUSE);
    servers.iter().for_each(|server| server.signal(Signal::CONT));
    load.goes_on(RECOVERY, "after the pause");
    let ended = load.end(RECOVERY);
    ended.no_errors();
    ended.check(&[cluster.mnt(), &other]);
    for mnt in [cluster.mnt(), &other] {
        assert_eq!(
            cluster.link_figure(mnt, "sessionsLost"),
            0,
            "{mnt:?} lost its session to the server's pause"
        );
    }
    let denied = Child::start("posix-try 0 0", &other.join("locked"));
    assert_eq!(denied.says(SLACK).as_deref(), Some("failed"), "a lock was lost to the server's pause");
    // New sessions need both.
    let third = cluster.second_mount();
    assert_eq!(fs::read_to_string(third.join("locked")).unwrap(), "x");
    drop((holder, denied));
    cluster.finish();
}

/// A client that stands still for longer than its lease loses what the lease held, and nothing else.
fn mount(transport: Transport) {
    let cluster = super::cluster(transport);
    let other = cluster.second_mount();
    fs::write(other.join("locked"), "x").unwrap();
    let holder = Child::start("posix-wait 0 0", &other.join("locked"));
    assert_eq!(holder.says(SLACK).as_deref(), Some("done"));
    let writer = Child::start("write-fsync", &other.join("written"));
    let mount = cluster.mount_process(&other).unwrap();
    assert_eq!(writer.says(SLACK).as_deref(), Some("done"));
    mount.signal(Signal::STOP);
    let asks = Child::start("stat", &other.join("locked-not"));
    let waiter = Child::start("posix-wait 0 0", &cluster.path("locked"));
    assert_eq!(waiter.says(LEASE + SLACK).as_deref(), Some("done"), "the lock of a frozen client stays");
    sleep(PAUSE.saturating_sub(LEASE));
    mount.signal(Signal::CONT);
    assert_eq!(asks.says(RECOVERY).as_deref(), Some("failed"), "no answer after the pause");
    fs::write(other.join("after"), pattern(0, 100_000)).unwrap();
    assert!(fs::read(cluster.path("after")).unwrap() == pattern(0, 100_000));
    // The unsent data of a file nobody else has touched is not lost.
    let mut writer = writer;
    writer.tell();
    assert_eq!(writer.says(RECOVERY).as_deref(), Some("done"), "fsync after the pause");
    let there = || fs::read(cluster.path("written")).is_ok_and(|bytes| bytes == [7; 100_000]);
    assert!(soon(SLACK, there), "what was fsynced is not there");
    drop((holder, writer, waiter, asks));
    cluster.finish();
}
