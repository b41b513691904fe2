//! Answers written into an entry's payload, one for each form.

use std::hint::black_box;

use criterion::Criterion;
use flexfs_mount::fuse::reply;
use flexfs_mount::vfs::{Opened, ValidFor};
use flexfs_wire::errno::Errno;
use flexfs_wire::message::{Lock, LockFamily, LockKind, StatFs};

use crate::answer;

/// Lines of a listing.
const LISTED: u64 = 100;

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("reply");
    let mut out = vec![0; 128 << 10];
    let mut bench = |name: &str, write: &dyn Fn(&mut [u8]) -> Result<usize, Errno>| {
        assert!(write(&mut out).is_ok(), "{name}");
        group.bench_function(name, |b| b.iter(|| write(black_box(&mut out))));
    };
    let (found, valid) = (answer::found(42), ValidFor::LEASE);
    let opened = Opened { fh: 3, keep_cache: true, direct: false, passed: None };
    let lock =
        Lock { family: LockFamily::Posix, kind: LockKind::Write, owner: 9, pid: 77, start: 0, end: u64::MAX };
    let figures =
        StatFs { bytes_total: 1 << 50, bytes_free: 1 << 49, inodes_total: 1 << 30, inodes_free: 1 << 29 };
    let (short, long) = (vec![7; 30], vec![7; 64 << 10]);
    let items = answer::items(LISTED);
    bench("entry", &|out| reply::entry(out, black_box(&found)));
    bench("created", &|out| reply::created(out, black_box(&found), &opened));
    bench("opened", &|out| reply::opened(out, black_box(&opened)));
    bench("opened-dir", &|out| reply::opened_dir(out));
    bench("attr", &|out| reply::attr(out, black_box(&found.attr), valid));
    bench("statx", &|out| reply::statx(out, black_box(&found.attr), valid));
    bench("readlink", &|out| reply::bytes(out, black_box(&short)));
    bench("xattr-size", &|out| reply::xattr(out, black_box(&short), 0));
    bench("xattr-64k", &|out| reply::xattr(out, black_box(&long), long.len()));
    bench("written", &|out| reply::written(out, black_box(4_096)));
    bench("copied", &|out| reply::copied(out, black_box(4_096)));
    bench("position", &|out| reply::position(out, black_box(4_096)));
    bench("lock", &|out| reply::lock(out, black_box(&lock)));
    bench("statfs", &|out| reply::statfs(out, black_box(&figures)));
    for (name, plus) in [("readdir-100", false), ("readdirplus-100", true)] {
        let list = |out: &mut [u8]| {
            items
                .iter()
                .try_fold(0, |filled, item| reply::dir_item(out, filled, item, plus))
                .ok_or(Errno::EINVAL)
        };
        bench(name, &list);
    }
    group.finish();
}
