//! Entries of a directory that come before they are looked up: what that saves, and that nobody sees anything old by it.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::files::pattern;
use crate::harness::{Cluster, Run, Transport, soon};

both!(
    a_row_of_look_ups_costs_few_requests,
    small_files_come_with_their_bytes,
    changes_of_others_are_seen,
    own_changes_by_another_name_are_seen,
    nothing_old_is_shown_in_a_race
);
one!(jumps_in_a_large_directory_cost_little);

/// Requests that look-ups and reads of small files can cost.
const KINDS: [&str; 8] =
    ["lookup", "lookuptoopen", "readahead", "readdir", "getattr", "open", "close", "readlayout"];

fn spent(cluster: &Cluster) -> [u64; 8] {
    KINDS.map(|kind| cluster.requests(kind))
}

/// Requests of `work`.
fn cost(cluster: &Cluster, what: &str, work: impl FnOnce()) -> u64 {
    let before = spent(cluster);
    work();
    let mut each = spent(cluster);
    each.iter_mut().zip(before).for_each(|(after, before)| *after -= before);
    println!("{what}: {:?}", KINDS.iter().zip(each).collect::<Vec<_>>());
    each.iter().sum()
}

fn content(number: usize) -> Vec<u8> {
    pattern(number as u64, 4_096)
}

/// A folder of files with numbers for names, all at the server.
pub(crate) fn make(folder: &Path, count: usize, bytes: impl Fn(usize) -> Vec<u8>) {
    fs::create_dir(folder).unwrap();
    for number in 0..count {
        fs::write(folder.join(number.to_string()), bytes(number)).unwrap();
    }
    Run::new("sync").arg("-f").arg(folder).ok();
}

fn size(path: impl AsRef<Path>) -> u64 {
    fs::metadata(path).unwrap().len()
}

fn is_absent(path: impl AsRef<Path>) -> bool {
    fs::metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

fn a_row_of_look_ups_costs_few_requests(transport: Transport) {
    let cluster = Cluster::start(transport);
    make(&cluster.path("d"), 1_000, |number| vec![0; number]);
    let stat = |number: usize| assert_eq!(size(cluster.path("d").join(number.to_string())), number as u64);
    cluster.remount();
    let in_order = cost(&cluster, "in the order of making", || (0..1_000).for_each(stat));
    assert!(in_order <= 40, "{in_order} requests");
    cluster.remount();
    let mut sorted: Vec<usize> = (0..1_000).collect();
    sorted.sort_by_key(usize::to_string);
    let by_name = cost(&cluster, "by name", || sorted.into_iter().for_each(stat));
    assert!(by_name <= 60, "{by_name} requests");
    cluster.remount();
    let at_once = cost(&cluster, "eight at once", || {
        std::thread::scope(|scope| {
            for part in 0..8 {
                scope.spawn(move || (part * 125..(part + 1) * 125).for_each(stat));
            }
        });
    });
    assert!(at_once <= 100, "{at_once} requests");
    cluster.finish();
}

fn small_files_come_with_their_bytes(transport: Transport) {
    let cluster = Cluster::start(transport);
    make(&cluster.path("d"), 1_000, content);
    cluster.remount();
    let read = |number: usize| {
        assert!(fs::read(cluster.path("d").join(number.to_string())).unwrap() == content(number));
    };
    let all = cost(&cluster, "1,000 files read cold", || (0..1_000).for_each(read));
    assert!(all <= 60, "{all} requests");
    cluster.finish();
}

fn jumps_in_a_large_directory_cost_little(transport: Transport) {
    /// More than are read whole.
    const FILES: usize = 33_000;
    const LOOKED_AT: usize = 400;
    let cluster = Cluster::start(transport);
    let folder = cluster.path("d");
    fs::create_dir(&folder).unwrap();
    for number in 0..FILES {
        File::create(folder.join(number.to_string())).unwrap();
    }
    cluster.remount();
    size(&folder);
    let jumps = cost(&cluster, "jumps in a large directory", || {
        for step in 0..LOOKED_AT {
            size(folder.join((step * 7_919 % FILES).to_string()));
        }
    });
    assert!(jumps <= 2 * LOOKED_AT as u64, "{jumps} requests");
    // Whoever then walks through a part of it is served ahead all the same.
    let walk = cost(&cluster, "a walk in the middle", || {
        (20_000..24_000).for_each(|number| {
            size(folder.join(number.to_string()));
        });
    });
    assert!(walk <= 800, "{walk} requests");
    cluster.finish();
}

/// Looks at the first few names until more of them were brought; `read`: opens them, too.
fn warm(cluster: &Cluster, folder: &str, read: bool) {
    let before = cluster.requests("readahead");
    for number in 0..6 {
        let path = cluster.path(folder).join(number.to_string());
        if read {
            fs::read(path).unwrap();
        } else {
            size(path);
        }
    }
    assert!(soon(Duration::from_secs(5), || cluster.requests("readahead") > before), "nothing is brought");
    // It is counted when it is answered; a moment later it is here.
    std::thread::sleep(Duration::from_millis(100));
}

fn changes_of_others_are_seen(transport: Transport) {
    let cluster = Cluster::start(transport);
    let other = cluster.second_mount();
    for folder in ["looked", "read"] {
        make(&cluster.path(folder), 60, content);
    }
    // Who made them has the leases of all.
    cluster.remount();
    for (folder, read) in [("looked", false), ("read", true)] {
        let theirs = |name: &str| other.join(folder).join(name);
        let ours = |name: &str| cluster.path(folder).join(name);
        warm(&cluster, folder, read);
        // Of inodes: only they are dropped.
        fs::write(theirs("20"), b"another").unwrap();
        File::options().append(true).open(theirs("21")).unwrap().write_all(b"more").unwrap();
        fs::set_permissions(theirs("22"), Permissions::from_mode(0o600)).unwrap();
        File::options().write(true).open(theirs("23")).unwrap().set_len(10).unwrap();
        assert_eq!(size(ours("20")), 7);
        assert_eq!(fs::read(ours("20")).unwrap(), b"another");
        assert!(fs::read(ours("21")).unwrap() == [content(21), b"more".to_vec()].concat());
        assert_eq!(fs::metadata(ours("22")).unwrap().mode() & 0o777, 0o600);
        assert!(fs::read(ours("23")).unwrap() == content(23)[..10]);
        let untouched = cost(&cluster, "untouched", || {
            (30..40)
                .for_each(|number| assert!(fs::read(ours(&number.to_string())).unwrap() == content(number)));
        });
        let most = if read { 2 } else { 22 };
        assert!(untouched <= most, "what others did not touch was forgotten: {untouched} requests");
        // Of names.
        fs::remove_file(theirs("40")).unwrap();
        fs::rename(theirs("41"), theirs("moved")).unwrap();
        fs::rename(theirs("42"), theirs("43")).unwrap();
        assert!(is_absent(ours("40")) && is_absent(ours("41")) && is_absent(ours("42")));
        assert!(fs::read(ours("moved")).unwrap() == content(41));
        assert!(fs::read(ours("43")).unwrap() == content(42));
        fs::write(theirs("40"), b"new").unwrap();
        assert_eq!(fs::read(ours("40")).unwrap(), b"new");
    }
    cluster.finish();
}

/// The client is not asked for leases by its own changes.
fn own_changes_by_another_name_are_seen(transport: Transport) {
    let cluster = Cluster::start(transport);
    make(&cluster.path("d"), 60, content);
    fs::create_dir(cluster.path("e")).unwrap();
    for number in 20..28 {
        fs::hard_link(cluster.path(format!("d/{number}")), cluster.path(format!("e/{number}"))).unwrap();
    }
    cluster.remount();
    let by = |number: usize| cluster.path("e").join(number.to_string());
    let seen = |number: usize| cluster.path("d").join(number.to_string());
    warm(&cluster, "d", true);
    fs::set_permissions(by(20), Permissions::from_mode(0o600)).unwrap();
    fs::write(by(21), b"another").unwrap();
    fs::remove_file(by(22)).unwrap();
    fs::rename(by(23), cluster.path("d/24")).unwrap();
    fs::hard_link(by(25), cluster.path("e/more")).unwrap();
    fs::remove_file(seen(26)).unwrap();
    fs::rename(seen(27), seen(28)).unwrap();
    // The kernel forgets what it knew of them.
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    assert_eq!(fs::metadata(seen(20)).unwrap().mode() & 0o777, 0o600);
    assert_eq!(size(seen(21)), 7);
    assert_eq!(fs::read(seen(21)).unwrap(), b"another");
    assert_eq!(fs::metadata(seen(22)).unwrap().nlink(), 1);
    assert!(fs::read(seen(24)).unwrap() == content(23));
    assert_eq!(fs::metadata(seen(25)).unwrap().nlink(), 3);
    assert!(is_absent(seen(26)) && is_absent(seen(27)));
    assert_eq!(fs::metadata(by(26)).unwrap().nlink(), 1);
    assert!(fs::read(seen(28)).unwrap() == content(27));
    let names: BTreeSet<String> = fs::read_dir(cluster.path("d"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), 58);
    cluster.finish();
}

/// One mount changes files again and again and says what it has done; another looks at all of them in a row, cold: what was done before
/// it looked is seen.
fn nothing_old_is_shown_in_a_race(transport: Transport) {
    const FILES: usize = 300;
    let cluster = Cluster::start(transport);
    let other = cluster.second_mount();
    make(&cluster.path("d"), FILES, |_| Vec::new());
    cluster.remount();
    let done: Vec<AtomicU64> = (0..FILES).map(|_| AtomicU64::new(0)).collect();
    let (ends, looks) = (AtomicBool::new(false), transport.scale(40, 20));
    std::thread::scope(|scope| {
        let (done, ends) = (&done, &ends);
        for writer in 0..2 {
            let folder = other.join("d");
            scope.spawn(move || {
                for round in 1_u64.. {
                    for number in (writer..FILES).step_by(17) {
                        if ends.load(Ordering::SeqCst) {
                            return;
                        }
                        let path = folder.join(number.to_string());
                        if round.is_multiple_of(5) {
                            // A new file in its place.
                            let new = folder.join(format!("{number}.new"));
                            fs::write(&new, vec![1; usize::try_from(round).unwrap()]).unwrap();
                            fs::rename(new, path).unwrap();
                        } else {
                            let file = File::options().write(true).open(path).unwrap();
                            file.set_len(round).unwrap();
                        }
                        done[number].store(round, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(3));
                    }
                }
            });
        }
        let result = std::panic::catch_unwind(|| {
            for look in 0..looks {
                fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
                for (number, done) in done.iter().enumerate() {
                    let before = done.load(Ordering::SeqCst);
                    let path = cluster.path("d").join(number.to_string());
                    let seen = match look % 2 {
                        0 => size(&path),
                        _ => fs::read(&path).unwrap().len() as u64,
                    };
                    assert!(seen >= before, "file {number} is shown with {seen} bytes, it had {before}");
                }
            }
        });
        ends.store(true, Ordering::SeqCst);
        result.unwrap();
    });
    assert!(cluster.requests("readahead") > 0);
    cluster.finish();
}
