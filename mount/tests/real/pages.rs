//! Random reads of large files: pages come without the rest of their segments, and are what was written.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::Advice;
use rustix::io::Errno;

use crate::disk_cache::{MIB, noise, put};
use crate::harness::{Cluster, Random, Run, Transport};
use crate::names::code;

both!(what_comes_alone_is_right, readers_at_once);
one!(a_damaged_page_is_no_other_pages_trouble);

const SEGMENT: usize = 64 << 10;
const PAGE: usize = 4096;

/// A file opened for reads here and there, of which the kernel has nothing.
fn open(path: &Path) -> File {
    let file = File::open(path).unwrap();
    rustix::fs::fadvise(&file, 0, None, Advice::Random).unwrap();
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    file
}

/// Reads of any length at any place, some over the end.
fn read_about(file: &File, content: &[u8], seed: u64, count: usize) {
    let mut random = Random::new(seed);
    for _ in 0..count {
        let at = random.below(content.len() as u64);
        let mut bytes = vec![0; usize::try_from(random.below(3 * PAGE as u64)).unwrap() + 1];
        let got = file.read_at(&mut bytes, at).unwrap();
        let start = usize::try_from(at).unwrap();
        let end = (start + bytes.len()).min(content.len());
        assert!(bytes[..got] == content[start..end], "{got} bytes at {at}");
    }
}

/// Segments that shrink beside some that do not, and a last page that is not whole.
fn mixed(bytes: usize) -> Vec<u8> {
    let mut content = noise(5, bytes);
    for segment in content.chunks_mut(SEGMENT).step_by(3) {
        segment.fill(b'x');
    }
    content
}

fn what_comes_alone_is_right(transport: Transport) {
    let cluster = Cluster::start(transport);
    let content = mixed(21 * MIB + 4_321);
    put(&cluster, "file", &content);
    cluster.remount();
    read_about(&open(&cluster.path("file")), &content, 1, 40);
    let pages = cluster.requests("readpages");
    assert!(pages >= 20, "{pages} reads of pages");
    // Enough for whole blocks to be fetched behind it.
    read_about(&open(&cluster.path("file")), &content, 2, 2_000);
    assert!(cluster.requests("readblock") > 0);
    // Who reads on does not do it page by page.
    let pages = cluster.requests("readpages");
    cluster.remount();
    assert!(fs::read(cluster.path("file")).unwrap() == content);
    assert_eq!(cluster.requests("readpages"), pages);
    cluster.finish();
}

fn readers_at_once(transport: Transport) {
    let cluster = Cluster::start(transport);
    let content = mixed(20 * MIB + 1);
    put(&cluster, "file", &content);
    cluster.remount();
    let file = open(&cluster.path("file"));
    thread::scope(|scope| {
        for seed in 1..9 {
            let (file, content) = (&file, &content);
            scope.spawn(move || read_about(file, content, seed, 100));
        }
    });
    assert!(cluster.requests("readpages") > 200);
    drop(file);
    cluster.finish();
}

/// The block's file on the server's disk, of a volume that has one.
fn block(cluster: &Cluster) -> PathBuf {
    let script = "find \"$1\" -type f -path '*/blocks/*'";
    let found = Run::shell(script, &[&cluster.state().join("meta")]).ok().out;
    let [path] = found.lines().collect::<Vec<_>>()[..] else { panic!("{found}") };
    path.into()
}

fn a_damaged_page_is_no_other_pages_trouble(transport: Transport) {
    let cluster = Cluster::start(transport);
    let content = noise(9, 2 * MIB);
    put(&cluster, "file", &content);
    let block = block(&cluster);
    let head = usize::try_from(fs::metadata(&block).unwrap().size()).unwrap() - content.len();
    let damaged = 9 * SEGMENT + 5 * PAGE;
    let disk = File::options().read(true).write(true).open(&block).unwrap();
    let at = (head + damaged + 77) as u64;
    let mut byte = [0];
    disk.read_exact_at(&mut byte, at).unwrap();
    disk.write_all_at(&[byte[0] ^ 2], at).unwrap();
    cluster.remount();
    let file = open(&cluster.path("file"));
    let mut page = [0; PAGE];
    for beside in [damaged - PAGE, damaged + PAGE] {
        file.read_exact_at(&mut page, beside as u64).unwrap();
        assert!(page == content[beside..beside + PAGE]);
    }
    assert_eq!(cluster.requests("readblock"), 0);
    drop(file);
    let mnt = cluster.second_mount();
    let file = open(&mnt.join("file"));
    assert_eq!(code(file.read_exact_at(&mut page, damaged as u64)), Errno::IO);
    assert!(cluster.log_of(&mnt).contains("block checksum is wrong"), "{}", cluster.log_of(&mnt));
    drop(file);
    cluster.finish();
}
