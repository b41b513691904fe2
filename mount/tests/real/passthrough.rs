//! Files of a volume in which nothing changes, read by the kernel itself.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Signal;
use serde_json::Value;

use crate::disk_cache::{MIB, cluster, noise, put};
use crate::harness::{Cluster, Run, Transport, VOLUME, soon};
use crate::names::code;
use crate::refusals::{new_token, write_creds};

one!(
    reads_and_mappings_ask_nobody,
    damage_at_rest_is_noticed_by_the_next_mount,
    a_volume_stays_read_only_under_it,
    what_was_passed_through_ends_with_the_session,
    who_was_away_compares,
    only_where_nothing_can_change
);

/// Programs that map a file, and sum its bytes.
const SUM_MAPPED: &str = "import mmap,sys\n\
    f=open(sys.argv[1],'rb')\n\
    m=mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ)\n\
    import hashlib\n\
    print(hashlib.sha256(m).hexdigest())";

fn set_flags(cluster: &Cluster, flags: &str) {
    cluster.configure(&["update", "volume", VOLUME, "--flags", flags]).ok();
}

struct Guest<'a> {
    cluster: &'a Cluster,
    mnt: PathBuf,
    creds: PathBuf,
    folder: PathBuf,
}

impl<'a> Guest<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let mnt = cluster.root().join("mnt-guest");
        fs::create_dir(&mnt).unwrap();
        let guest =
            Self { cluster, mnt, creds: cluster.volume_creds(), folder: cluster.root().join("cache") };
        guest.up();
        guest
    }

    fn up(&self) {
        let flags = ["--diskQuota", "200M", "--diskFolder", self.folder.to_str().unwrap()];
        self.cluster.start_mount(&self.mnt, &self.creds, &flags).ok();
    }

    fn down(&self) {
        Run::new("umount").arg(&self.mnt).limit(60).ok();
        self.cluster.wait_mount_gone(&self.mnt);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.mnt.join(name)
    }

    fn status(&self) -> Value {
        self.cluster.status_of(&self.mnt)
    }

    fn figure(&self, name: &str) -> u64 {
        let status = self.status();
        status["passthrough"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {status}"))
    }

    /// Bytes that requests of the kernel brought.
    fn asked(&self) -> u64 {
        self.status()["requests"]["bytesRead"].as_u64().unwrap()
    }

    /// Opens a file until it passes through.
    fn open_passed(&self, name: &str) -> File {
        let mut file = None;
        let passes = || {
            let before = self.figure("passed");
            drop(file.take());
            file = Some(File::open(self.path(name)).unwrap());
            self.figure("passed") > before
        };
        assert!(soon(Duration::from_secs(30), passes), "{}", self.status());
        file.unwrap()
    }

    /// Plain files.
    fn plain(&self) -> Vec<PathBuf> {
        let volume = fs::read_dir(&self.folder).unwrap().next().unwrap().unwrap().path();
        let entries = fs::read_dir(volume.join("plain")).into_iter().flatten();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_none());
        files
    }
}

fn read_all(file: &File, bytes: usize) -> Vec<u8> {
    let mut all = vec![0; bytes];
    file.read_exact_at(&mut all, 0).unwrap();
    all
}

fn hash(program: &str, path: &Path) -> String {
    let ran = Run::new("python3").args(["-c", program]).arg(path).limit(60).ok();
    ran.out.trim().to_owned()
}

/// A cluster with files on a volume that is then read-only.
fn published(transport: Transport, files: &[(&str, &[u8])]) -> Cluster {
    let cluster = cluster(transport);
    for (name, bytes) in files {
        put(&cluster, name, bytes);
    }
    set_flags(&cluster, "ro");
    cluster
}

fn reads_and_mappings_ask_nobody(transport: Transport) {
    let (bytes, mut holes) = (noise(1, 9 * MIB + 4321), noise(2, 6 * MIB));
    holes[MIB..4 * MIB].fill(0);
    let cluster = published(transport, &[("file", &bytes), ("holes", &holes), ("small", &bytes[..10_000])]);
    fs::write("/proc/sys/vm/drop_caches", "1").unwrap();
    let guest = Guest::new(&cluster);
    assert!(fs::read(guest.path("file")).unwrap() == bytes, "the first open is served as ever");
    let file = guest.open_passed("file");
    let before = guest.asked();
    assert!(read_all(&file, bytes.len()) == bytes);
    let other = guest.open_passed("file");
    assert!(read_all(&other, bytes.len()) == bytes);
    assert_eq!(other.read_at(&mut [0; 10], bytes.len() as u64).unwrap(), 0, "its end");
    let expected = "import hashlib,sys\nprint(hashlib.sha256(open(sys.argv[1],'rb').read()).hexdigest())";
    let same = guest.folder.join("copy");
    fs::write(&same, &bytes).unwrap();
    assert_eq!(hash(SUM_MAPPED, &guest.path("file")), hash(expected, &same), "mapped");
    fs::remove_file(same).unwrap();
    assert_eq!(guest.asked(), before, "requests to read came: {}", guest.status());
    assert!(guest.figure("passedNow") == 2 && guest.figure("passed") >= 3, "{}", guest.status());
    let third = guest.open_passed("holes");
    assert!(read_all(&third, holes.len()) == holes);
    for _ in 0..3 {
        assert!(fs::read(guest.path("small")).unwrap() == bytes[..10_000]);
    }
    // A descriptor from before goes on as it was; nobody is in two modes.
    let held: Vec<File> = (0..20).map(|_| File::open(guest.path("holes")).unwrap()).collect();
    assert!(held.iter().all(|file| read_all(file, holes.len()) == holes));
    assert_eq!(guest.figure("passedNow"), 23);
    drop((file, other, third, held));
    assert!(soon(Duration::from_secs(5), || guest.figure("passedNow") == 0));
    let du = Run::new("du").args(["-s", "-B1"]).arg(&guest.folder).ok().out;
    let du: u64 = du.split_whitespace().next().unwrap().parse().unwrap();
    assert!(du <= 200 * MIB as u64 && guest.plain().len() == 2, "{du}");
    guest.down();
    // The next mount verifies once, and fetches nothing.
    guest.up();
    let before = cluster.requests("readblock");
    let file = guest.open_passed("file");
    assert!(read_all(&file, bytes.len()) == bytes);
    assert_eq!((guest.figure("verified"), guest.figure("damaged"), guest.figure("assembled")), (1, 0, 0));
    assert_eq!(cluster.requests("readblock"), before);
    drop(file);
    guest.down();
    cluster.finish();
}

fn damage_at_rest_is_noticed_by_the_next_mount(transport: Transport) {
    let bytes = noise(3, 5 * MIB);
    let cluster = published(transport, &[("file", &bytes)]);
    let guest = Guest::new(&cluster);
    drop(guest.open_passed("file"));
    for cut in [false, true] {
        guest.down();
        let plain = guest.plain();
        assert_eq!(plain.len(), 1);
        let file = File::options().write(true).open(&plain[0]).unwrap();
        if cut {
            file.set_len(1000).unwrap();
        } else {
            file.write_all_at(b"damage", 3_000_000).unwrap();
        }
        drop(file);
        guest.up();
        let file = guest.open_passed("file");
        assert!(read_all(&file, bytes.len()) == bytes);
        assert_eq!((guest.figure("damaged"), guest.figure("verified"), guest.figure("assembled")), (1, 0, 1));
        drop(file);
    }
    guest.down();
    cluster.finish();
}

/// The operator takes `ro` away: nobody writes until the last mount has ended that reads past the server.
fn a_volume_stays_read_only_under_it(transport: Transport) {
    let bytes = noise(4, 5 * MIB);
    let cluster = published(transport, &[("file", &bytes)]);
    let guest = Guest::new(&cluster);
    let file = guest.open_passed("file");
    set_flags(&cluster, "");
    cluster.remount();
    assert_eq!(code(fs::write(cluster.path("new"), "x")), Errno::ROFS);
    cluster.kill_meta();
    cluster.restart();
    assert!(read_all(&file, bytes.len()) == bytes);
    drop(file);
    assert!(
        read_all(&guest.open_passed("file"), bytes.len()) == bytes,
        "a restart of the server changes nothing"
    );
    guest.down();
    cluster.remount();
    fs::write(cluster.path("new"), "x").unwrap();
    let new = noise(5, MIB);
    File::options().write(true).open(cluster.path("file")).unwrap().write_all_at(&new, 0).unwrap();
    // What can change is not passed through, and what was left in plain form goes.
    guest.up();
    assert!(fs::read(guest.path("file")).unwrap()[..MIB] == new);
    assert!(guest.status()["passthrough"].is_null());
    assert!(soon(Duration::from_secs(10), || guest.plain().is_empty()));
    guest.down();
    cluster.finish();
}

fn what_was_passed_through_ends_with_the_session(transport: Transport) {
    let bytes = noise(6, 5 * MIB);
    let cluster = published(transport, &[("file", &bytes)]);
    let mut guest = Guest::new(&cluster);
    guest.down();
    let token = new_token(&cluster, &[]);
    guest.creds = cluster.root().join("creds");
    write_creds(&cluster, &guest.creds, &token.text);
    guest.up();
    let file = guest.open_passed("file");
    let mut part = [0; 4096];
    file.read_exact_at(&mut part, MIB as u64).unwrap();
    cluster.configure(&["delete", "volume-token", &token.id]).ok();
    let ended = || file.read_at(&mut part, MIB as u64).map_or(true, |bytes| bytes == 0);
    assert!(soon(Duration::from_secs(10), ended), "bytes are given without a token");
    assert_eq!(code(File::open(guest.path("file"))), Errno::ACCESS);
    // It is emptied first: readers must not wait for the folder.
    assert!(soon(Duration::from_secs(10), || guest.plain().is_empty()), "left: {:?}", guest.plain());
    drop(file);
    guest.down();
    cluster.finish();
}

/// A client stands still for longer than its lease: the server knows of no session of it any more, and the next one finds that
/// nothing has changed. Nothing is started meanwhile: a child would wait for the closes of what it inherited.
fn who_was_away_compares(transport: Transport) {
    let bytes = noise(9, 5 * MIB);
    let cluster = published(transport, &[("file", &bytes)]);
    let guest = Guest::new(&cluster);
    let file = guest.open_passed("file");
    let process = cluster.mount_process(&guest.mnt).unwrap();
    let lost = cluster.link_figure(&guest.mnt, "sessionsLost");
    process.signal(Signal::STOP);
    std::thread::sleep(Duration::from_secs(12));
    assert!(read_all(&file, bytes.len()) == bytes, "the kernel reads on");
    process.signal(Signal::CONT);
    let is_back = || cluster.link_figure(&guest.mnt, "sessionsLost") > lost;
    assert!(soon(Duration::from_secs(20), is_back), "{}", guest.status());
    std::thread::sleep(Duration::from_secs(1));
    assert!(read_all(&file, bytes.len()) == bytes && guest.figure("passedNow") == 1);
    drop(file);
    assert!(read_all(&guest.open_passed("file"), bytes.len()) == bytes);
    guest.down();
    cluster.finish();
}

fn only_where_nothing_can_change(transport: Transport) {
    let bytes = noise(7, MIB);
    let cluster = cluster(transport);
    put(&cluster, "file", &bytes);
    let mnt = cluster.root().join("mnt-guest");
    fs::create_dir(&mnt).unwrap();
    let folder = cluster.root().join("cache");
    // Read-only itself, while others write.
    let flags = ["--ro", "--diskQuota", "64M", "--diskFolder", folder.to_str().unwrap()];
    cluster.start_mount(&mnt, &cluster.volume_creds(), &flags).ok();
    for _ in 0..3 {
        assert!(fs::read(mnt.join("file")).unwrap() == bytes);
    }
    assert!(cluster.status_of(&mnt)["passthrough"].is_null());
    let new = noise(8, MIB);
    fs::write(cluster.path("file"), &new).unwrap();
    assert!(fs::read(mnt.join("file")).unwrap() == new);
    Run::new("umount").arg(&mnt).limit(60).ok();
    cluster.wait_mount_gone(&mnt);
    cluster.finish();
}
