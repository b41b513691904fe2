//! Processes that stand still for a while, as on a machine that is paused or swaps, and go on.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::{sleep, spawn};
use std::time::Duration;

use rustix::process::Signal;

use super::workload::Workload;
use super::{LEASE, RECOVERY, SLACK};
use crate::child::Child;
use crate::files::pattern;
use crate::harness::{Transport, soon};

both!(servers, mount, pages);

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

/// Without a word from the server for so long that others may have changed everything, nothing is read from the kernel's pages any more,
/// whatever other reads are kept by the server's silence.
fn pages(transport: Transport) {
    let cluster = super::cluster(transport);
    let other = cluster.second_mount();
    let names = |kind: &'static str| (0..8).map(move |number| format!("{kind}-{number}"));
    let open = |name: String| File::open(other.join(name)).unwrap();
    for name in names("kept").chain(names("asked")) {
        fs::write(cluster.path(&name), pattern(0, 100_000)).unwrap();
    }
    let (kept, asked): (Vec<File>, Vec<File>) =
        (names("kept").map(open).collect(), names("asked").map(open).collect());
    let read = |file: &File| {
        let mut bytes = vec![0; 4096];
        file.read_exact_at(&mut bytes, 8192).map(|()| bytes)
    };
    kept.iter().for_each(|file| drop(read(file).unwrap()));
    let servers = [cluster.meta(), cluster.admin()];
    servers.iter().for_each(|server| server.signal(Signal::STOP));
    let (done, ended) = channel();
    let start = |files: Vec<File>| {
        for file in files {
            let done = done.clone();
            spawn(move || done.send(read(&file)));
        }
    };
    start(asked);
    sleep(LEASE);
    start(kept);
    assert_eq!(ended.recv_timeout(SLACK).unwrap_err(), RecvTimeoutError::Timeout, "old pages were read");
    servers.iter().for_each(|server| server.signal(Signal::CONT));
    for _ in names("kept").chain(names("asked")) {
        let bytes = ended.recv_timeout(RECOVERY).expect("an answer after the pause").unwrap();
        assert!(bytes == pattern(0, 100_000)[8192..12_288]);
    }
    cluster.finish();
}
