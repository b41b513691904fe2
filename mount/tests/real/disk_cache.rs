//! The disk cache of a mount: what it saves, and that it can be damaged, full, foreign or gone without anybody noticing.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use serde_json::Value;

use crate::encryption::encrypted;
use crate::harness::{Cluster, Options, Random, Run, Transport, soon};
use crate::names::code;
use crate::refusals::{new_token, write_creds};

both!(
    a_second_mount_asks_for_no_block,
    what_others_write_is_read,
    damage_at_rest_is_fetched_again,
    the_quota_holds,
    a_full_disk_hurts_nobody,
    an_ended_session_reads_nothing
);
one!(an_encrypted_volume_leaves_nothing_readable, one_mount_a_folder);

pub(crate) const MIB: usize = 1 << 20;

pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..bytes / 8).flat_map(|_| random.next().to_le_bytes()).collect()
}

/// A cluster whose blocks are of 4 MiB, whatever the environment says of the other tests.
pub(crate) fn cluster(transport: Transport) -> Cluster {
    Cluster::with(Options { transport, flags: vec!["--blockSize".to_owned(), "4M".to_owned()], state: None })
}

/// A mount with a disk cache, which comes and goes while its folder stays.
struct Guest<'a> {
    cluster: &'a Cluster,
    mnt: PathBuf,
    creds: PathBuf,
    folder: PathBuf,
    quota: &'static str,
}

impl<'a> Guest<'a> {
    fn new(cluster: &'a Cluster, quota: &'static str) -> Self {
        let mnt = cluster.root().join("mnt-guest");
        fs::create_dir(&mnt).unwrap();
        let folder = cluster.root().join("cache");
        let guest = Self { cluster, mnt, creds: cluster.volume_creds(), folder, quota };
        guest.up();
        guest
    }

    fn start(&self) -> Run {
        let folder = self.folder.to_str().unwrap();
        let flags = ["--diskQuota", self.quota, "--diskFolder", folder];
        self.cluster.start_mount(&self.mnt, &self.creds, &flags)
    }

    fn up(&self) {
        self.start().ok();
        self.wait_for("the scan", |disk| disk["state"] != "scanning");
    }

    fn down(&self) {
        Run::new("umount").arg(&self.mnt).limit(60).ok();
        self.cluster.wait_mount_gone(&self.mnt);
    }

    /// A new mount, which knows nothing but what is on the disk.
    fn again(&self) {
        self.down();
        self.up();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.mnt.join(name)
    }

    fn disk(&self) -> Value {
        self.cluster.status_of(&self.mnt)["disk"].clone()
    }

    fn figure(&self, name: &str) -> u64 {
        let disk = self.disk();
        disk[name].as_u64().unwrap_or_else(|| panic!("no {name} in {disk}"))
    }

    fn wait_for(&self, what: &str, done: impl Fn(&Value) -> bool) {
        assert!(soon(Duration::from_secs(20), || done(&self.disk())), "{what}: {}", self.disk());
    }

    /// Reads a file until all of it is on the disk: the filler leaves out what comes too fast for it.
    fn warm(&self, name: &str, expected: &[u8]) {
        let segments = expected.len().div_ceil(65_536) as u64;
        let complete = || {
            self.again();
            assert!(fs::read(self.path(name)).unwrap() == expected, "{name}");
            self.settle();
            self.figure("misses") == 0
        };
        assert!(soon(Duration::from_secs(120), complete), "{}", self.disk());
        assert!(self.figure("hits") >= segments, "{}", self.disk());
    }

    /// Waits until nothing is added any more.
    fn settle(&self) {
        let mut before = u64::MAX;
        let is_still = || std::mem::replace(&mut before, self.figure("added")) == before;
        assert!(soon(Duration::from_secs(20), is_still), "{}", self.disk());
    }

    /// Files of blocks.
    fn files(&self) -> Vec<PathBuf> {
        let volume = fs::read_dir(&self.folder).unwrap().next().unwrap().unwrap().path();
        let mut files: Vec<_> = fs::read_dir(volume).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| !file.ends_with("lock"));
        files.sort();
        files
    }

    /// Bytes of the disk that the folder takes.
    fn du(&self) -> u64 {
        let ran = Run::new("du").args(["-s", "-B1"]).arg(&self.folder).ok();
        ran.out.split_whitespace().next().unwrap().parse().unwrap()
    }
}

pub(crate) fn put(cluster: &Cluster, name: &str, bytes: &[u8]) {
    let mut file = File::create(cluster.path(name)).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

fn a_second_mount_asks_for_no_block(transport: Transport) {
    let cluster = cluster(transport);
    let (noisy, even) = (noise(1, 9 * MIB + 12_344), vec![b'x'; 5 * MIB]);
    put(&cluster, "noisy", &noisy);
    put(&cluster, "even", &even);
    let guest = Guest::new(&cluster, "64M");
    guest.warm("noisy", &noisy);
    guest.warm("even", &even);
    guest.again();
    let before = cluster.requests("readblock");
    assert!(before > 0, "this test would find nothing");
    assert!(fs::read(guest.path("noisy")).unwrap() == noisy);
    let file = File::open(guest.path("even")).unwrap();
    let mut part = [0; 4096];
    for at in [4 * MIB as u64 + 17, 3, MIB as u64 - 100] {
        file.read_exact_at(&mut part, at).unwrap();
        assert!(part == [b'x'; 4096]);
    }
    assert_eq!(cluster.requests("readblock"), before, "the server was asked for blocks: {}", guest.disk());
    assert_eq!((guest.figure("misses"), guest.figure("damaged")), (0, 0));
    assert!(guest.figure("hits") >= noisy.len() as u64 / 65_536);
    // The folder is this user's alone.
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    let files = guest.files();
    assert_eq!((mode(files[0].parent().unwrap()), mode(&files[0])), (0o700, 0o600));
    drop(file);
    guest.down();
    cluster.finish();
}

fn what_others_write_is_read(transport: Transport) {
    let cluster = cluster(transport);
    let mut bytes = noise(2, 6 * MIB);
    put(&cluster, "file", &bytes);
    let guest = Guest::new(&cluster, "64M");
    guest.warm("file", &bytes);
    for round in 0..3 {
        let new = noise(100 + round, 100_000);
        let at = MIB * (usize::try_from(round).unwrap() + 1) + 777;
        File::options()
            .write(true)
            .open(cluster.path("file"))
            .unwrap()
            .write_all_at(&new, at as u64)
            .unwrap();
        bytes[at..at + new.len()].copy_from_slice(&new);
        assert!(fs::read(guest.path("file")).unwrap() == bytes, "round {round}, mounted");
        guest.again();
        assert!(fs::read(guest.path("file")).unwrap() == bytes, "round {round}, mounted anew");
    }
    put(&cluster, "new", &noise(3, MIB));
    fs::rename(cluster.path("new"), cluster.path("file")).unwrap();
    assert!(soon(Duration::from_secs(3), || fs::read(guest.path("file")).unwrap() == noise(3, MIB)));
    guest.down();
    cluster.finish();
}

fn damage_at_rest_is_fetched_again(transport: Transport) {
    let cluster = cluster(transport);
    let bytes = noise(4, 16 * MIB);
    put(&cluster, "file", &bytes);
    let guest = Guest::new(&cluster, "64M");
    guest.warm("file", &bytes);
    guest.down();
    let files = guest.files();
    let [changed, cut, one, two] = &files[..] else { panic!("four blocks: {files:?}") };
    let file = File::options().read(true).write(true).open(changed).unwrap();
    for at in (1000..4 * MIB as u64).step_by(100_000) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[!byte[0]], at).unwrap();
    }
    drop(file);
    File::options().write(true).open(cut).unwrap().set_len(2_000_000).unwrap();
    let other = guest.folder.join("other");
    fs::rename(one, &other).unwrap();
    fs::rename(two, one).unwrap();
    fs::rename(&other, two).unwrap();
    guest.up();
    assert!(fs::read(guest.path("file")).unwrap() == bytes);
    assert!(guest.figure("damaged") >= 4, "{}", guest.disk());
    assert!(guest.figure("hits") < 128, "only a part of the one that was cut is good: {}", guest.disk());
    assert!(!cluster.log_of(&guest.mnt).contains("cannot be read"));
    // What took its place is good, and so is a cache that is damaged while it is in use.
    guest.warm("file", &bytes);
    for file in guest.files() {
        File::options().write(true).open(file).unwrap().write_all_at(&[7; 4096], 70_000).unwrap();
    }
    fs::write("/proc/sys/vm/drop_caches", "1").unwrap();
    let mut part = vec![0; 65_536];
    for block in 0..4 {
        let at = block * 4 * MIB + 65_536;
        File::open(guest.path("file")).unwrap().read_exact_at(&mut part, at as u64).unwrap();
        assert!(part[..] == bytes[at..at + 65_536], "block {block}");
    }
    guest.down();
    cluster.finish();
}

fn the_quota_holds(transport: Transport) {
    let cluster = cluster(transport);
    let quota = 24 * MIB as u64;
    let guest = Guest::new(&cluster, "24M");
    for seed in 0..10 {
        put(&cluster, &format!("file{seed}"), &noise(seed, 6 * MIB));
        assert!(fs::read(guest.path(&format!("file{seed}"))).unwrap() == noise(seed, 6 * MIB));
        assert!(guest.du() <= quota, "{} bytes of {quota}", guest.du());
    }
    guest.wait_for("evicted", |disk| disk["evicted"].as_u64() > Some(4));
    let disk = guest.disk();
    assert_eq!(disk["quotaBytes"], quota);
    assert!(disk["heldBytes"].as_u64().unwrap() <= quota && guest.du() > quota / 3, "{disk}");
    guest.again();
    for seed in 0..10 {
        assert!(fs::read(guest.path(&format!("file{seed}"))).unwrap() == noise(seed, 6 * MIB));
        assert!(guest.du() <= quota, "{} bytes of {quota}", guest.du());
    }
    guest.down();
    cluster.finish();
}

/// A disk of 8 MiB for a quota of 64 MiB, which somebody else fills up meanwhile.
fn a_full_disk_hurts_nobody(transport: Transport) {
    let cluster = cluster(transport);
    let small = cluster.root().join("cache");
    fs::create_dir(&small).unwrap();
    Run::new("mount").args(["-t", "tmpfs", "-o", "size=8M", "none"]).arg(&small).ok();
    let bytes = noise(5, 32 * MIB);
    put(&cluster, "file", &bytes);
    let guest = Guest::new(&cluster, "64M");
    for round in 0..3 {
        assert!(fs::read(guest.path("file")).unwrap() == bytes, "round {round}");
        guest.wait_for("full", |disk| disk["state"] == "full");
        if round == 1 {
            // No byte is left: the margin is gone, too.
            let hog = File::create(small.join("hog")).unwrap();
            let page = vec![1; 4096];
            let full = (0..10_000).find_map(|_| (&hog).write_all(&page).err());
            assert_eq!(full.and_then(|error| Errno::from_io_error(&error)), Some(Errno::NOSPC));
        }
        guest.again();
    }
    // There is room again.
    fs::remove_file(small.join("hog")).unwrap();
    guest.again();
    assert!(fs::read(guest.path("file")).unwrap() == bytes);
    guest.wait_for("room", |disk| {
        disk["added"].as_u64() > Some(0) && disk["heldBytes"].as_u64() > Some(1 << 20)
    });
    guest.down();
    // The mount's process lets go of it a moment after its mount point is gone.
    assert!(soon(Duration::from_secs(10), || Run::new("umount").arg(&small).run().status.success()));
    cluster.finish();
}

fn an_ended_session_reads_nothing(transport: Transport) {
    let cluster = cluster(transport);
    let bytes = noise(6, 4 * MIB);
    put(&cluster, "file", &bytes);
    let mut guest = Guest::new(&cluster, "64M");
    guest.warm("file", &bytes);
    guest.down();
    let token = new_token(&cluster, &[]);
    guest.creds = cluster.root().join("creds");
    write_creds(&cluster, &guest.creds, &token.text);
    guest.up();
    let file = File::open(guest.path("file")).unwrap();
    let mut part = [0; 4096];
    file.read_exact_at(&mut part, 0).unwrap();
    assert!(part[..] == bytes[..4096] && guest.figure("hits") > 0);
    cluster.configure(&["delete", "volume-token", &token.id]).ok();
    let refused = || file.read_exact_at(&mut [0; 4096], 0).is_err();
    assert!(soon(Duration::from_secs(10), refused), "the mount goes on without its token");
    let hits = guest.figure("hits");
    for at in (0..bytes.len() as u64).step_by(65_536) {
        assert_eq!(code(file.read_exact_at(&mut part, at)), Errno::ACCESS);
    }
    assert_eq!(guest.figure("hits"), hits);
    drop(file);
    guest.down();
    cluster.finish();
}

fn an_encrypted_volume_leaves_nothing_readable(transport: Transport) {
    const MARK: &[u8] = b"Zq7vK2xWm9RtB4nLd8sHc3Jf";
    let holds_mark = |guest: &Guest<'_>| {
        guest
            .files()
            .iter()
            .any(|file| fs::read(file).unwrap().windows(MARK.len()).any(|bytes| bytes == MARK))
    };
    let mut bytes = noise(7, 5 * MIB);
    for at in (0..bytes.len() - 64).step_by(300_000) {
        bytes[at..at + MARK.len()].copy_from_slice(MARK);
    }
    let control = cluster(transport);
    put(&control, "file", &bytes);
    let guest = Guest::new(&control, "64M");
    guest.warm("file", &bytes);
    assert!(holds_mark(&guest), "this test could not find anything");
    guest.down();
    control.finish();
    let (cluster, _secret) = encrypted(transport, "correct horse battery staple");
    put(&cluster, "file", &bytes);
    let guest = Guest::new(&cluster, "64M");
    guest.warm("file", &bytes);
    assert!(!holds_mark(&guest));
    // What was exchanged there is found, and given by the server.
    guest.down();
    let files = guest.files();
    let mut slot = fs::read(&files[0]).unwrap();
    slot[5000] ^= 1;
    fs::write(&files[0], slot).unwrap();
    guest.up();
    assert!(fs::read(guest.path("file")).unwrap() == bytes);
    assert!(guest.figure("damaged") > 0);
    guest.down();
    cluster.finish();
}

fn one_mount_a_folder(transport: Transport) {
    let cluster = cluster(transport);
    let guest = Guest::new(&cluster, "64M");
    let other = cluster.root().join("mnt-other");
    fs::create_dir(&other).unwrap();
    let folder = guest.folder.to_str().unwrap();
    let start = |flags: &[&str]| cluster.start_mount(&other, &cluster.volume_creds(), flags);
    let refused = start(&["--diskQuota", "64M", "--diskFolder", folder]).fails().text();
    assert!(refused.contains("in use by another mount") && refused.contains("mnt-guest"), "{refused}");
    let elsewhere = cluster.root().join("other-cache");
    let refused = start(&["--diskQuota", "1K", "--diskFolder", elsewhere.to_str().unwrap()]).fails().text();
    assert!(refused.contains("--diskQuota comes to 1024 bytes"), "{refused}");
    let inside = other.join("cache");
    let refused = start(&["--diskQuota", "64M", "--diskFolder", inside.to_str().unwrap()]).fails().text();
    assert!(refused.contains("on the mount itself"), "{refused}");
    let refused = start(&["--diskFolder", folder]).fails().text();
    assert!(refused.contains("--diskQuota"), "{refused}");
    // A mount that was killed holds nothing.
    cluster.mount_process(&guest.mnt).unwrap().kill();
    Run::new("umount").arg("-l").arg(&guest.mnt).ok();
    guest.up();
    guest.down();
    cluster.finish();
}
