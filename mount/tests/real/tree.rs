//! A source tree of more than ten thousand files: unpacked, compared, mounted anew, servers restarted, compared again.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Cluster, Run, Transport, cargo_sources};

/// Files of the whole tree: the least a real source tree of this test may have.
const FILES: usize = 10_500;
/// Files of the small tree.
const FILES_SMALL: usize = 2_000;
/// Crates larger than this are left out, bytes: their data tables make the test slow and no better.
const CRATE_BYTES_MAX: u64 = 12 << 20;

both!(unpack_and_compare);

fn unpack_and_compare(transport: Transport) {
    let wanted = transport.scale(FILES, FILES_SMALL);
    let cluster = Cluster::start(transport);
    let source = cluster.root().join("source");
    let count = collect(&source, wanted);
    assert!(count >= wanted, "only {count} files in cargo's sources");
    let target = cluster.path("tree");
    fs::create_dir(&target).unwrap();
    Run::shell("tar -C \"$1\" --format=posix -cf - . | tar -C \"$2\" -xf -", &[&source, &target])
        .limit(300)
        .ok();
    compare(&source, &target);
    cluster.remount();
    compare(&source, &target);
    cluster.down();
    cluster.verify();
    cluster.up();
    compare(&source, &target);
    Run::new("rm").arg("-rf").arg(&target).limit(300).ok();
    assert_eq!(fs::read_dir(cluster.mnt()).unwrap().count(), 0, "rm -rf leaves something");
    cluster.finish();
}

/// Hard-links whole crates into `target` until there are enough files; how many there are.
fn collect(target: &Path, wanted: usize) -> usize {
    let mut crates: Vec<PathBuf> =
        fs::read_dir(cargo_sources()).unwrap().map(|entry| entry.unwrap().path()).collect();
    crates.sort();
    fs::create_dir(target).unwrap();
    let mut count = 0;
    for folder in crates {
        let (files, bytes) = measure(&folder);
        if bytes > CRATE_BYTES_MAX {
            continue;
        }
        Run::new("cp").arg("-a").arg(&folder).arg(target).ok();
        count += files;
        if count >= wanted {
            break;
        }
    }
    count
}

fn measure(folder: &Path) -> (usize, u64) {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()).fold((0, 0), |(files, bytes), entry| {
        let meta = entry.metadata().unwrap();
        if meta.is_dir() {
            let (inner_files, inner_bytes) = measure(&entry.path());
            (files + inner_files, bytes + inner_bytes)
        } else {
            (files + 1, bytes + meta.len())
        }
    })
}

/// Content by `diff -r` (which calls any two FIFOs different); kinds, modes, owners, link targets and times by `find`.
pub(crate) fn compare(source: &Path, target: &Path) {
    Run::new("diff")
        .args(["-r", "--no-dereference", "--exclude=fifo"])
        .arg(source)
        .arg(target)
        .limit(300)
        .ok();
    let list = |place: &str| {
        format!(
            "find \"{place}\" -mindepth 1 '(' -type d -printf '%P %y %m %U %G %T@\\n' -o \
             -printf '%P %y %m %U %G %l %s %T@ %n\\n' ')' | sort"
        )
    };
    let list = format!("diff <({}) <({})", list("$1"), list("$2"));
    Run::shell(&list, &[source, target]).limit(120).ok();
}
