//! No space: the caller is told, reads go on, and what is freed can be used again.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use crate::files::pattern;
use crate::harness::{Cluster, Options, Run, Transport, VOLUME, scratch, soon};

/// Size of the servers' disk: room for the engine's journals, and quickly full.
const DISK: &str = "600m";

both!(disk, quota, filled_by_others);

fn disk(transport: Transport) {
    let place = scratch();
    let disk = Disk::mount(place.path());
    let options = Options { transport, flags: Vec::new(), state: Some(disk.folder.join("state")) };
    let cluster = Cluster::with(options);
    // Blocks nobody refers to are kept for a week by default.
    cluster.configure(&["update", "volume", VOLUME, "--retention", "0"]).ok();
    fs::write(cluster.path("kept"), pattern(0, 3 << 20)).unwrap();
    let count = fill(&cluster, 2000);
    println!("{count} MiB fit");
    // Reads go on, of old files and of new ones; names can still be looked up and removed.
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    assert!(fs::read(cluster.path("kept")).unwrap() == pattern(0, 3 << 20));
    assert!(fs::read(cluster.path("fill-0")).unwrap() == pattern(0, 1 << 20));
    for index in 0..=count {
        let path = cluster.path(format!("fill-{index}"));
        if path.exists() {
            fs::remove_file(path).unwrap();
        }
    }
    let heals = || {
        let write = |path: PathBuf| -> std::io::Result<()> {
            let mut file = File::create(path)?;
            file.write_all(&pattern(0, 20 << 20))?;
            file.sync_all()
        };
        write(cluster.path("again")).is_ok()
    };
    assert!(soon(Duration::from_secs(60), heals), "freed space cannot be used");
    cluster.remount();
    assert!(fs::read(cluster.path("again")).unwrap() == pattern(0, 20 << 20));
    cluster.finish();
    drop(disk);
}

/// Somebody else takes the disk to its last byte: who has mounted can delete, who has not can mount, restarts work, and
/// nothing but room is needed to go on. When what was held back is taken as well the refusal says what to do.
fn filled_by_others(transport: Transport) {
    let place = scratch();
    let disk = Disk::mount(place.path());
    let options = Options { transport, flags: Vec::new(), state: Some(disk.folder.join("state")) };
    let cluster = Cluster::with(options);
    for index in 0..40 {
        fs::write(cluster.path(format!("small-{index}")), pattern(index, 3000)).unwrap();
    }
    let kept = File::create(cluster.path("open")).unwrap();
    kept.sync_all().unwrap();
    fs::hard_link(cluster.path("small-0"), cluster.path("second name")).unwrap();
    disk.fill(1);
    let refused =
        || File::create(cluster.path("refused")).map(drop).err().map(|error| Errno::from_io_error(&error));
    assert!(soon(Duration::from_secs(10), || refused() == Some(Some(Errno::NOSPC))), "{:?}", refused());
    assert!(soon(Duration::from_secs(10), || cluster.metric("flexfs_meta_disk_full") == 1.0));
    fs::remove_file(cluster.path("second name")).unwrap();
    fs::remove_file(cluster.path("open")).unwrap();
    OpenOptions::new().write(true).truncate(true).open(cluster.path("small-1")).unwrap();
    let other = cluster.second_mount();
    fs::remove_file(other.join("small-2")).unwrap();
    assert!(fs::read(other.join("small-3")).unwrap() == pattern(3, 3000));
    cluster.kill_meta();
    cluster.restart();
    fs::remove_file(cluster.path("small-4")).unwrap();
    drop(kept);
    // And the rest.
    disk.fill(2);
    let mnt = cluster.root().join("refused");
    fs::create_dir(&mnt).unwrap();
    let refused = || cluster.start_mount(&mnt, &cluster.volume_creds(), &[]).run();
    let told = || {
        let text = refused().text();
        text.contains("disk is full") && text.contains("add space")
    };
    assert!(soon(Duration::from_secs(20), told), "{}", refused().text());
    assert!(fs::read(cluster.path("small-3")).unwrap() == pattern(3, 3000), "reads go on");
    disk.heal();
    let heals = || fs::write(cluster.path("again"), pattern(0, 20 << 20)).is_ok();
    assert!(soon(Duration::from_secs(60), heals), "freed space cannot be used");
    assert!(soon(Duration::from_secs(10), || cluster.metric("flexfs_meta_disk_full") == 0.0));
    cluster.finish();
    drop(disk);
}

/// Writes files of 1 MiB until the file system says it is full; how many fit. Any error but ENOSPC is wrong.
fn fill(cluster: &Cluster, most: usize) -> usize {
    for index in 0..most {
        let write = || -> std::io::Result<()> {
            let path = cluster.path(format!("fill-{index}"));
            let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
            file.write_all(&pattern(0, 1 << 20))?;
            file.sync_all()
        };
        if let Err(error) = write() {
            let errno = Errno::from_io_error(&error).unwrap();
            assert!(matches!(errno, Errno::NOSPC | Errno::DQUOT), "{error}");
            return index;
        }
    }
    panic!("{most} MiB fit into a full volume");
}

fn quota(transport: Transport) {
    let cluster = Cluster::start(transport);
    // 8 blocks of 4 MiB, 50 inodes.
    cluster
        .configure(&["update", "volume", VOLUME, "--retention", "0", "--maxBlocks", "8", "--maxInodes", "50"])
        .ok();
    let figures = || rustix::fs::statvfs(cluster.mnt()).unwrap();
    assert!(
        soon(Duration::from_secs(10), || figures().f_files == 50),
        "the quota does not arrive: {} inodes",
        figures().f_files
    );
    let fits = fill(&cluster, 60);
    assert!((20..=33).contains(&fits), "{fits} MiB fit into 32 MiB");
    assert!(fs::read(cluster.path("fill-0")).unwrap() == pattern(0, 1 << 20));
    // What grows nothing goes on, again and again, though new blocks are stored beside the old ones.
    for round in 1..=40 {
        let mut file = OpenOptions::new().write(true).open(cluster.path("fill-0")).unwrap();
        file.write_all(&pattern(round, 1 << 20)).unwrap();
        file.sync_all().unwrap();
        if round % 10 == 0 {
            assert!(fill(&cluster, fits + 2) <= fits, "nothing more fits");
        }
    }
    assert!(fs::read(cluster.path("fill-1")).unwrap() == pattern(0, 1 << 20));
    let full = (0..60).find_map(|index| File::create(cluster.path(format!("empty-{index}"))).err());
    let errno = Errno::from_io_error(&full.expect("more inodes than the quota")).unwrap();
    assert!(matches!(errno, Errno::NOSPC | Errno::DQUOT), "{errno}");
    for entry in fs::read_dir(cluster.mnt()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let again = || fs::write(cluster.path("again"), pattern(0, 5 << 20)).is_ok();
    assert!(soon(Duration::from_secs(30), again), "freed quota cannot be used");
    cluster.finish();
}

/// A small ext4 in a file.
struct Disk {
    folder: PathBuf,
}

impl Disk {
    fn mount(place: &Path) -> Self {
        let (image, folder) = (place.join("disk.img"), place.join("disk"));
        fs::create_dir(&folder).unwrap();
        Run::new("truncate").args(["-s", DISK]).arg(&image).ok();
        Run::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image).ok();
        Run::new("mount").args(["-o", "loop"]).arg(&image).arg(&folder).ok();
        Self { folder }
    }

    /// Takes what is free, at one stroke: what is given up after that stays.
    fn fill(&self, round: u32) {
        let figures = rustix::fs::statvfs(&self.folder).unwrap();
        let free = figures.f_bavail * figures.f_frsize;
        let path = self.foreign(round);
        // The file's own extents need some blocks.
        let taken = [0, 64 << 10, 1 << 20].into_iter().any(|slack| {
            let size = free.saturating_sub(slack).to_string();
            let done = Run::new("fallocate").args(["-l", &size]).arg(&path).run().status.success();
            if !done {
                fs::remove_file(&path).unwrap();
            }
            done
        });
        assert!(taken, "{free} bytes are free and cannot be taken");
    }

    /// Removes what [`Self::fill`] made.
    fn heal(&self) {
        for entry in fs::read_dir(&self.folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().to_str().unwrap().starts_with("foreign") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }

    fn foreign(&self, round: u32) -> PathBuf {
        self.folder.join(format!("foreign-{round}"))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Run::new("umount").arg("-l").arg(&self.folder).run();
    }
}
