//! Small files whose bytes the kernel gets when they are opened.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::ahead::make;
use crate::files::pattern;
use crate::harness::{Cluster, Transport, within};

both!(are_not_asked_for, are_what_others_wrote, lock_nobody_out);

/// Around the ends of pages, up to the largest that is inline.
const SIZES: [usize; 10] = [0, 1, 100, 4_095, 4_096, 4_097, 8_192, 10_000, 16_383, 16_384];

fn content(number: usize) -> Vec<u8> {
    pattern(number as u64, SIZES[number % SIZES.len()])
}

/// Bytes the mount gave to reads.
fn served(cluster: &Cluster) -> u64 {
    cluster.status()["requests"]["bytesRead"].as_u64().unwrap()
}

fn are_not_asked_for(transport: Transport) {
    const COUNT: usize = 100;
    let cluster = Cluster::start(transport);
    make(&cluster.path("d"), COUNT, content);
    cluster.remount();
    let total: usize = SIZES.iter().cycle().take(COUNT).sum();
    let read = |number: usize| {
        assert!(fs::read(cluster.path(format!("d/{number}"))).unwrap() == content(number), "{number}");
    };
    (0..COUNT).for_each(read);
    // Before they are read again: tests beside this one drop the kernel's caches, and what the kernel lost it asks for.
    let asked = served(&cluster);
    println!("{asked} of {total} bytes were asked for");
    // Those of the first files, before the directory is read ahead.
    assert!(asked < total as u64 / 3, "{asked} of {total} bytes were asked for");
    (0..COUNT).for_each(read);
    fs::write("/proc/sys/vm/drop_caches", "1").unwrap();
    let mut file = File::open(cluster.path("d/99")).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert!(bytes == content(99));
    drop(file);
    cluster.finish();
}

fn are_what_others_wrote(transport: Transport) {
    let cluster = Cluster::start(transport);
    let other = cluster.second_mount();
    make(&cluster.path("d"), 40, content);
    cluster.remount();
    // Of another length each time: over the end of what the kernel had, too.
    let written = |number: usize, round: usize| {
        pattern((number + 1_000 * round) as u64, SIZES[(number + round) % SIZES.len()])
    };
    for round in 0..5 {
        for number in 0..40 {
            let found = fs::read(cluster.path(format!("d/{number}"))).unwrap();
            assert!(found == written(number, round), "{number} in round {round}");
            fs::write(other.join(format!("d/{number}")), written(number, round + 1)).unwrap();
        }
    }
    cluster.finish();
}

/// Pages are locked by reads, which the threads answer that give pages: opens and reads of the same few files by many, with the kernel's pages
/// dropped all the time, and another client that writes them.
fn lock_nobody_out(transport: Transport) {
    let cluster = Cluster::start(transport);
    let other = cluster.second_mount().join("d");
    make(&cluster.path("d"), 10, content);
    cluster.remount();
    let folder = cluster.path("d");
    within(Duration::from_secs(90), "readers and a writer", move || {
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            for reader in 0..6 {
                let (folder, ended) = (&folder, &ended);
                scope.spawn(move || {
                    for number in (reader..).take_while(|_| !ended.load(Ordering::Relaxed)) {
                        let path = folder.join((number % 10).to_string());
                        let file = File::open(&path).unwrap();
                        let mut bytes = vec![0; 20_000];
                        let got = file.read_at(&mut bytes, 0).unwrap();
                        assert_eq!(got, SIZES[number % 10]);
                    }
                });
            }
            for round in 0..60 {
                fs::write("/proc/sys/vm/drop_caches", if round % 2 == 0 { "3" } else { "1" }).unwrap();
                let number = round % 10;
                let file = File::options().write(true).open(other.join(number.to_string())).unwrap();
                file.write_all_at(&pattern(round as u64, SIZES[number]), 0).unwrap();
                thread::sleep(Duration::from_millis(50));
            }
            ended.store(true, Ordering::Relaxed);
        });
    });
    for (number, bytes) in SIZES.into_iter().enumerate() {
        let last = pattern(50 + number as u64, bytes);
        assert!(fs::read(cluster.path(format!("d/{number}"))).unwrap() == last, "{number}");
    }
    cluster.finish();
}
