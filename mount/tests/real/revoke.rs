//! A token taken back ends the mounts it opened.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flexfs_wire::token::Token;
use rustix::io::Errno;

use crate::files::pattern;
use crate::harness::{Cluster, Run, Transport, now, soon};
use crate::names::code;
use crate::refusals::{new_token, write_creds};

/// From the deletion to the first refusal; design.md promises a second, attributes may be cached for another.
const BOUND: Duration = Duration::from_millis(2500);

both!(running_mount, unwritten_data, rotation_under_load, read_only_and_scope);

/// A mount of its own with this token, and its credentials file.
pub(crate) fn guest(cluster: &Cluster, token: &str) -> (PathBuf, PathBuf) {
    let creds = cluster.root().join("creds");
    write_creds(cluster, &creds, token);
    let mnt = cluster.root().join("mnt-guest");
    fs::create_dir(&mnt).unwrap();
    cluster.start_mount(&mnt, &creds, &[]).ok();
    (mnt, creds)
}

fn running_mount(transport: Transport) {
    let cluster = Cluster::start(transport);
    fs::write(cluster.path("file"), pattern(0, 100_000)).unwrap();
    let token = new_token(&cluster, &[]);
    let (mnt, creds) = guest(&cluster, &token.text);
    assert!(fs::read(mnt.join("file")).unwrap() == pattern(0, 100_000));
    cluster.configure(&["delete", "volume-token", &token.id]).ok();
    let start = now();
    let refused =
        || fs::read(mnt.join("file")).is_err_and(|error| Errno::from_io_error(&error) == Some(Errno::ACCESS));
    assert!(soon(Duration::from_secs(10), refused), "the mount goes on without its token");
    println!("refused {:?} after the deletion", start.elapsed());
    assert!(start.elapsed() < BOUND, "took {:?}", start.elapsed());
    assert_eq!(code(fs::write(mnt.join("new"), "x")), Errno::ACCESS);
    assert_eq!(
        code(fs::read_dir(&mnt).and_then(|mut dir| dir.next().unwrap_or(Err(Errno::NOENT.into())))),
        Errno::ACCESS
    );
    // The owner's own mount goes on; the guest's can be taken away, and does not come back.
    assert!(fs::read(cluster.path("file")).unwrap() == pattern(0, 100_000));
    Run::new("umount").arg(&mnt).limit(30).ok();
    cluster.wait_mount_gone(&mnt);
    let text = cluster.start_mount(&mnt, &creds, &[]).fails().text();
    assert!(text.contains("revoked") || text.contains("unknown"), "{text}");
    cluster.finish();
}

/// What was written and not yet sent when the token goes is refused, told to the program, told once in the log, and keeps
/// nobody from unmounting. Nothing that was cached is shown any more.
fn unwritten_data(transport: Transport) {
    let cluster = Cluster::start(transport);
    let token = new_token(&cluster, &[]);
    let (mnt, _) = guest(&cluster, &token.text);
    let create = |name: &str| {
        fs::File::options().read(true).write(true).create(true).truncate(true).open(mnt.join(name)).unwrap()
    };
    let mut kept = create("kept");
    kept.write_all(&pattern(0, 300_000)).unwrap();
    kept.sync_all().unwrap();
    assert_eq!(code(fs::metadata(mnt.join("absent"))), Errno::NOENT);
    // It writes until it is refused, so something is always on its way.
    let mut file = create("dirty");
    let refused = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let chunk = pattern(1, 1 << 16);
            (0..1 << 15).find_map(|_| file.write_all(&chunk).err())
        });
        std::thread::sleep(Duration::from_millis(200));
        cluster.configure(&["delete", "volume-token", &token.id]).ok();
        let refused = writer.join().unwrap().expect("2 GiB were written without a token");
        code(Err::<(), _>(refused))
    });
    assert_eq!((refused, code(file.metadata())), (Errno::ACCESS, Errno::ACCESS));
    // Every way in which a program can ask, more than once.
    for _ in 0..3 {
        assert_eq!(code(file.sync_all()), Errno::ACCESS);
        assert_eq!(code(file.write_all(b"more")), Errno::ACCESS);
    }
    let gone = |name: &str| fs::metadata(mnt.join(name)).map_err(|error| code(Err::<(), _>(error)));
    for name in ["kept", "absent", "dirty", "never-seen"] {
        assert!(
            soon(BOUND, || gone(name).is_err_and(|errno| errno == Errno::ACCESS)),
            "{name} is still told of"
        );
    }
    // Pages go a moment later than names.
    let read = || std::os::unix::fs::FileExt::read_at(&kept, &mut [0], 0);
    assert!(soon(BOUND, || read().is_err()), "what was cached is still shown");
    assert_eq!(code(read()), Errno::ACCESS);
    drop((file, kept));
    Run::new("umount").arg(&mnt).limit(30).ok();
    cluster.wait_mount_gone(&mnt);
    let log = cluster.log_of(&mnt);
    let count = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(count("the session has ended"), 1, "{log}");
    assert_eq!(count("is lost"), 1, "one line for the file that lost something: {log}");
    assert!(!log.contains("panicked"), "{log}");
    // What was acknowledged is there.
    assert!(fs::read(cluster.path("kept")).unwrap() == pattern(0, 300_000));
    cluster.finish();
}

/// Raises a flag when it goes.
struct Raised<'a>(&'a AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Tokens are turned while the mounts that hold them work: with an overlap no call fails, and new mounts come up with either
/// token until it is over.
fn rotation_under_load(transport: Transport) {
    let cluster = Cluster::start(transport);
    let mut token = new_token(&cluster, &[]);
    let (mnt, creds) = guest(&cluster, &token.text);
    let stop = AtomicBool::new(false);
    let calls = std::thread::scope(|scope| {
        let worker = |number: usize| {
            let folder = mnt.join(format!("worker-{number}"));
            let stop = &stop;
            move || -> std::io::Result<u64> {
                fs::create_dir(&folder)?;
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    let path = folder.join(format!("file-{}", count % 50));
                    let mut file = fs::File::create(&path)?;
                    file.write_all(&pattern(count, 20_000))?;
                    if count.is_multiple_of(7) {
                        file.sync_all()?;
                    }
                    drop(file);
                    assert!(fs::read(&path)? == pattern(count, 20_000));
                    fs::rename(&path, folder.join(format!("done-{}", count % 50)))?;
                    count += 1;
                }
                Ok(count)
            }
        };
        let workers: Vec<_> = (0..2).map(|number| scope.spawn(worker(number))).collect();
        // Also when a step fails: the scope waits for them.
        let ending = Raised(&stop);
        for round in 0..4 {
            let old = creds.with_extension(format!("old-{round}"));
            fs::copy(&creds, &old).unwrap();
            let made = cluster.configure_json(&["rotate", "volume-token", &token.id, "--overlap", "24h"]);
            token.text = made["token"].as_str().unwrap().to_owned();
            token.id = Token::parse(&token.text).unwrap().id.to_string();
            write_creds(&cluster, &creds, &token.text);
            for (kind, file) in [("old", &old), ("new", &creds)] {
                let other = cluster.root().join(format!("mnt-{kind}-{round}"));
                fs::create_dir(&other).unwrap();
                cluster.start_mount(&other, file, &[]).ok();
                assert!(other.join("worker-0").is_dir());
                Run::new("umount").arg(&other).limit(30).ok();
                cluster.wait_mount_gone(&other);
            }
        }
        drop(ending);
        workers.into_iter().map(|worker| worker.join().unwrap().expect("a call failed")).sum::<u64>()
    });
    println!("{calls} rounds of calls while the token was turned four times");
    assert!(calls > 20, "no load: {calls}");
    Run::new("umount").arg(&mnt).limit(30).ok();
    cluster.wait_mount_gone(&mnt);
    cluster.finish();
}

/// What a token permits is the server's business: read-only, and a directory as root.
fn read_only_and_scope(transport: Transport) {
    let cluster = Cluster::start(transport);
    fs::create_dir_all(cluster.path("released/inner")).unwrap();
    fs::write(cluster.path("released/inner/file"), "public").unwrap();
    fs::write(cluster.path("secret"), "not yours").unwrap();
    let token = new_token(&cluster, &["--mountPath", "/released", "--flags", "ro"]);
    let (mnt, _) = guest(&cluster, &token.text);
    assert_eq!(fs::read_to_string(mnt.join("inner/file")).unwrap(), "public");
    assert_eq!(fs::read_dir(&mnt).unwrap().count(), 1);
    assert!(!mnt.join("../secret").exists() && !mnt.join("secret").exists());
    assert_eq!(code(fs::write(mnt.join("inner/new"), "x")), Errno::ROFS);
    let append = fs::OpenOptions::new().append(true).custom_flags(0).open(mnt.join("inner/file"));
    assert_eq!(code(append), Errno::ROFS);
    assert_eq!(code(fs::remove_file(mnt.join("inner/file"))), Errno::ROFS);
    // What the owner does is seen.
    fs::write(cluster.path("released/inner/file"), "news").unwrap();
    assert!(soon(Duration::from_secs(3), || fs::read_to_string(mnt.join("inner/file")).unwrap() == "news"));
    Run::new("umount").arg(&mnt).limit(30).ok();
    cluster.wait_mount_gone(&mnt);
    cluster.finish();
}
