//! A token taken back ends the mounts it opened.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use rustix::io::Errno;

use crate::files::pattern;
use crate::harness::{Cluster, Run, Transport, now, soon};
use crate::names::code;
use crate::refusals::{new_token, write_creds};

/// From the deletion to the first refusal; design.md promises a second, attributes may be cached for another.
const BOUND: Duration = Duration::from_millis(2500);

both!(running_mount, read_only_and_scope);

fn running_mount(transport: Transport) {
    let cluster = Cluster::start(transport);
    fs::write(cluster.path("file"), pattern(0, 100_000)).unwrap();
    let token = new_token(&cluster, &[]);
    let creds = cluster.root().join("creds");
    write_creds(&cluster, &creds, &token.text);
    let mnt = cluster.root().join("mnt-guest");
    fs::create_dir(&mnt).unwrap();
    cluster.start_mount(&mnt, &creds, &[]).ok();
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

/// What a token permits is the server's business: read-only, and a directory as root.
fn read_only_and_scope(transport: Transport) {
    let cluster = Cluster::start(transport);
    fs::create_dir_all(cluster.path("released/inner")).unwrap();
    fs::write(cluster.path("released/inner/file"), "public").unwrap();
    fs::write(cluster.path("secret"), "not yours").unwrap();
    let token = new_token(&cluster, &["--mountPath", "/released", "--flags", "ro"]);
    let creds = cluster.root().join("creds");
    write_creds(&cluster, &creds, &token.text);
    let mnt = cluster.root().join("mnt-guest");
    fs::create_dir(&mnt).unwrap();
    cluster.start_mount(&mnt, &creds, &[]).ok();
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
