//! A client dies with unsent data, open files without names, and locks.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use super::{LEASE, SLACK};
use crate::child::Child;
use crate::files::pattern;
use crate::harness::{Run, Transport, now, soon};

both!(killed);

/// Files without a name that the dead client held.
const ORPHANS: u64 = 12;
/// Bytes of each.
const ORPHAN_BYTES: usize = 700_000;

fn killed(transport: Transport) {
    let cluster = super::cluster(transport);
    let other = cluster.second_mount();
    let synced: Vec<(String, usize)> =
        (0..30u32).map(|index| (format!("synced-{index}"), (index * 7_001) as usize)).collect();
    for (name, length) in &synced {
        let mut file = File::create(cluster.path("temporary")).unwrap();
        file.write_all(&pattern(3, *length)).unwrap();
        file.sync_all().unwrap();
        fs::rename(cluster.path("temporary"), cluster.path(name)).unwrap();
    }
    File::create(cluster.path("locked")).unwrap();
    let mut file = File::create(cluster.path("appended")).unwrap();
    file.write_all(&pattern(0, 50_000)).unwrap();
    file.sync_all().unwrap();
    drop(file);
    File::open(cluster.mnt()).unwrap().sync_all().unwrap();
    let before = used(&other);
    let orphans: Vec<File> = (0..ORPHANS).map(|_| orphan(&cluster.path("orphan"))).collect();
    let with_orphans = used(&other);
    assert!(with_orphans.0 >= before.0 + ORPHANS, "{before:?} {with_orphans:?}");
    // Dirty: a file the server knows empty, and the new end of one whose beginning was synced.
    let mut dirty = File::create(cluster.path("dirty")).unwrap();
    dirty.write_all(&pattern(1, 3_000_000)).unwrap();
    let mut appended = OpenOptions::new().append(true).open(cluster.path("appended")).unwrap();
    appended.write_all(&pattern(50_000, 100)).unwrap();
    let holder = Child::start("posix-wait 0 0", &cluster.path("locked"));
    assert_eq!(holder.says(SLACK).as_deref(), Some("done"));
    let waiter = Child::start("posix-wait 5 1", &other.join("locked"));
    assert!(waiter.is_waiting(), "a lock does not reach the other client");

    let killed = now();
    cluster.kill_mount();
    // Whatever the dead one held, it holds it for a lease at most; each of these may have to wait for that.
    fs::write(other.join("beside"), pattern(0, 100_000)).unwrap();
    fs::write(other.join("dirty"), "mine").unwrap();
    fs::rename(other.join("synced-0"), other.join("renamed")).unwrap();
    assert_eq!(waiter.says(LEASE + SLACK).as_deref(), Some("done"), "the lock of a dead client stays");
    println!("all went on {:?} after the kill", killed.elapsed());
    assert!(killed.elapsed() < LEASE + SLACK, "the others waited {:?}", killed.elapsed());
    for (name, length) in &synced {
        let name = if name == "synced-0" { "renamed" } else { name };
        assert!(fs::read(other.join(name)).unwrap() == pattern(3, *length), "{name} was fsynced");
    }
    let bytes = fs::read(other.join("appended")).unwrap();
    assert!(bytes.starts_with(&pattern(0, 50_000)), "the synced beginning of a dirty file");
    assert!(bytes == pattern(0, bytes.len()) && bytes.len() <= 50_100, "{} bytes", bytes.len());
    assert_eq!(fs::read_to_string(other.join("dirty")).unwrap(), "mine");
    // The names `beside` and `dirty` are all that came.
    let freed = || used(&other).0 <= before.0 + 2;
    assert!(soon(LEASE + SLACK, freed), "orphans stay: {before:?} {:?}", used(&other));
    drop((orphans, dirty, appended, holder, waiter));
    Run::new("umount").arg(cluster.mnt()).limit(20).ok();
    cluster.up();
    assert_eq!(fs::read_to_string(cluster.path("dirty")).unwrap(), "mine");
    cluster.finish();
}

/// An open file whose name is gone.
fn orphan(path: &Path) -> File {
    let mut file = OpenOptions::new().create_new(true).read(true).write(true).open(path).unwrap();
    file.write_all(&pattern(9, ORPHAN_BYTES)).unwrap();
    file.sync_all().unwrap();
    fs::remove_file(path).unwrap();
    file
}

/// Inodes and file system blocks in use.
fn used(mnt: &Path) -> (u64, u64) {
    let figures = rustix::fs::statvfs(mnt).unwrap();
    (figures.f_files - figures.f_ffree, figures.f_blocks - figures.f_bfree)
}
