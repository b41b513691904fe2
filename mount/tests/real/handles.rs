//! `name_to_handle_at(2)` and `open_by_handle_at(2)`, as NFS servers and backup programs use them.

use std::fs;
use std::path::Path;

use crate::harness::{Cluster, Run, Transport};

both!(handles);

const SCRIPT: &str = include_str!("scripts/handles.py");

fn make(paths: &[&Path]) -> Vec<String> {
    let ran = Run::new("python3").args(["-c", SCRIPT, "make"]).args(paths).ok();
    ran.out.lines().map(str::to_owned).collect()
}

fn used(mnt: &Path, handles: &[String]) -> Vec<String> {
    let ran = Run::new("python3").args(["-c", SCRIPT, "use"]).arg(mnt).args(handles).ok();
    ran.out.lines().map(str::to_owned).collect()
}

fn drop_caches() {
    Run::new("sync").ok();
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

fn handles(transport: Transport) {
    let cluster = Cluster::start(transport);
    let (deep, file, gone) = (cluster.path("one/two"), cluster.path("one/two/file"), cluster.path("gone"));
    fs::create_dir_all(&deep).unwrap();
    fs::write(&file, "content").unwrap();
    fs::write(&gone, "x").unwrap();
    let handles = make(&[&file, &deep, cluster.mnt(), &gone]);
    let wanted = ["content", "two: file", "mnt: gone one", "x"];
    assert_eq!(used(cluster.mnt(), &handles), wanted);
    // The kernel forgets them all, and asks by number; directories are found their way up again.
    drop_caches();
    assert!(cluster.status()["vfs"]["inodes"].as_u64().unwrap() < 3, "{}", cluster.status());
    assert_eq!(used(cluster.mnt(), &handles), wanted);
    // Moved meanwhile, by itself and with its folder.
    fs::rename(&file, cluster.path("moved")).unwrap();
    fs::rename(cluster.path("one"), cluster.path("other")).unwrap();
    drop_caches();
    assert_eq!(used(cluster.mnt(), &handles[..2]), ["content", "two: "]);
    // Removed: never again, not even another inode.
    fs::remove_file(&gone).unwrap();
    for index in 0..50 {
        fs::write(cluster.path(format!("new-{index}")), "new").unwrap();
    }
    drop_caches();
    assert_eq!(used(cluster.mnt(), &handles[3..]), ["ESTALE"]);
    // A number that this mount was never given, and ordinary users.
    let made_up = format!("{}{}", &handles[0][..16], "7f".repeat((handles[0].len() - 16) / 2));
    assert_eq!(used(cluster.mnt(), &[made_up]), ["ESTALE"]);
    let script = "import ctypes, sys; sys.argv = ['', 'use', *sys.argv[1:]]; exec(open('/dev/stdin').read())";
    let denied = Run::new("/usr/bin/python3").args(["-c", script]).arg(cluster.mnt()).arg(&handles[0]);
    let denied = denied.input(SCRIPT).user(1001).folder("/").run();
    assert!(denied.text().contains("EPERM"), "{}", denied.text());
    // A new mount was given nothing yet: the seals were the old one's. What it meets it knows.
    cluster.remount();
    assert_eq!(used(cluster.mnt(), &handles[..1]), ["ESTALE"]);
    fs::metadata(cluster.path("moved")).unwrap();
    assert_eq!(used(cluster.mnt(), &handles[..1]), ["content"]);
    cluster.finish();
}
