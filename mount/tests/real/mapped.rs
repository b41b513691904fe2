//! Mapped files.

use std::fs;

use crate::harness::{Cluster, Run, Transport};

both!(processes);

/// Mappings of two processes, their reads, writes and truncations are one file; what was flushed is at the server.
fn processes(transport: Transport) {
    let cluster = Cluster::start(transport);
    let script = include_str!("scripts/mapped.py");
    // Made by another process and of another size before, so that a stale page would show.
    fs::write(cluster.path("file"), vec![0xff; 3_000_000]).unwrap();
    fs::write(cluster.path("file"), "").unwrap();
    let user = cluster.path("user");
    fs::write(&user, "").unwrap();
    std::os::unix::fs::chown(&user, Some(1001), Some(1001)).unwrap();
    let run =
        |path: &std::path::Path| Run::new("/usr/bin/python3").args(["-c", script]).arg(path).folder("/");
    assert_eq!(run(&cluster.path("file")).ok().out, "good\n");
    assert_eq!(run(&user).user(1001).ok().out, "good\n");
    let before = fs::read(&user).unwrap();
    cluster.remount();
    assert!(fs::read(&user).unwrap() == before);
    assert_eq!((before.len() % 4096, before[10]), (0, 99));
    cluster.finish();
}
