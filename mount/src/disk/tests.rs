//! The cache as a whole, in a folder of a test.

use std::fs;
use std::future::Future;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flexfs_uring::{Shard, ShardConfig, clock};
use flexfs_wire::block::check_stored;
use flexfs_wire::id::BlockId;
use flexfs_wire::message::Segment;
use xxhash_rust::xxh3::xxh3_64;

use super::slot::{self, HEADER_BYTES, SLOT_BYTES};
use super::{Disk, OpenError, Settings};
use crate::config::Capacity;

const VOLUME: &str = "0d4c1d2e-58d0-4e4a-9c43-93c2f7f5a111";
const MIB: u64 = 1 << 20;

fn open(folder: &Path, quota: u64) -> Arc<Disk> {
    let settings = Settings { folder: folder.to_owned(), quota: Capacity::Bytes(quota), keeps_plain: false };
    Disk::open(&settings, VOLUME, "1 /mnt").unwrap()
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let shard = Shard::new(&ShardConfig { recv_buffers: 0, ..ShardConfig::default() }).unwrap();
    shard.block_on(work)
}

/// Waits for the filler.
fn soon(what: &str, done: impl Fn() -> bool) {
    let deadline = clock::now() + Duration::from_secs(20);
    while !done() {
        assert!(clock::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What happens to a file.
type Damage = fn(&fs::File);

/// The bytes of a segment: another for each.
fn stored(block: u64, number: u32, bytes: usize) -> Vec<u8> {
    let mut state = block << 8 | u64::from(number);
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..bytes).map(next).collect()
}

fn offer(disk: &Disk, block: u64, number: u32, bytes: usize) {
    let stored = stored(block, number, bytes);
    let length = u32::try_from(bytes).unwrap();
    let segment = Segment { stored_bytes: length, raw_bytes: length, codec: 0, check: xxh3_64(&stored) };
    disk.offer(BlockId(block), number, &segment, &stored);
}

/// Offers whole segments, and waits until they are there.
fn put(disk: &Disk, block: u64, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        let before = disk.figures();
        offer(disk, block, number, 65_536);
        soon("added", || disk.figures().added > before.added);
    }
}

/// Which of the segments are there and right; those that are not what they say are refused, as the store does.
fn read(disk: &Disk, block: u64, first: u32, count: usize) -> Vec<bool> {
    let pieces = run(disk.read(BlockId(block), first, count));
    let check = |(number, piece): (u32, Option<super::cache::Piece>)| {
        let Some(piece) = piece else { return false };
        match check_stored(&piece.segment, piece.stored()) {
            Ok(()) => {
                assert_eq!(piece.stored(), stored(block, number, 65_536), "another segment's bytes");
                disk.accept(piece);
                true
            }
            Err(error) => {
                disk.refuse(BlockId(block), number, piece, &error);
                false
            }
        }
    };
    (first..).zip(pieces).map(check).collect()
}

fn file(folder: &Path, block: u64) -> PathBuf {
    folder.join(VOLUME).join(format!("{block:016x}"))
}

/// Bytes that the folder takes.
fn du(folder: &Path) -> u64 {
    let files = fs::read_dir(folder.join(VOLUME)).unwrap();
    files.map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512).sum()
}

#[test]
fn what_came_is_read_again_after_a_restart_too() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path(), 64 * MIB);
    assert_eq!(read(&disk, 7, 0, 2), [false, false]);
    put(&disk, 7, [1, 2, 5, 127]);
    assert_eq!(read(&disk, 7, 0, 4), [false, true, true, false]);
    assert_eq!(read(&disk, 7, 127, 1), [true]);
    assert_eq!(disk.figures().hits, 3);
    assert!(fs::metadata(file(folder.path(), 7)).unwrap().mode() & 0o777 == 0o600);
    drop(disk);
    let disk = open(folder.path(), 64 * MIB);
    soon("the scan", || disk.figures().state == "on");
    assert_eq!(read(&disk, 7, 0, 6), [false, true, true, false, false, true]);
    let figures = disk.figures();
    assert_eq!((figures.blocks, figures.damaged), (1, 0));
    assert!(figures.held_bytes >= du(folder.path()), "{figures:?}");
}

#[test]
fn the_quota_holds_and_the_coldest_goes() {
    let folder = tempfile::tempdir().unwrap();
    let quota = 20 * MIB;
    let disk = open(folder.path(), quota);
    for block in 0..64 {
        put(&disk, block, 0..16);
        assert_eq!(read(&disk, 0, 0, 1), [true], "always used, never evicted");
        assert!(disk.figures().held_bytes <= quota && du(folder.path()) <= quota);
    }
    let figures = disk.figures();
    assert!(figures.evicted > 40 && figures.held_bytes > quota / 2, "{figures:?}");
    assert_eq!(read(&disk, 63, 0, 16), [true; 16]);
    drop(disk);
    // Another quota the next time: what is beyond it goes at once.
    fs::write(folder.path().join(VOLUME).join("not ours"), "").unwrap();
    let disk = open(folder.path(), quota);
    put(&disk, 100, 0..16);
    soon("the scan", || disk.figures().state == "on");
    assert!(disk.figures().held_bytes <= quota && du(folder.path()) <= quota);
    assert!(folder.path().join(VOLUME).join("not ours").exists());
}

#[test]
fn damaged_pieces_are_dropped_with_their_block() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path(), 64 * MIB);
    let damage: [(&str, Damage); 5] = [
        ("a stored byte", |file| flip(file, HEADER_BYTES as u64 + 1000)),
        ("the header", |file| flip(file, 20)),
        ("cut in the bytes", |file| file.set_len(40_000).unwrap()),
        ("cut in the header", |file| file.set_len(10).unwrap()),
        ("another slot", |file| {
            let mut slot = vec![0; SLOT_BYTES];
            let read = file.read_at(&mut slot, slot::offset(1)).unwrap();
            file.write_all_at(&slot[..read], 0).unwrap();
        }),
    ];
    for (block, (what, damage)) in (10..).zip(damage) {
        put(&disk, block, [0, 1]);
        let path = file(folder.path(), block);
        damage(&fs::File::options().read(true).write(true).open(&path).unwrap());
        let before = disk.figures().damaged;
        assert_eq!(read(&disk, block, 0, 1), [false], "{what}");
        assert_eq!(disk.figures().damaged, before + 1, "{what}");
        soon(what, || !path.exists());
        put(&disk, block, [0]);
        assert_eq!(read(&disk, block, 0, 1), [true], "{what}: fetched again");
    }
}

#[test]
fn files_that_were_exchanged_give_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path(), 64 * MIB);
    put(&disk, 1, [0]);
    put(&disk, 2, [0]);
    drop(disk);
    let [one, two] = [1, 2].map(|block| file(folder.path(), block));
    let other = folder.path().join("other");
    fs::rename(&one, &other).unwrap();
    fs::rename(&two, &one).unwrap();
    fs::rename(&other, &two).unwrap();
    let disk = open(folder.path(), 64 * MIB);
    soon("the scan", || disk.figures().state == "on");
    assert_eq!([read(&disk, 1, 0, 1), read(&disk, 2, 0, 1)], [[false], [false]]);
    assert_eq!(disk.figures().damaged, 2);
}

#[test]
fn a_hole_is_not_taken_for_damage() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path(), 64 * MIB);
    put(&disk, 1, [0, 1]);
    // As a file system without holes would give back what was never written.
    let path = file(folder.path(), 1);
    fs::File::options().write(true).open(&path).unwrap().write_all_at(&[0; SLOT_BYTES], 0).unwrap();
    assert_eq!(read(&disk, 1, 0, 2), [false, true]);
    assert_eq!(disk.figures().damaged, 0);
    put(&disk, 1, [0]);
    assert_eq!(read(&disk, 1, 0, 2), [true, true]);
}

#[test]
fn a_folder_that_goes_away_is_the_end_of_the_cache_and_of_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path(), 64 * MIB);
    put(&disk, 1, [0]);
    fs::remove_dir_all(folder.path().join(VOLUME)).unwrap();
    offer(&disk, 2, 0, 65_536);
    soon("off", || disk.figures().state == "off");
    assert_eq!(read(&disk, 1, 0, 1), [false]);
    offer(&disk, 3, 0, 65_536);
}

#[test]
fn quotas_too_small_and_second_mounts_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let settings = |quota| Settings { folder: folder.path().to_owned(), quota, keeps_plain: false };
    let refused = Disk::open(&settings(Capacity::Bytes(MIB)), VOLUME, "").unwrap_err();
    assert!(matches!(refused, OpenError::Quota { .. }), "{refused}");
    let refused = Disk::open(&settings(Capacity::Bytes(64 * MIB)), "../x", "").unwrap_err();
    assert!(matches!(refused, OpenError::Volume(_)), "{refused}");
    let disk = Disk::open(&settings(Capacity::Percent(50)), VOLUME, "17 /mnt/a").unwrap();
    assert!(disk.figures().quota_bytes > 64 * MIB);
    let refused = Disk::open(&settings(Capacity::Percent(50)), VOLUME, "").unwrap_err();
    assert!(refused.to_string().contains("17 /mnt/a"), "{refused}");
}

fn flip(file: &fs::File, at: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}
