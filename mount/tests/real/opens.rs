//! Opens for reading that the server is told of only when it matters.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::time::Duration;

use crate::ahead::make;
use crate::files::pattern;
use crate::harness::{Cluster, Transport, soon};

both!(cost_no_requests, survive_removals, survive_a_restart, end_with_the_last);

/// Content of a file of this number: small ones and such as have blocks.
fn content(number: usize) -> Vec<u8> {
    pattern(number as u64, if number.is_multiple_of(2) { 5_000 } else { 200_000 })
}

fn rest(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn cost_no_requests(transport: Transport) {
    let cluster = Cluster::start(transport);
    make(&cluster.path("d"), 100, content);
    cluster.remount();
    let count = || {
        ["open", "close", "lookup", "lookuptoopen", "readahead", "readlayout"]
            .map(|kind| cluster.requests(kind))
    };
    let before = count();
    for number in 0..100 {
        assert!(fs::read(cluster.path(format!("d/{number}"))).unwrap() == content(number));
    }
    let mut spent = count();
    spent.iter_mut().zip(before).for_each(|(after, before)| *after -= before);
    let [open, close, lookup, to_open, ahead, layout] = spent;
    println!(
        "100 files read cold: {open} Open, {close} Close, {lookup} + {to_open} Lookup, {ahead} ReadAhead, {layout} ReadLayout"
    );
    assert!(open + close <= 2 && layout <= 5, "opens are told, or layouts asked for");
    assert!(lookup + to_open + ahead <= 30 && ahead >= 1, "layouts do not come ahead of the look-ups");
    // Who only looks gets no layouts after a while.
    cluster.remount();
    let before = cluster.requests("lookuptoopen");
    for number in 0..100 {
        fs::metadata(cluster.path(format!("d/{number}"))).unwrap();
    }
    assert!(cluster.requests("lookuptoopen") - before <= 5);
    cluster.finish();
}

/// What is open stays readable whoever takes its name, and however.
fn survive_removals(transport: Transport) {
    let cluster = Cluster::start(transport);
    let other = cluster.second_mount();
    make(&other.join("theirs"), 12, content);
    make(&cluster.path("ours"), 12, content);
    for folder in ["theirs", "ours"] {
        let path = |number: usize| cluster.path(folder).join(number.to_string());
        // Looked at first: there is a lease then, and the open is noted here only.
        let open = |number: usize| {
            fs::metadata(path(number)).unwrap();
            File::open(path(number)).unwrap()
        };
        let mut files: Vec<File> = (0..12).map(open).collect();
        for number in 0..4 {
            fs::remove_file(other.join(folder).join(number.to_string())).unwrap();
        }
        for number in 4..8 {
            fs::remove_file(path(number)).unwrap();
        }
        fs::rename(path(8), path(9)).unwrap();
        fs::rename(other.join(folder).join("10"), other.join(folder).join("11")).unwrap();
        // Past what the kernel and this client keep.
        fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
        for (number, file) in files.iter_mut().enumerate() {
            assert!(rest(file) == content(number), "{folder}/{number} is not what was opened");
        }
    }
    cluster.finish();
}

fn survive_a_restart(transport: Transport) {
    let cluster = Cluster::start(transport);
    let other = cluster.second_mount();
    make(&other.join("d"), 6, content);
    let mut files: Vec<File> = (0..6)
        .map(|number| {
            fs::metadata(cluster.path(format!("d/{number}"))).unwrap();
            File::open(cluster.path(format!("d/{number}"))).unwrap()
        })
        .collect();
    cluster.kill_meta();
    cluster.restart();
    for number in 0..6 {
        let mnt = if number < 3 { other.clone() } else { cluster.mnt().to_owned() };
        fs::remove_file(mnt.join(format!("d/{number}"))).unwrap();
    }
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    for (number, file) in files.iter_mut().enumerate() {
        assert!(rest(file) == content(number), "d/{number} is not what was opened");
    }
    cluster.finish();
}

/// An inode that lost its name goes when it is closed, whether its open was told or not.
fn end_with_the_last(transport: Transport) {
    let cluster = Cluster::start(transport);
    let other = cluster.second_mount();
    make(&other.join("d"), 20, content);
    let files: Vec<File> = (0..20)
        .map(|number| {
            fs::metadata(cluster.path(format!("d/{number}"))).unwrap();
            File::open(cluster.path(format!("d/{number}"))).unwrap()
        })
        .collect();
    for number in 0..20 {
        let mnt = if number < 10 { other.clone() } else { cluster.mnt().to_owned() };
        fs::remove_file(mnt.join(format!("d/{number}"))).unwrap();
    }
    let orphans = || cluster.metric("flexfs_meta_orphans");
    assert!(soon(Duration::from_secs(5), || orphans() >= 20.0), "{} orphans", orphans());
    drop(files);
    assert!(soon(Duration::from_secs(10), || orphans() < 1.0), "{} orphans stay", orphans());
    cluster.finish();
}
