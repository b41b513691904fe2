//! Reading and writing: offsets, appends, direct I/O, times, modes, users, statfs, two clients.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::child::Child;
use crate::disk_cache::noise;
use crate::harness::{Cluster, Options, Run, Transport, soon};
use crate::names::code;

both!(
    offsets,
    appends,
    appending_processes,
    direct,
    streams,
    small_and_only_written,
    attributes,
    users,
    figures,
    two_clients,
    many_open
);

/// Bytes that tell where they belong.
pub(crate) fn pattern(offset: u64, length: usize) -> Vec<u8> {
    (offset..)
        .take(length)
        .map(|at| u8::try_from((at ^ (at >> 8) ^ (at >> 16) ^ (at >> 24)) & 0xff).unwrap())
        .collect()
}

fn offsets(transport: Transport) {
    let cluster = Cluster::start(transport);
    let path = cluster.path("file");
    let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
    // Around the borders: inline 16 KiB, segment 64 KiB, FUSE request 1 MiB, block 4 MiB.
    let mut model = Vec::new();
    let write = |model: &mut Vec<u8>, offset: usize, length: usize| {
        let bytes = pattern(offset as u64 ^ length as u64, length);
        file.write_all_at(&bytes, offset as u64).unwrap();
        if model.len() < offset + length {
            model.resize(offset + length, 0);
        }
        model[offset..offset + length].copy_from_slice(&bytes);
    };
    for border in [16 << 10, 64 << 10, 1 << 20, 4 << 20, 8 << 20] {
        for (before, length) in [(1, 2), (5000, 10_000), (0, 1), (1, 1), (70_000, 140_001)] {
            write(&mut model, usize::saturating_sub(border, before), length);
        }
    }
    write(&mut model, 100, 3 << 20);
    let check = |model: &[u8]| {
        let found = fs::read(&path).unwrap();
        assert_eq!(found.len(), model.len());
        if let Some(at) = found.iter().zip(model).position(|(found, wanted)| found != wanted) {
            panic!("byte {at} differs");
        }
    };
    check(&model);
    for length in [model.len() - 1, (4 << 20) + 1, (1 << 20) - 1, 65_537, 65_535, 20_000, 100, 0, 50_000] {
        file.set_len(length as u64).unwrap();
        model.resize(length, 0);
        check(&model);
    }
    write(&mut model, 49_999, 100_000);
    file.sync_all().unwrap();
    drop(file);
    cluster.remount();
    check(&model);
    // Past the end, and a file larger than there can be.
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    assert_eq!(file.read_at(&mut [0; 10], model.len() as u64).unwrap(), 0);
    assert_eq!(code(file.set_len(i64::MAX as u64)), Errno::FBIG);
    drop(file);
    cluster.finish();
}

fn appends(transport: Transport) {
    let cluster = Cluster::start(transport);
    let path = cluster.path("log");
    let threads: Vec<_> = (0..4u8)
        .map(|thread| {
            let path = path.clone();
            std::thread::spawn(move || {
                let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
                for line in 0..200 {
                    // One write each: pieces of two lines may well be mixed.
                    let text = format!("{thread} {line:03} {}\n", "x".repeat(line));
                    file.write_all(text.as_bytes()).unwrap();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 800);
    for thread in 0..4 {
        let own: Vec<&str> = text.lines().filter(|line| line.starts_with(&format!("{thread} "))).collect();
        for (index, line) in own.iter().enumerate() {
            assert_eq!(**line, format!("{thread} {index:03} {}", "x".repeat(index)));
        }
    }
    cluster.finish();
}

/// Lines of several processes, through handles of their own and one they share, come whole and none is lost; as an ordinary
/// user, with lines that cross pages, segments and the border of inline files.
fn appending_processes(transport: Transport) {
    let cluster = Cluster::start(transport);
    let folder = cluster.path("folder");
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::chown(&folder, Some(1001), Some(1001)).unwrap();
    let script = "cd \"$1\"; exec 3>>log
        write() { for i in $(seq 1 150); do printf '%s %03d %0*d end\\n' $1 $i $((i * 7 % 997 + 1)) 0; done; }
        for who in a b c; do write $who >>log & done
        for who in d e; do write $who >&3 & done
        wait";
    Run::shell(script, &[&folder]).user(1001).folder("/").limit(200).ok();
    let text = fs::read_to_string(folder.join("log")).unwrap();
    let mut seen: Vec<&str> = text.lines().map(|line| line.get(..5).unwrap_or(line)).collect();
    assert!(text.lines().all(|line| line.ends_with("0 end")), "a torn line");
    seen.sort_unstable();
    seen.dedup();
    assert_eq!((text.lines().count(), seen.len()), (750, 750));
    cluster.finish();
}

fn direct(transport: Transport) {
    let cluster = Cluster::start(transport);
    let path = cluster.path("direct");
    let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap();
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(&path)
        .unwrap();
    // The kernel wants memory and offsets on a border of 4096: cut such a part out of a longer vector.
    let mut memory = vec![0u8; (2 << 20) + 4096];
    let start = memory.as_ptr().align_offset(4096);
    let part = &mut memory[start..start + (2 << 20)];
    for at in [0u64, 1 << 20, 6 << 20] {
        part.copy_from_slice(&pattern(at, 2 << 20));
        file.write_all_at(part, at).unwrap();
    }
    // A reader through the page cache sees it, and direct reads see what it writes.
    let mut wanted = pattern(0, 1 << 20);
    wanted.extend(pattern(1 << 20, 2 << 20));
    wanted.resize(6 << 20, 0);
    wanted.extend(pattern(6 << 20, 2 << 20));
    assert!(fs::read(&path).unwrap() == wanted, "read through the page cache");
    OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&[9; 5000], 4096).unwrap();
    file.read_exact_at(part, 0).unwrap();
    assert!(part[4096..9096].iter().all(|byte| *byte == 9), "direct read behind a buffered write");
    drop(file);
    cluster.finish();
}

/// Pages of a file that the kernel has.
fn pages(path: &Path) -> u64 {
    let fincore = Run::new("fincore").args(["--noheadings", "--raw", "--output", "PAGES"]).arg(path).ok();
    fincore.out.trim().parse().unwrap()
}

/// Checkpoints: where large files are written and not read, the kernel keeps no pages of the next ones; until one is read.
fn streams(transport: Transport) {
    const MIB: usize = 1 << 20;
    let cluster = Cluster::start(transport);
    let piece = noise(3, MIB);
    let path = |number: u64| cluster.path(format!("checkpoint-{number}"));
    let write = |number: u64| {
        let mut file = File::create(path(number)).unwrap();
        for _ in 0..64 {
            file.write_all(&piece).unwrap();
        }
        // The kernel tells of the last close behind it.
        drop(file);
        std::thread::sleep(Duration::from_millis(200));
    };
    // Tests beside this one drop the kernel's caches.
    let keeps_pages = || {
        fs::write(cluster.path("small"), &piece).unwrap();
        pages(&cluster.path("small")) > 0
    };
    assert!(soon(Duration::from_secs(10), keeps_pages));
    (0..3).for_each(write);
    assert!(!keeps_pages(), "what is written here is read by nobody");
    let read = fs::read(path(2)).unwrap();
    assert!(read.len() == 64 * MIB && read.chunks(MIB).all(|chunk| chunk == piece));
    assert!(soon(Duration::from_secs(10), keeps_pages), "it is read");
    cluster.finish();
}

/// Where small files are made and not read, the kernel keeps no pages of the next ones: who reads one meanwhile sees all of it.
fn small_and_only_written(transport: Transport) {
    let cluster = Cluster::start(transport);
    let other = cluster.second_mount();
    fs::create_dir(cluster.path("new")).unwrap();
    let name = |number: u64| format!("new/small-{number}");
    let make = |number: u64| {
        let mut file = File::create(cluster.path(name(number))).unwrap();
        file.write_all(&pattern(number, 5000)).unwrap();
        file
    };
    for number in 0..3 {
        drop(make(number));
        // The kernel tells of the last close behind it.
        std::thread::sleep(Duration::from_millis(200));
    }
    let mut writer = make(3);
    let reader = File::open(cluster.path(name(3))).unwrap();
    let mut wanted = pattern(3, 5000);
    let sees = |wanted: &[u8]| {
        let mut seen = vec![0; wanted.len() + 10];
        let bytes = reader.read_at(&mut seen, 0).unwrap();
        assert!(seen[..bytes] == *wanted, "{bytes} bytes here, not {}", wanted.len());
        assert!(fs::read(other.join(name(3))).unwrap() == wanted, "at the other mount");
    };
    sees(&wanted);
    writer.write_all(b"and more").unwrap();
    wanted.extend(b"and more");
    sees(&wanted);
    writer.write_all_at(b"changed", 4090).unwrap();
    wanted[4090..4097].copy_from_slice(b"changed");
    sees(&wanted);
    writer.set_len(4095).unwrap();
    wanted.truncate(4095);
    sees(&wanted);
    drop(writer);
    sees(&wanted);
    drop(reader);
    // Who only looks whether there are pages is not to be the first who opens it, for he gets them.
    let first = OpenOptions::new().write(true).open(cluster.path(name(2))).unwrap();
    assert_eq!(pages(&cluster.path(name(2))), 0, "nobody has read it");
    drop(first);
    (0..3).for_each(|number| assert!(fs::read(cluster.path(name(number))).unwrap() == pattern(number, 5000)));
    // Tests beside this one drop the kernel's caches.
    let mut number = 3;
    let keeps_pages = || {
        number += 1;
        let first = make(number);
        let pages = pages(&cluster.path(name(number)));
        drop(first);
        pages > 0
    };
    assert!(soon(Duration::from_secs(10), keeps_pages), "files are read here");
    cluster.finish();
}

fn attributes(transport: Transport) {
    let cluster = Cluster::start(transport);
    let path = cluster.path("file");
    fs::write(&path, "12345").unwrap();
    let stat = || fs::metadata(&path).unwrap();
    let before = stat();
    assert_eq!((before.len(), before.nlink(), before.mode()), (5, 1, 0o100_644));
    let time = std::time::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(time).set_accessed(time)).unwrap();
    assert_eq!((stat().modified().unwrap(), stat().accessed().unwrap()), (time, time));
    assert!((stat().ctime(), stat().ctime_nsec()) > (before.ctime(), before.ctime_nsec()));
    // A write moves mtime on, an attribute change ctime alone.
    (&file).write_all(b"x").unwrap();
    drop(file);
    assert!(stat().modified().unwrap() > time);
    let mtime = stat().modified().unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6711)).unwrap();
    assert_eq!((stat().mode(), stat().modified().unwrap()), (0o106_711, mtime));
    std::os::unix::fs::chown(&path, Some(1234), Some(5678)).unwrap();
    assert_eq!((stat().uid(), stat().gid()), (1234, 5678));
    // Ends of time that fit an i64.
    for seconds in ["@-2000000000", "@4294967297", "@0"] {
        Run::new("touch").args(["-d", seconds]).arg(&path).ok();
        assert_eq!(format!("@{}", stat().mtime()), seconds);
    }
    // fuser knows no FUSE_STATX, so over /dev/fuse the creation time is not to be had.
    assert_eq!(stat().created().is_ok(), transport == Transport::Uring, "creation time");
    // A FIFO, a socket and device nodes are inodes like others.
    for (name, arguments) in [("fifo", "p"), ("null", "c 1 3"), ("block", "b 7 200")] {
        Run::new("mknod").arg(cluster.path(name)).args(arguments.split(' ')).ok();
    }
    drop(std::os::unix::net::UnixListener::bind(cluster.path("socket")).unwrap());
    cluster.remount();
    let numbers = |name: &str| fs::metadata(cluster.path(name)).unwrap().rdev();
    assert_eq!((numbers("null"), numbers("block")), (0x103, 0x7c8));
    for (name, kind) in
        [("fifo", 0o010_000), ("null", 0o020_000), ("block", 0o060_000), ("socket", 0o140_000)]
    {
        assert_eq!(fs::symlink_metadata(cluster.path(name)).unwrap().mode() & 0o170_000, kind, "{name}");
    }
    cluster.finish();
}

/// Permissions as an ordinary user meets them.
fn users(transport: Transport) {
    let cluster = Cluster::start(transport);
    let (secret, shared) = (cluster.path("secret"), cluster.path("shared"));
    fs::write(&secret, "root's own").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
    let shell = |script: &str| Run::shell(script, &[&secret, &shared]).user(1).folder("/");
    for script in ["cat \"$1\"", "echo x >> \"$1\"", "chmod 777 \"$1\"", "rm \"$1\"", "ln -s x \"$1-link\""] {
        shell(script).fails();
    }
    shell("umask 027; echo mine > \"$2/mine\"; mkdir \"$2/own\"").ok();
    let mine = fs::metadata(shared.join("mine")).unwrap();
    assert_eq!((mine.uid(), mine.gid(), mine.mode()), (1, 1, 0o100_640));
    assert_eq!(fs::metadata(shared.join("own")).unwrap().mode(), 0o040_750);
    // Sticky: another user may not remove it. Set-gid: the group is inherited, and a foreign write clears set-uid.
    Run::shell("rm -f \"$1/mine\"", &[&shared]).user(2).folder("/").fails();
    let group = cluster.path("group");
    fs::create_dir(&group).unwrap();
    std::os::unix::fs::chown(&group, None, Some(7)).unwrap();
    fs::set_permissions(&group, fs::Permissions::from_mode(0o2777)).unwrap();
    Run::shell("echo x > \"$1/file\"; mkdir \"$1/sub\"", &[&group]).user(1).folder("/").ok();
    assert_eq!(fs::metadata(group.join("file")).unwrap().gid(), 7);
    assert_eq!(fs::metadata(group.join("sub")).unwrap().mode() & 0o7000, 0o2000);
    let program = cluster.path("program");
    fs::write(&program, "x").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o6777)).unwrap();
    Run::shell("echo y >> \"$1\"", &[&program]).user(1).folder("/").ok();
    assert_eq!(
        fs::metadata(&program).unwrap().mode() & 0o7777,
        0o777,
        "a foreign write clears set-uid and set-gid"
    );
    cluster.finish();
}

fn figures(transport: Transport) {
    let cluster = Cluster::start(transport);
    let figures = || rustix::fs::statvfs(cluster.mnt()).unwrap();
    let before = figures();
    assert!(before.f_blocks > 0 && before.f_bfree <= before.f_blocks);
    assert_eq!(before.f_namemax, 255);
    for index in 0..100 {
        fs::write(cluster.path(format!("file-{index}")), pattern(index, 100_000)).unwrap();
    }
    File::open(cluster.path("file-0")).unwrap().sync_all().unwrap();
    let blocks = fs::metadata(cluster.path("file-1")).unwrap().blocks();
    assert!((196..=256).contains(&blocks), "100000 bytes take {blocks} blocks of 512");
    assert!(soon(Duration::from_secs(10), || figures().f_ffree < before.f_ffree), "inodes are counted");
    let status = cluster.status();
    assert_eq!(status["transport"], transport.name());
    assert!(status.as_object().unwrap().len() > 3, "status has figures: {status}");
    cluster.finish();
}

/// A second client sees what the first one closed, within the second that attributes may be cached.
fn two_clients(transport: Transport) {
    let cluster = Cluster::start(transport);
    let other = cluster.second_mount();
    let limit = Duration::from_secs(3);
    fs::write(cluster.path("file"), "first").unwrap();
    assert!(soon(limit, || fs::read_to_string(other.join("file")).is_ok_and(|text| text == "first")));
    fs::write(other.join("file"), "second, longer").unwrap();
    assert!(soon(limit, || fs::read_to_string(cluster.path("file")).unwrap() == "second, longer"));
    fs::write(cluster.path("large"), pattern(0, 5 << 20)).unwrap();
    assert!(soon(limit, || fs::read(other.join("large")).is_ok_and(|bytes| bytes == pattern(0, 5 << 20))));
    fs::rename(other.join("file"), other.join("renamed")).unwrap();
    assert!(soon(limit, || !cluster.path("file").exists() && cluster.path("renamed").exists()));
    // Unlinked by one, open at the other.
    let mut file = File::open(cluster.path("large")).unwrap();
    fs::remove_file(other.join("large")).unwrap();
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(4 << 20)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, pattern(4 << 20, 1 << 20));
    drop(file);
    cluster.finish();
}

fn many_open(transport: Transport) {
    open_many(transport, transport.scale(4_000, 2_000));
}

/// By several processes: one may not have that many descriptors everywhere (`ulimit -Hn`).
#[test]
#[ignore = "minutes: cargo nextest run -p flexfs-mount --profile mount --run-ignored only -E 'test(hundred_thousand)'"]
fn hundred_thousand_open() {
    const EACH: u64 = 17_000;
    let options = Options { transport: Transport::Uring, flags: Vec::new(), state: None };
    let cluster = Cluster::with_life(options, Duration::from_secs(1800));
    let long = Duration::from_secs(600);
    let mut children: Vec<Child> = (0..6)
        .map(|index| Child::start(&format!("hold-many {} {EACH}", index * EACH), cluster.mnt()))
        .collect();
    for child in &children {
        assert_eq!(child.says(long).as_deref(), Some("done"));
    }
    assert!(cluster.status()["vfs"]["openFiles"].as_u64().unwrap() >= 6 * EACH);
    cluster.kill_meta();
    cluster.restart();
    for child in &mut children {
        child.tell();
    }
    for child in &children {
        assert_eq!(child.says(long).as_deref(), Some("done"), "a file is lost over a restart");
    }
    drop(children);
    cluster.finish();
}

/// Files open at once, each another inode, all of them written through their handle.
fn open_many(transport: Transport, count: u64) {
    let cluster = Cluster::start(transport);
    let limit = rustix::process::Rlimit { current: Some(count + 500), maximum: Some(count + 500) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap_or_else(|error| {
        panic!("{error}: {count} open files need a hard limit (`ulimit -Hn`) above that")
    });
    let open = |index: u64| {
        OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .open(cluster.path(format!("file-{index}")))
            .unwrap()
    };
    let files: Vec<File> = (0..count).map(open).collect();
    for (index, file) in files.iter().enumerate() {
        file.write_all_at(&(index as u64).to_le_bytes(), 0).unwrap();
    }
    for (index, file) in files.iter().enumerate() {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(u64::from_le_bytes(bytes), index as u64);
    }
    drop(files);
    cluster.finish();
}
