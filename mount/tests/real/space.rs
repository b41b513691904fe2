//! Allocation: fallocate, holes, sparse files, copies without data.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::time::Duration;

use rustix::fs::{FallocateFlags, SeekFrom, copy_file_range, fallocate, seek};
use rustix::io::Errno;

use crate::files::pattern;
use crate::harness::{Cluster, Run, Transport, now};

both!(allocation, holes, sparse, copies);

fn open(cluster: &Cluster, name: &str) -> File {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).open(cluster.path(name)).unwrap()
}

fn allocation(transport: Transport) {
    let cluster = Cluster::start(transport);
    let file = open(&cluster, "file");
    let size = || file.metadata().unwrap().len();
    fallocate(&file, FallocateFlags::empty(), 0, 1 << 20).unwrap();
    assert_eq!((size(), file.metadata().unwrap().blocks()), (1 << 20, 2048));
    fallocate(&file, FallocateFlags::KEEP_SIZE, 1 << 20, 1 << 20).unwrap();
    assert_eq!(size(), 1 << 20);
    let mut bytes = vec![1; 1 << 20];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0), "allocated space reads as zeros");
    file.write_all_at(&pattern(0, 300_000), 0).unwrap();
    fallocate(&file, FallocateFlags::ZERO_RANGE, 100_000, 50_000).unwrap();
    let mut wanted = pattern(0, 300_000);
    wanted[100_000..150_000].fill(0);
    let check = |wanted: &[u8]| {
        let mut found = vec![0; wanted.len()];
        file.read_exact_at(&mut found, 0).unwrap();
        assert!(found == wanted, "content differs");
    };
    check(&wanted);
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    for (offset, length) in [(1, 10), (65_536, 131_072), (200_000, 100_000), (0, 4096)] {
        fallocate(&file, punch, offset as u64, length as u64).unwrap();
        wanted[offset..offset + length].fill(0);
        check(&wanted);
    }
    assert_eq!(size(), 1 << 20);
    // Past the end it changes nothing; without keep-size the kernel refuses it.
    fallocate(&file, punch, 2 << 20, 4096).unwrap();
    assert_eq!(fallocate(&file, FallocateFlags::PUNCH_HOLE, 0, 10), Err(Errno::OPNOTSUPP));
    for refused in
        [FallocateFlags::COLLAPSE_RANGE, FallocateFlags::INSERT_RANGE, FallocateFlags::UNSHARE_RANGE]
    {
        assert_eq!(fallocate(&file, refused, 0, 4096), Err(Errno::OPNOTSUPP), "{refused:?}");
    }
    let zero_and_keep = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, zero_and_keep, (1 << 20) - 4096, 8192).unwrap();
    assert_eq!(size(), 1 << 20);
    assert_eq!(fallocate(&file, FallocateFlags::empty(), 0, 0), Err(Errno::INVAL));
    assert_eq!(fallocate(&file, FallocateFlags::empty(), i64::MAX as u64 - 10, 10), Err(Errno::FBIG));
    let reader = File::open(cluster.path("file")).unwrap();
    assert_eq!(fallocate(&reader, FallocateFlags::empty(), 0, 4096), Err(Errno::BADF));
    drop(reader);
    file.sync_all().unwrap();
    drop(file);
    cluster.remount();
    let found = fs::read(cluster.path("file")).unwrap();
    assert_eq!((found.len(), &found[..300_000] == wanted.as_slice()), (1 << 20, true));
    // Small files live inline: the same must hold there.
    let file = open(&cluster, "small");
    file.write_all_at(&pattern(0, 9_000), 0).unwrap();
    fallocate(&file, punch, 1_000, 3_000).unwrap();
    fallocate(&file, FallocateFlags::empty(), 8_000, 4_000).unwrap();
    let mut wanted = pattern(0, 9_000);
    wanted[1_000..4_000].fill(0);
    wanted.resize(12_000, 0);
    drop(file);
    assert!(fs::read(cluster.path("small")).unwrap() == wanted);
    cluster.finish();
}

fn holes(transport: Transport) {
    let cluster = Cluster::start(transport);
    let file = open(&cluster, "file");
    file.write_all_at(&pattern(0, 1 << 20), 4 << 20).unwrap();
    file.write_all_at(&pattern(0, 100_000), 20 << 20).unwrap();
    file.set_len(32 << 20).unwrap();
    let data = |from: u64| seek(&file, SeekFrom::Data(from));
    let hole = |from: u64| seek(&file, SeekFrom::Hole(from));
    // lseek(2) lets a file system round data outward; a hole it shows must be one.
    let first = data(0).unwrap();
    assert!(((4 << 20) - 65_536..=4 << 20).contains(&first), "first data at {first}");
    let end = hole(4 << 20).unwrap();
    assert!(((5 << 20)..=(5 << 20) + 65_536).contains(&end), "first hole behind it at {end}");
    let second = data(end).unwrap();
    assert!(((20 << 20) - 65_536..=20 << 20).contains(&second), "second data at {second}");
    assert!(hole(0).unwrap() == 0);
    assert_eq!(data(31 << 20), Err(Errno::NXIO));
    assert_eq!(data(32 << 20), Err(Errno::NXIO));
    assert_eq!(hole(31 << 20), Ok(31 << 20));
    assert_eq!(hole(33 << 20), Err(Errno::NXIO));
    // Who believes in the holes copies the file right.
    Run::new("cp").args(["--sparse=always"]).arg(cluster.path("file")).arg(cluster.path("copy")).ok();
    Run::new("cmp").arg(cluster.path("file")).arg(cluster.path("copy")).ok();
    let blocks = fs::metadata(cluster.path("copy")).unwrap().blocks();
    assert!(blocks < (3 << 20) / 512, "the copy takes {blocks} blocks");
    drop(file);
    cluster.finish();
}

/// One TiB with a few bytes in it: nothing may depend on the size of the hole.
fn sparse(transport: Transport) {
    let cluster = Cluster::start(transport);
    let started = now();
    let file = open(&cluster, "file");
    let size = 1u64 << 40;
    file.set_len(size).unwrap();
    let places = [0, 1, (1 << 32) - 3, (1 << 39) + 12_345, size - 100_000];
    for place in places {
        file.write_all_at(&pattern(place, 50_000), place).unwrap();
    }
    file.sync_all().unwrap();
    drop(file);
    cluster.remount();
    let file = open(&cluster, "file");
    assert_eq!(file.metadata().unwrap().len(), size);
    assert!(file.metadata().unwrap().blocks() < 10_000);
    for place in &places[1..] {
        let mut found = vec![1; 50_100];
        let length = file.read_at(&mut found, *place).unwrap();
        assert!(length >= 50_000 && found[..50_000] == pattern(*place, 50_000), "at {place}");
        assert!(found[50_000..length].iter().all(|byte| *byte == 0), "behind {place}");
    }
    let (found, wanted) = (seek(&file, SeekFrom::Data(1 << 30)).unwrap(), (1u64 << 32) - 3);
    assert!((wanted / 65_536 * 65_536..=wanted).contains(&found), "data at {found}");
    // Punching most of it away and cutting it off takes no time that grows with it.
    fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 1 << 20, size - (2 << 20))
        .unwrap();
    assert_eq!(seek(&file, SeekFrom::Data(1 << 20)).map(|at| at >= size - (2 << 20)), Ok(true));
    file.set_len(10).unwrap();
    file.set_len(size).unwrap();
    assert_eq!(seek(&file, SeekFrom::Data(65_536)), Err(Errno::NXIO));
    drop(file);
    assert!(started.elapsed() < Duration::from_secs(60), "took {:?}", started.elapsed());
    cluster.finish();
}

fn copies(transport: Transport) {
    let cluster = Cluster::start(transport);
    let (source, target) = (open(&cluster, "source"), open(&cluster, "target"));
    source.write_all_at(&pattern(0, 9 << 20), 0).unwrap();
    let copy = |from: u64, to: u64, length: usize| {
        let (mut from, mut to, mut left) = (from, to, length);
        while left > 0 {
            let copied = copy_file_range(&source, Some(&mut from), &target, Some(&mut to), left).unwrap();
            assert!(copied > 0, "copy_file_range stops with {left} bytes left");
            left -= copied;
        }
    };
    copy(0, 0, 9 << 20);
    copy(123, (9 << 20) + 77, 200_000);
    copy(1 << 20, 4_000_000, 5);
    let mut wanted = pattern(0, 9 << 20);
    wanted.resize((9 << 20) + 77, 0);
    wanted.extend(pattern(123, 200_000));
    wanted[4_000_000..4_000_005].copy_from_slice(&pattern(1 << 20, 5));
    assert!(fs::read(cluster.path("target")).unwrap() == wanted);
    // The copy stays what it is when the original changes.
    source.write_all_at(&vec![0xee; 9 << 20], 0).unwrap();
    source.sync_all().unwrap();
    assert!(fs::read(cluster.path("target")).unwrap() == wanted);
    drop((source, target));
    fs::remove_file(cluster.path("source")).unwrap();
    cluster.remount();
    assert!(fs::read(cluster.path("target")).unwrap() == wanted);
    // Within one file; inline to inline.
    let file = open(&cluster, "small");
    file.write_all_at(b"0123456789", 0).unwrap();
    let (mut from, mut to) = (0, 100);
    assert_eq!(copy_file_range(&file, Some(&mut from), &file, Some(&mut to), 10), Ok(10));
    let (mut from, mut to) = (0, 5);
    assert_eq!(copy_file_range(&file, Some(&mut from), &file, Some(&mut to), 10), Err(Errno::INVAL));
    drop(file);
    let found = fs::read(cluster.path("small")).unwrap();
    assert_eq!((found.len(), &found[100..]), (110, &b"0123456789"[..]));
    cluster.finish();
}
