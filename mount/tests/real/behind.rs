//! What is made in a directory that nobody else looks into is there at once and sent behind: nobody can tell, but by the time.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::files::pattern;
use crate::harness::{Cluster, Random, Run, Transport, VOLUME, now, soon, wall};

both!(trees_are_seen_whole);
// Without rings the kernel keeps no names, and asks the server for the way there.
one!(server_is_frozen, server_dies, refused_late, what_was_there_before);

/// Steps of one tree.
const STEPS: usize = 250;

/// Times before this were set by somebody, seconds.
const SET_BEFORE: i64 = 1_000_000_000;

/// What somebody sees of one thing in a tree: type and mode, links and size of a file, owner, content or target, and times
/// that were set.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    links: u64,
    owner: (u32, u32),
    set: Option<(i64, i64)>,
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
        let shown = stats(&mnt.join(&name));
        same(&walk(&looker.join(&name)), &wanted, "at the other mount");
        same(&walk(&mnt.join(&name)), &wanted, "at its own");
        for (path, stat) in stats(&looker.join(&name)) {
            assert_eq!(stat, shown[&path], "{path:?} at the other mount and at its own");
        }
        // Goes on where somebody has looked.
        build(&[mnt.join(&name), twin.join(&name)], &mut random, STEPS..STEPS + 20);
        same(&walk(&looker.join(&name)), &walk(&twin.join(&name)), "after more steps");
    }
    for mnt in [cluster.mnt(), &other] {
        let log = cluster.log_of(mnt);
        assert!(!log.contains("something else of it") && !log.contains(" lost"), "{log}");
    }
    cluster.as_made_by_up();
    cluster.finish();
}

/// The server stands still: what is made goes on, and only who asks for durability, or for what others have, waits.
fn server_is_frozen(transport: Transport) {
    let cluster = Cluster::start(transport);
    let other = cluster.second_mount();
    fs::create_dir(cluster.path("new")).unwrap();
    touch_on_each_core(&cluster.path("new"));
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
    for index in 0..100 {
        let file = cluster.path(format!("new/file-{index}"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o604)).unwrap();
        let other = cluster.path(format!("new/a/moved-{index}"));
        match index % 3 {
            0 => fs::remove_file(&file).unwrap(),
            1 => fs::rename(&file, &other).unwrap(),
            _ => fs::hard_link(&file, &other).unwrap(),
        }
    }
    fs::create_dir(cluster.path("new/gone")).unwrap();
    fs::remove_dir(cluster.path("new/gone")).unwrap();
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
    assert_eq!(fs::read_dir(other.join("new")).unwrap().count(), before + 301 - 34 - 33);
    assert_eq!(fs::read_dir(other.join("new/a")).unwrap().count(), 2 + 66);
    let moved = fs::metadata(other.join("new/a/moved-1")).unwrap();
    assert_eq!((moved.mode() & 0o7777, moved.nlink()), (0o604, 1));
    assert_eq!(fs::metadata(other.join("new/a/moved-2")).unwrap().nlink(), 2);
    assert_eq!(fs::read_link(other.join("new/a/link")).unwrap(), Path::new("target"));
    assert_eq!(fs::read(other.join("new/a/b/c/file")).unwrap(), b"written");
    cluster.finish();
}

/// A directory of an earlier mount is had alone once names change in it, and only what nobody else caches anything of is changed
/// before the server knows.
fn what_was_there_before(transport: Transport) {
    let cluster = Cluster::start(transport);
    let twin = cluster.root().join("twin");
    let mut random = Random::new(seed());
    let roots = [cluster.path("tree"), twin.join("tree")];
    build(&roots, &mut random, 0..STEPS);
    let old: Vec<PathBuf> = (0..40).map(|index| cluster.path(format!("old/file-{index}"))).collect();
    fs::create_dir_all(cluster.path("old")).unwrap();
    old.iter().for_each(|file| fs::write(file, "old").unwrap());
    let other = cluster.second_mount();
    for round in 1..4 {
        cluster.remount();
        let steps = 10 * round * STEPS;
        build(&roots, &mut random, steps..steps + STEPS);
        same(&walk(&other.join("tree")), &walk(&roots[1]), "at the other mount");
        same(&walk(&roots[0]), &walk(&roots[1]), "at its own");
        // Where somebody has looked.
        build(&roots, &mut random, steps + STEPS..steps + STEPS + 20);
        same(&walk(&other.join("tree")), &walk(&roots[1]), "after more steps");
    }
    cluster.remount();
    touch_on_each_core(&cluster.path("old"));
    old.iter().for_each(|file| assert!(fs::metadata(file).is_ok()));
    let meta = cluster.meta();
    sleep(Duration::from_millis(300));
    meta.signal(Signal::STOP);
    let (mover, moved) = (cluster.path("old"), cluster.path("old/moved"));
    let working = std::thread::spawn(move || {
        (8..30).for_each(|index| fs::remove_file(mover.join(format!("file-{index}"))).unwrap());
        fs::rename(mover.join("file-30"), moved).unwrap();
        File::create_new(mover.join("file-30")).unwrap();
        for index in 0..8 {
            let file = mover.join(format!("file-{index}"));
            set(&file, index);
            assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o700 + u32::try_from(index).unwrap());
        }
    });
    let is_behind = soon(Duration::from_secs(3), || working.is_finished());
    let behind = cluster.link_figure(cluster.mnt(), "behind");
    meta.signal(Signal::CONT);
    working.join().unwrap();
    // Owner, mode and times of each of the eight.
    assert!(is_behind && behind >= 24 + 3 * 8, "{behind} changes behind, all: {is_behind}");
    assert_eq!(fs::metadata(other.join("old/moved")).unwrap().size(), 3);
    for file in &old[..8] {
        let name = file.strip_prefix(cluster.mnt()).unwrap();
        let seen = [cluster.mnt(), &other].map(|mnt| {
            let found = fs::metadata(mnt.join(name)).unwrap();
            ((found.mode(), found.uid(), found.gid()), found.mtime(), (found.ctime(), found.ctime_nsec()))
        });
        assert_eq!(seen[0], seen[1], "{name:?} here and at the other mount");
        assert!(seen[0].1 < SET_BEFORE);
    }
    let names = |mnt: &Path| fs::read_dir(mnt.join("old")).unwrap().count();
    assert_eq!(names(cluster.mnt()), names(&other));
    cluster.as_made_by_up();
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
    assert!(!cluster.log_of(cluster.mnt()).contains("change is lost"), "{}", cluster.log_of(cluster.mnt()));
    cluster.as_made_by_up();
    cluster.finish();
}

/// The server will not have what was made: the directory's fsync says so once, and the names are gone.
fn refused_late(transport: Transport) {
    let cluster = Cluster::start(transport);
    let other = cluster.second_mount();
    fs::create_dir(cluster.path("new")).unwrap();
    // Who has no numbers is refused at once.
    touch_on_each_core(&cluster.path("new"));
    cluster.configure(&["update", "volume", VOLUME, "--flags", "ro"]).ok();
    let folder = File::open(cluster.path("new")).unwrap();
    // The mount does not know that the volume is read-only now.
    let mut made = 0;
    let refused = soon(Duration::from_secs(20), || {
        made += 1;
        let file = File::create_new(cluster.path(format!("new/file-{made}")));
        let said = folder.sync_all();
        file.is_err() || said.is_err()
    });
    assert!(refused, "{made} files on a read-only volume");
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
    assert!(cluster.log_of(cluster.mnt()).contains("change is lost"));
    cluster.configure(&["update", "volume", VOLUME, "--flags", ""]).ok();
    assert!(soon(Duration::from_secs(20), || fs::write(other.join("probe"), "").is_ok()));
    cluster.finish();
}

/// Each core has numbers for new inodes then.
pub(crate) fn touch_on_each_core(folder: &Path) {
    for number in 0..8 * std::thread::available_parallelism().unwrap().get() {
        let cpu = number / 8;
        let file = folder.join(format!("first-{number}"));
        Run::new("taskset").args(["-c", &cpu.to_string(), "touch", file.to_str().unwrap()]).ok();
    }
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
        match (random.below(24), old) {
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
                both(&|root| move_whole(&root.join(&fresh), &bytes));
                files.push(fresh.join("inner"));
                dirs.push(fresh);
            }
            (11..15, _) => {
                let dir = dirs[random.index(dirs.len())].clone();
                files.extend(as_programs_do(
                    roots,
                    number % 4,
                    (&dir, &fresh),
                    old.map(|old| &files[old]),
                    &bytes,
                ));
            }
            (10, _) if dirs.len() > 1 => {
                let at = 1 + random.index(dirs.len() - 1);
                if is_removed(roots, &dirs[at]) {
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

/// Removes a directory if it is empty, and says the same of each.
fn is_removed(roots: &[PathBuf; 2], dir: &Path) -> bool {
    let said = roots.each_ref().map(|root| {
        let removed = fs::remove_dir(root.join(dir));
        removed.map_err(|error| error.raw_os_error())
    });
    assert_eq!(said[0], said[1], "rmdir of {dir:?}");
    said[0].is_ok()
}

/// A whole directory moves, with what is on its way in it.
fn move_whole(to: &Path, bytes: &[u8]) {
    let from = to.with_extension("from");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("inner"), bytes).unwrap();
    fs::rename(&from, to).unwrap();
}

/// What `tar`, `rsync` and `git` do with their files. What is new then.
fn as_programs_do(
    roots: &[PathBuf; 2],
    kind: usize,
    (dir, fresh): (&Path, &Path),
    old: Option<&PathBuf>,
    bytes: &[u8],
) -> Option<PathBuf> {
    let number = bytes.len();
    let hidden = fresh.with_extension("part");
    for root in roots {
        let hidden = root.join(&hidden);
        match (kind, old) {
            (0, Some(old)) => set(&root.join(old), number),
            (1, _) => set(&root.join(dir), number),
            // `rsync`: onto the place of another.
            (2, Some(old)) => {
                fs::write(&hidden, bytes).unwrap();
                set(&hidden, number);
                fs::rename(&hidden, root.join(old)).unwrap();
            }
            // `git`, and a program that has something of its own for a while.
            _ => {
                let mut file = File::create_new(&hidden).unwrap();
                file.write_all(bytes).unwrap();
                file.set_permissions(fs::Permissions::from_mode(0o444)).unwrap();
                fs::hard_link(&hidden, root.join(fresh)).unwrap();
                fs::remove_file(&hidden).unwrap();
                assert_eq!(
                    (file.metadata().unwrap().nlink(), file.metadata().unwrap().size()),
                    (1, number as u64)
                );
                File::create_new(&hidden).unwrap();
                fs::remove_file(&hidden).unwrap();
                fs::create_dir(&hidden).unwrap();
                fs::remove_dir(&hidden).unwrap();
            }
        }
    }
    (kind == 3 || old.is_none() && kind != 1).then(|| fresh.to_owned())
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
            let set = (found.mtime() < SET_BEFORE).then(|| (found.mtime(), found.mtime_nsec()));
            let owner = (found.uid(), found.gid());
            seen.insert(path, Seen { mode: found.mode(), links, owner, set, bytes });
        }
    }
    seen
}

/// Sets owner, mode and times, one after the other, as `tar` does.
fn set(path: &Path, number: usize) {
    let number = u32::try_from(number).unwrap();
    lchown(path, Some(number % 3), Some(number % 5)).unwrap();
    let found = fs::symlink_metadata(path).unwrap();
    if !found.is_symlink() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700 + number % 64)).unwrap();
    }
    let time = |secs: u32| Timespec { tv_sec: i64::from(1_000 + secs), tv_nsec: number.into() };
    let times = Timestamps { last_access: time(number + 1), last_modification: time(number) };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// What `stat` tells of each thing below one.
fn stats(root: &Path) -> BTreeMap<PathBuf, (u64, u64, i64, i64, i64)> {
    let stat = |path: PathBuf| {
        let found = fs::symlink_metadata(root.join(&path)).unwrap();
        let times = (found.mtime_nsec(), found.ctime(), found.ctime_nsec());
        (path, (found.nlink(), found.size(), times.0, times.1, times.2))
    };
    walk(root).into_keys().map(stat).collect()
}

fn same(found: &BTreeMap<PathBuf, Seen>, wanted: &BTreeMap<PathBuf, Seen>, place: &str) {
    for (path, seen) in wanted {
        let other = found.get(path);
        assert!(other == Some(seen), "{place}: {path:?} is {other:?}, not {seen:?}");
    }
    let more: Vec<_> = found.keys().filter(|path| !wanted.contains_key(*path)).collect();
    assert!(more.is_empty(), "{place}: {more:?} should not be there");
}
