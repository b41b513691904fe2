//! What is made in a directory that nobody else looks into is there at once and sent behind: nobody can tell, but by the time.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Signal;

use crate::files::pattern;
use crate::harness::{Cluster, Random, Run, Transport, VOLUME, now, soon, wall};

both!(trees_are_seen_whole);
// Without rings the kernel keeps no names, and asks the server for the way there.
one!(server_is_frozen, server_dies, refused_late);

/// Steps of one tree.
const STEPS: usize = 250;

/// What somebody sees of one thing in a tree: type and mode, links and size of a file, content or target.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    links: u64,
    bytes: Vec<u8>,
}

/// Trees are made on one mount and looked at on another at once, while more is made.
fn trees_are_seen_whole(transport: Transport) {
    let cluster = Cluster::start(transport);
    let other = cluster.second_mount();
    let twin = cluster.root().join("twin");
    let mut random = Random::new(seed());
    for round in 0..transport.scale(24, 8) {
        let name = format!("tree-{round}");
        let mnt = [cluster.mnt(), other.as_path()][round % 2];
        let looker = [cluster.mnt(), other.as_path()][(round + 1) % 2];
        build(&[mnt.join(&name), twin.join(&name)], &mut random, 0..STEPS);
        let wanted = walk(&twin.join(&name));
        let shown = folders(&mnt.join(&name));
        same(&walk(&looker.join(&name)), &wanted, "at the other mount");
        same(&walk(&mnt.join(&name)), &wanted, "at its own");
        for (path, stat) in folders(&looker.join(&name)) {
            assert_eq!(stat, shown[&path], "{path:?} at the other mount and at its own");
        }
        // Goes on where somebody has looked.
        build(&[mnt.join(&name), twin.join(&name)], &mut random, STEPS..STEPS + 20);
        same(&walk(&looker.join(&name)), &walk(&twin.join(&name)), "after more steps");
    }
    cluster.as_made_by_up();
    cluster.finish();
}

/// The server stands still: what is made goes on, and only who asks for durability, or for what others have, waits.
fn server_is_frozen(transport: Transport) {
    let cluster = Cluster::start(transport);
    let other = cluster.second_mount();
    fs::create_dir(cluster.path("new")).unwrap();
    // Each core has numbers for new inodes.
    for number in 0..8 * std::thread::available_parallelism().unwrap().get() {
        let cpu = number / 8;
        let file = cluster.path(format!("new/first-{number}"));
        Run::new("taskset").args(["-c", &cpu.to_string(), "touch", file.to_str().unwrap()]).ok();
    }
    let before = fs::read_dir(cluster.path("new")).unwrap().count();
    let meta = cluster.meta();
    meta.signal(Signal::STOP);
    let start = now();
    for index in 0..300 {
        File::create_new(cluster.path(format!("new/file-{index}"))).unwrap();
    }
    fs::create_dir_all(cluster.path("new/a/b/c")).unwrap();
    fs::write(cluster.path("new/a/b/c/file"), "written").unwrap();
    symlink("target", cluster.path("new/a/link")).unwrap();
    let took = start.elapsed();
    let behind = cluster.link_figure(cluster.mnt(), "behind");
    let folder = cluster.path("new");
    let syncing = std::thread::spawn(move || File::open(folder).unwrap().sync_all());
    sleep(Duration::from_millis(500));
    assert!(!syncing.is_finished(), "an fsync that waited for nobody");
    meta.signal(Signal::CONT);
    syncing.join().unwrap().unwrap();
    println!("{behind} changes behind a server that stood still, made in {took:?}");
    assert!(behind > 300 && took < Duration::from_secs(3), "{behind} in {took:?}");
    assert_eq!(cluster.link_figure(cluster.mnt(), "behind"), 0);
    assert_eq!(fs::read_dir(other.join("new")).unwrap().count(), before + 301);
    assert_eq!(fs::read_link(other.join("new/a/link")).unwrap(), Path::new("target"));
    assert_eq!(fs::read(other.join("new/a/b/c/file")).unwrap(), b"written");
    cluster.finish();
}

/// The server is killed while trees are made: they end up whole, and nothing is there twice.
fn server_dies(transport: Transport) {
    let cluster = Cluster::start(transport);
    let other = cluster.second_mount();
    let twin = cluster.root().join("twin");
    for round in 0..6 {
        let name = format!("tree-{round}");
        let roots = [cluster.path(&name), twin.join(&name)];
        let mut random = Random::new(seed());
        let working = std::thread::spawn(move || build(&roots, &mut random, 0..4 * STEPS));
        sleep(Duration::from_millis(30 + 40 * round));
        let meta = cluster.meta();
        meta.kill();
        sleep(Duration::from_millis(100));
        // Others must not see less than the programs were told.
        let looker = other.join(&name);
        let looking = std::thread::spawn(move || fs::read_dir(looker).map(Iterator::count));
        cluster.restart_server(&meta);
        working.join().unwrap();
        drop(looking.join().unwrap());
        let wanted = walk(&twin.join(&name));
        same(&walk(&other.join(&name)), &wanted, "at the other mount");
        same(&walk(&cluster.path(&name)), &wanted, "at its own");
    }
    assert!(!cluster.log_of(cluster.mnt()).contains("it is lost"), "{}", cluster.log_of(cluster.mnt()));
    cluster.as_made_by_up();
    cluster.finish();
}

/// The server will not have what was made: the directory's fsync says so once, and the names are gone.
fn refused_late(transport: Transport) {
    let cluster = Cluster::start(transport);
    let other = cluster.second_mount();
    fs::create_dir(cluster.path("new")).unwrap();
    fs::write(cluster.path("new/first"), "").unwrap();
    cluster.configure(&["update", "volume", VOLUME, "--maxInodes", "10"]).ok();
    let folder = File::open(cluster.path("new")).unwrap();
    // The mount does not know of the new bound.
    let mut made = 0;
    let refused = soon(Duration::from_secs(20), || {
        made += 1;
        let file = File::create_new(cluster.path(format!("new/file-{made}")));
        let said = folder.sync_all();
        file.is_err() || said.is_err()
    });
    assert!(refused && made > 3, "{made} files, and the bound is 10");
    folder.sync_all().unwrap();
    let names = |mnt: &Path| {
        let names = fs::read_dir(mnt.join("new")).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    assert_eq!(names(cluster.mnt()), names(&other));
    let last = format!("new/file-{made}");
    for mnt in [cluster.mnt(), &other] {
        let gone = || {
            fs::metadata(mnt.join(&last))
                .is_err_and(|error| error.raw_os_error() == Some(Errno::NOENT.raw_os_error()))
        };
        assert!(soon(Duration::from_secs(2), gone), "{mnt:?} shows what the server would not have");
    }
    assert!(cluster.log_of(cluster.mnt()).contains("it is lost"));
    cluster.configure(&["update", "volume", VOLUME, "--maxInodes", "0"]).ok();
    assert!(soon(Duration::from_secs(20), || fs::write(other.join("probe"), "").is_ok()));
    cluster.finish();
}

fn seed() -> u64 {
    let seed = u64::try_from(wall() & i128::from(u64::MAX)).unwrap();
    println!("seed {seed}");
    seed
}

/// Random steps in new trees, the same in each.
fn build(roots: &[PathBuf; 2], random: &mut Random, steps: Range<usize>) {
    let both = |step: &dyn Fn(&Path)| roots.iter().for_each(|root| step(root));
    both(&|root| fs::create_dir_all(root).unwrap());
    let (mut dirs, mut files) = (vec![PathBuf::new()], Vec::<PathBuf>::new());
    for (path, seen) in walk(&roots[1]) {
        if seen.mode & 0o170_000 == 0o040_000 { dirs.push(path) } else { files.push(path) }
    }
    for number in steps {
        let fresh = dirs[random.index(dirs.len())].join(format!("name-{number}"));
        let old = (!files.is_empty()).then(|| random.index(files.len()));
        let most = [1, 300, 9_000][random.index(3)];
        let bytes = pattern(number as u64, random.index(most));
        match (random.below(20), old) {
            (0..3, _) => {
                both(&|root| fs::create_dir(root.join(&fresh)).unwrap());
                dirs.push(fresh);
            }
            (3, _) => {
                both(&|root| symlink(format!("../to-{number}"), root.join(&fresh)).unwrap());
                files.push(fresh);
            }
            (4, Some(old)) => {
                both(&|root| fs::hard_link(root.join(&files[old]), root.join(&fresh)).unwrap());
                files.push(fresh);
            }
            (5, Some(old)) => {
                both(&|root| fs::rename(root.join(&files[old]), root.join(&fresh)).unwrap());
                files[old] = fresh;
            }
            (6, Some(old)) => {
                let gone = files.swap_remove(old);
                both(&|root| fs::remove_file(root.join(&gone)).unwrap());
            }
            (7, Some(old)) => both(&|root| {
                // Of a link its target is asked for, which is not there.
                let mode = fs::Permissions::from_mode(0o600 + u32::try_from(number).unwrap() % 64);
                let _ = fs::set_permissions(root.join(&files[old]), mode);
            }),
            (8, Some(old)) => both(&|root| {
                if let Ok(mut file) = File::options().append(true).open(root.join(&files[old])) {
                    file.write_all(&bytes).unwrap();
                }
            }),
            (9, _) => {
                // A whole directory moves, with what is on its way in it.
                let (from, to) = (fresh.with_extension("from"), fresh.clone());
                both(&|root| {
                    fs::create_dir(root.join(&from)).unwrap();
                    fs::write(root.join(&from).join("inner"), &bytes).unwrap();
                    fs::rename(root.join(&from), root.join(&to)).unwrap();
                });
                files.push(fresh.join("inner"));
                dirs.push(fresh);
            }
            (10, _) if dirs.len() > 1 => {
                let at = 1 + random.index(dirs.len() - 1);
                let said = roots.each_ref().map(|root| {
                    let removed = fs::remove_dir(root.join(&dirs[at]));
                    removed.map_err(|error| error.raw_os_error())
                });
                assert_eq!(said[0], said[1], "rmdir of {:?}", dirs[at]);
                if said[0].is_ok() {
                    dirs.swap_remove(at);
                }
            }
            _ => {
                both(&|root| File::create_new(root.join(&fresh)).unwrap().write_all(&bytes).unwrap());
                files.push(fresh);
            }
        }
    }
}

/// Everything below a folder.
fn walk(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut left = vec![PathBuf::new()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(root.join(&dir)).unwrap() {
            let path = dir.join(entry.unwrap().file_name());
            let at = root.join(&path);
            let found = fs::symlink_metadata(&at).unwrap();
            let bytes = if found.is_dir() {
                left.push(path.clone());
                Vec::new()
            } else if found.is_symlink() {
                fs::read_link(&at).unwrap().into_os_string().into_encoded_bytes()
            } else {
                fs::read(&at).unwrap()
            };
            assert!(found.is_dir() || found.size() == bytes.len() as u64, "{at:?}: {found:?}");
            // Directories of the local file system may count their links otherwise.
            let links = if found.is_dir() { 0 } else { found.nlink() };
            seen.insert(path, Seen { mode: found.mode(), links, bytes });
        }
    }
    seen
}

/// What `stat` tells of each folder below one.
fn folders(root: &Path) -> BTreeMap<PathBuf, (u64, u64, i64, i64, i64)> {
    let paths = walk(root).into_iter().filter(|(_, seen)| seen.mode & 0o170_000 == 0o040_000);
    let stat = |path: PathBuf| {
        let found = fs::metadata(root.join(&path)).unwrap();
        let times = (found.mtime_nsec(), found.ctime(), found.ctime_nsec());
        (path, (found.nlink(), found.size(), times.0, times.1, times.2))
    };
    paths.map(|(path, _)| stat(path)).collect()
}

fn same(found: &BTreeMap<PathBuf, Seen>, wanted: &BTreeMap<PathBuf, Seen>, place: &str) {
    for (path, seen) in wanted {
        let other = found.get(path);
        assert!(other == Some(seen), "{place}: {path:?} is {other:?}, not {seen:?}");
    }
    let more: Vec<_> = found.keys().filter(|path| !wanted.contains_key(*path)).collect();
    assert!(more.is_empty(), "{place}: {more:?} should not be there");
}
