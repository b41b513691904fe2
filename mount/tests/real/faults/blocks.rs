//! Blocks that the server's disk has lost or changed: who reads them is told, and nobody else is troubled.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::SLACK;
use crate::harness::{Cluster, Random, Run, Transport, soon};
use crate::names::code;

both!(damaged, lost, folder_away);

/// Size of a file, three blocks and a bit.
const BYTES: usize = 13 << 20;
/// No segment fails.
const WHOLE: [usize; 0] = [];
/// Bytes of one read, which is the unit of damage too: a segment.
const STEP: usize = 64 << 10;

/// Bytes that compress to nothing less: a block's file is about as long as its content.
fn noise(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes: Vec<u8> = (0..BYTES / 8).flat_map(|_| random.next().to_le_bytes()).collect();
    bytes.truncate(BYTES);
    bytes
}

/// Files of blocks on the server's disk, with their sizes.
fn blocks(cluster: &Cluster) -> Vec<(PathBuf, u64)> {
    let script = "find \"$1\" -type f -path '*/blocks/*' -printf '%s %p\\n'";
    let found = Run::shell(script, &[&cluster.state().join("meta")]).ok().out;
    let block = |line: &str| {
        let (size, path) = line.split_once(' ')?;
        Some((path.into(), size.parse().ok()?))
    };
    found.lines().filter_map(block).collect()
}

fn write(cluster: &Cluster, name: &str, bytes: &[u8]) {
    let mut file = File::create(cluster.path(name)).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

/// Reads a file segment by segment: which of them fail, all with EIO. The others are right.
fn failing(path: &Path, wanted: &[u8]) -> Vec<usize> {
    let file = File::open(path).unwrap();
    let mut failed = Vec::new();
    for (index, wanted) in wanted.chunks(STEP).enumerate() {
        let mut bytes = vec![0; wanted.len()];
        match file.read_exact_at(&mut bytes, (index * STEP) as u64) {
            Ok(()) => assert!(bytes == wanted, "segment {index} has other content, and no error"),
            Err(error) => {
                assert_eq!(Errno::from_io_error(&error), Some(Errno::IO), "{error}");
                failed.push(index);
            }
        }
    }
    failed
}

/// A line of the client's log names the inode and the block.
fn assert_named(cluster: &Cluster, mnt: &Path, name: &str, block: &Path) {
    let ino = fs::metadata(mnt.join(name)).unwrap().ino();
    let block = u64::from_str_radix(block.file_name().unwrap().to_str().unwrap(), 16).unwrap();
    let names = |line: &str| {
        let is =
            |field: &str, value: u64| line.split([' ', ',']).any(|word| word == format!("{field}={value}"));
        line.contains(" ERROR ") && is("ino", ino) && is("block", block)
    };
    let named = || cluster.log_of(mnt).lines().any(names);
    assert!(soon(SLACK, named), "no line names ino={ino} block={block}: {}", cluster.log_of(mnt));
}

/// One byte of one block is another one.
fn damaged(transport: Transport) {
    let cluster = super::cluster(transport);
    let (big, other) = (noise(1), noise(2));
    write(&cluster, "big", &big);
    let of_big = blocks(&cluster);
    write(&cluster, "other", &other);
    let (block, size) = of_big.iter().max_by_key(|(_, size)| *size).unwrap();
    let file = File::options().read(true).write(true).open(block).unwrap();
    let at = size * 3 / 5;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
    // A client that has none of it in its memory.
    let mnt = cluster.second_mount();
    let failed = failing(&mnt.join("big"), &big);
    assert_eq!(failed.len(), 1, "one segment is damaged, these fail: {failed:?}");
    assert_named(&cluster, &mnt, "big", block);
    assert_eq!(failing(&mnt.join("other"), &other), WHOLE);
    // Written anew it is whole again.
    let at = failed[0] * STEP;
    let file = File::options().write(true).open(mnt.join("big")).unwrap();
    file.write_all_at(&big[at..at + STEP], at as u64).unwrap();
    file.sync_all().unwrap();
    drop(file);
    assert_eq!(failing(&mnt.join("big"), &big), WHOLE);
    cluster.finish();
}

/// One block's file is not there any more.
fn lost(transport: Transport) {
    let cluster = super::cluster(transport);
    let (big, other) = (noise(3), noise(4));
    write(&cluster, "big", &big);
    let of_big = blocks(&cluster);
    write(&cluster, "other", &other);
    let (block, size) = of_big.iter().max_by_key(|(_, size)| *size).unwrap();
    let aside = cluster.root().join("aside");
    Run::new("mv").arg(block).arg(&aside).ok();
    let mnt = cluster.second_mount();
    let failed = failing(&mnt.join("big"), &big);
    let segments = usize::try_from(size.div_ceil(STEP as u64)).unwrap();
    assert!(
        failed.len().abs_diff(segments) <= 1 && !failed.is_empty(),
        "{segments} are lost, these fail: {failed:?}"
    );
    assert_eq!(failed.len(), failed[failed.len() - 1] + 1 - failed[0], "in one piece: {failed:?}");
    assert_named(&cluster, &mnt, "big", block);
    assert_eq!(failing(&mnt.join("other"), &other), WHOLE);
    // The operator has found it.
    Run::new("mv").arg(&aside).arg(block).ok();
    assert_eq!(failing(&mnt.join("big"), &big), WHOLE);
    cluster.finish();
}

/// The whole folder is not there: names, small files and what clients have in memory go on, writers are told.
fn folder_away(transport: Transport) {
    let cluster = super::cluster(transport);
    let big = noise(5);
    write(&cluster, "big", &big);
    write(&cluster, "small", b"inline");
    let (block, _) = blocks(&cluster).remove(0);
    let folder = block.ancestors().nth(2).unwrap();
    let aside = folder.with_extension("aside");
    fs::rename(folder, &aside).unwrap();
    let mnt = cluster.second_mount();
    let failed = failing(&mnt.join("big"), &big);
    assert_eq!(failed.len(), BYTES / STEP, "all of it is away");
    assert_named(&cluster, &mnt, "big", &block);
    assert_eq!(fs::read_to_string(mnt.join("small")).unwrap(), "inline");
    fs::write(mnt.join("small-2"), "inline too").unwrap();
    fs::rename(mnt.join("small-2"), mnt.join("small-3")).unwrap();
    let mut file = File::create(mnt.join("refused")).unwrap();
    let refused = file.write_all(&big).and_then(|()| file.sync_all());
    assert_eq!(code(refused), Errno::IO);
    drop(file);
    // What came into its place meanwhile goes.
    Run::new("rm").arg("-rf").arg(folder).ok();
    fs::rename(&aside, folder).unwrap();
    assert_eq!(failing(&mnt.join("big"), &big), WHOLE);
    let heals = || {
        let mut file = File::create(mnt.join("again")).unwrap();
        file.write_all(&big).and_then(|()| file.sync_all()).is_ok()
    };
    assert!(soon(SLACK, heals), "the folder is back and nobody can write");
    assert_eq!(failing(&cluster.path("again"), &big), WHOLE);
    cluster.finish();
}
