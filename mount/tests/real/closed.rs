//! `close(2)` does not wait for the bytes of a file that nobody else looks at: nobody can tell, but by the time.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread::{sleep, spawn};
use std::time::Duration;

use rustix::process::Signal;

use crate::behind::touch_on_each_core;
use crate::files::pattern;
use crate::harness::{Cluster, Run, Transport, now, soon};

both!(unmounted_at_once);
// Without rings the kernel keeps no names, and asks the server for the way there.
one!(server_is_frozen, client_dies_after_a_replacement);

/// More than goes inline.
const LARGE: usize = 100_000;
/// Free bytes of the server's disk that a client wants to know of (`data/promise.rs`), and some.
const ROOM: u64 = 5 << 30;

/// The server stands still: files are closed all the same, and only who asks for durability, or for another's bytes, waits.
fn server_is_frozen(transport: Transport) {
    let cluster = Cluster::start(transport);
    has_room(cluster.root());
    let other = cluster.second_mount();
    let dir = cluster.path("new");
    fs::create_dir(&dir).unwrap();
    touch_on_each_core(&dir);
    warm_up(&dir);
    let meta = cluster.meta();
    meta.signal(Signal::STOP);
    let start = now();
    let folder = dir.clone();
    let closing = spawn(move || {
        let write = |index: u64| {
            let mut file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(folder.join(format!("file-{index}")))
                .unwrap();
            file.write_all(&pattern(index, LARGE)).unwrap();
            // One of two descriptors is closed.
            file.try_clone().unwrap()
        };
        (0..20).map(write).collect::<Vec<File>>()
    });
    let is_behind = soon(Duration::from_secs(1), || closing.is_finished());
    let took = start.elapsed();
    if !is_behind {
        meta.signal(Signal::CONT);
    }
    let files = closing.join().unwrap();
    assert!(is_behind, "close waits for the server");
    let mut bytes = vec![0; LARGE];
    files[2].read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == pattern(2, LARGE), "what is read here");
    let syncing = spawn(move || files[0].sync_all().unwrap());
    sleep(Duration::from_millis(300));
    let waited = !syncing.is_finished();
    meta.signal(Signal::CONT);
    syncing.join().unwrap();
    println!("20 files of {LARGE} bytes closed behind a server that stood still in {took:?}");
    assert!(waited, "an fsync that waited for nobody");
    for index in 0..20 {
        assert!(fs::read(other.join(format!("new/file-{index}"))).unwrap() == pattern(index, LARGE));
    }
    cluster.finish();
}

/// A new version of a file was written, closed and moved over the old one: a client that dies then leaves one of them, whole.
fn client_dies_after_a_replacement(transport: Transport) {
    let cluster = Cluster::start(transport);
    let other = cluster.second_mount();
    // What takes longest comes last.
    for (round, size) in [10, 5_000, LARGE, 40 * LARGE].into_iter().enumerate() {
        let dir = cluster.path(format!("new-{round}"));
        fs::create_dir(&dir).unwrap();
        warm_up(&dir);
        let replace = |version: u64| {
            fs::write(dir.join("hidden"), pattern(version, size)).unwrap();
            fs::rename(dir.join("hidden"), dir.join("kept")).unwrap();
        };
        let mount = cluster.mount_process(cluster.mnt()).unwrap();
        replace(1);
        replace(2);
        mount.kill();
        let found = fs::read(other.join(format!("new-{round}/kept"))).unwrap();
        let is_whole = found == pattern(1, size) || found == pattern(2, size);
        assert!(is_whole, "{} bytes are left of {size}", found.len());
        Run::new("umount").arg("-l").arg(cluster.mnt()).limit(20).ok();
        cluster.up();
    }
    cluster.finish();
}

/// What was closed before `umount` is there after it.
fn unmounted_at_once(transport: Transport) {
    let cluster = Cluster::start(transport);
    let size = |index: u64| usize::try_from(index % 7).unwrap() * 9_000;
    for round in 0..3 {
        let dir = cluster.path(format!("new-{round}"));
        fs::create_dir(&dir).unwrap();
        for index in 0..200 {
            fs::write(dir.join(format!("file-{index}")), pattern(index, size(index))).unwrap();
        }
        cluster.remount();
        for index in 0..200 {
            let found = fs::read(dir.join(format!("file-{index}"))).unwrap();
            assert!(found == pattern(index, size(index)), "file {index}: {} bytes", found.len());
        }
    }
    cluster.finish();
}

/// Closes files until that waits for nobody: the client has asked for the server's room.
fn warm_up(dir: &Path) {
    let mut count = 0;
    let asked = || {
        count += 1;
        fs::write(dir.join(format!("warm-{count}")), pattern(count, LARGE)).unwrap();
        count > 4
    };
    assert!(soon(Duration::from_secs(10), asked));
}

/// Where there is less, everybody waits, and nothing is shown here.
fn has_room(folder: &Path) {
    let figures = rustix::fs::statvfs(folder).unwrap();
    assert!(figures.f_bavail * figures.f_frsize > ROOM, "this test needs {ROOM} free bytes");
}
