//! Large directories.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use crate::harness::{Cluster, Options, Transport, now};

both!(directory);

fn directory(transport: Transport) {
    fill_and_read(Cluster::start(transport), transport.scale(20_000, 5_000));
}

#[test]
#[ignore = "an hour: cargo nextest run -p flexfs-mount --profile mount --run-ignored only -E 'test(million)'"]
fn million_entries() {
    let options = Options { transport: Transport::Uring, flags: Vec::new(), state: None };
    fill_and_read(Cluster::with_life(options, Duration::from_secs(3600)), 1_000_000);
}

fn fill_and_read(cluster: Cluster, count: usize) {
    let folder = cluster.path("large");
    fs::create_dir(&folder).unwrap();
    let took = |what: &str, work: &mut dyn FnMut()| {
        let start = now();
        work();
        println!("{what} of {count}: {:?}", start.elapsed());
        start.elapsed()
    };
    took("create", &mut || {
        for index in 0..count {
            File::create(folder.join(name(index))).unwrap();
        }
    });
    took("list", &mut || check(&folder, count));
    cluster.remount();
    took("list anew", &mut || check(&folder, count));
    // One name among many costs what one among few does.
    let one = took("look up 100", &mut || {
        for index in (0..count).step_by(count / 100) {
            assert!(fs::metadata(folder.join(name(index))).unwrap().is_file());
        }
    });
    assert!(one < Duration::from_secs(5), "lookups take {one:?}");
    assert!(fs::metadata(folder.join("absent")).is_err());
    took("remove", &mut || {
        for index in 0..count {
            fs::remove_file(folder.join(name(index))).unwrap();
        }
    });
    fs::remove_dir(&folder).unwrap();
    cluster.finish();
}

fn name(index: usize) -> String {
    format!("entry-{index:08}")
}

fn check(folder: &Path, count: usize) {
    let mut seen = vec![false; count];
    for entry in fs::read_dir(folder).unwrap() {
        let text = entry.unwrap().file_name().into_string().unwrap();
        let index: usize = text.strip_prefix("entry-").unwrap().parse().unwrap();
        assert!(!std::mem::replace(&mut seen[index], true), "{text} twice");
    }
    assert!(seen.iter().all(|seen| *seen), "entries are missing");
}
