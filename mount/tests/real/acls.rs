//! Access control lists between clients and over restarts, mounts without them, and what they cost.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use crate::harness::{Cluster, Run, Transport, soon};

both!(clients, without, costs);

fn may_read(path: &Path, user: u32) -> bool {
    Run::new("cat").arg(path).user(user).folder("/").run().status.success()
}

/// A list that one client sets is enforced by another within the second attributes may be cached, and outlives both.
fn clients(transport: Transport) {
    let cluster = Cluster::start(transport);
    let other = cluster.second_mount();
    let (path, there) = (cluster.path("file"), other.join("file"));
    fs::write(&path, "x").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(!may_read(&there, 1001));
    let limit = Duration::from_secs(3);
    Run::new("setfacl").args(["-m", "u:1001:r"]).arg(&path).ok();
    assert!(soon(limit, || may_read(&there, 1001)), "a list does not reach the other client");
    Run::new("setfacl").args(["-m", "u:1001:-"]).arg(&there).ok();
    assert!(soon(limit, || !may_read(&path, 1001)), "a changed list does not reach the other client");
    Run::new("setfacl").args(["-m", "u:1001:r,u:1002:rw"]).arg(&there).ok();
    cluster.kill_meta();
    cluster.restart();
    assert!(soon(Duration::from_secs(20), || may_read(&path, 1001)));
    cluster.remount();
    assert!(may_read(&path, 1002) && !may_read(&path, 1003));
    let list = Run::new("getfacl").arg("-cnp").arg(&path).ok().out;
    assert_eq!(list, "user::rw-\nuser:1001:r--\nuser:1002:rw-\ngroup::---\nmask::rw-\nother::---\n\n");
    cluster.finish();
}

/// With `--noACL` programs are told that there are none, on that mount alone.
fn without(transport: Transport) {
    let cluster = Cluster::start(transport);
    let path = cluster.path("file");
    fs::write(&path, "x").unwrap();
    Run::new("setfacl").args(["-m", "u:1001:r"]).arg(&path).ok();
    Run::new("setfattr").args(["-n", "user.a", "-v", "1"]).arg(&path).ok();
    let mnt = cluster.root().join("plain");
    fs::create_dir(&mnt).unwrap();
    cluster.start_mount(&mnt, &cluster.volume_creds(), &["--noACL"]).ok();
    let there = mnt.join("file");
    let refused = Run::new("setfacl").args(["-m", "u:1002:r"]).arg(&there).fails().text();
    assert!(refused.contains("Operation not supported"), "{refused}");
    let refused = Run::new("getfattr").args(["-n", "system.posix_acl_access"]).arg(&there).fails().text();
    assert!(refused.contains("Operation not supported"), "{refused}");
    let names = Run::new("getfattr").args(["-m", "-"]).arg(&there).ok().out;
    assert!(names.contains("user.a") && !names.contains("acl"), "{names}");
    Run::new("umount").arg(&mnt).limit(60).ok();
    cluster.wait_mount_gone(&mnt);
    assert!(may_read(&path, 1001));
    cluster.finish();
}

/// Who uses no lists pays for none: no request for one reaches the server.
fn costs(transport: Transport) {
    let cluster = Cluster::start(transport);
    let folder = cluster.path("folder");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let files = 200;
    let asked = |work: &dyn Fn()| {
        let before = ["getxattr", "listxattr"].map(|kind| cluster.requests(kind));
        work();
        let after = ["getxattr", "listxattr"].map(|kind| cluster.requests(kind));
        after.iter().sum::<u64>() - before.iter().sum::<u64>()
    };
    // Made and written by root and by somebody who is not the folder's owner: the kernel checks lists for him.
    let make = asked(&|| {
        for index in 0..files {
            fs::write(folder.join(format!("root-{index}")), "x").unwrap();
        }
        let script = "for i in $(seq 200); do echo x >\"$1/user-$i\"; done";
        Run::shell(script, &[&folder]).user(1001).folder("/").ok();
    });
    let list = asked(&|| drop(Run::new("ls").arg("-l").arg(&folder).ok()));
    cluster.remount();
    let cold = asked(&|| drop(Run::new("ls").arg("-l").arg(&folder).ok()));
    let read = asked(&|| {
        Run::shell("cat \"$1\"/*", &[&folder]).user(1002).folder("/").ok();
    });
    println!("getxattr and listxattr at the server: make {make}, ls -l {list}, cold {cold}, read {read}");
    // A directory whose attributes have just run out is asked about once.
    for (what, count) in [("make", make), ("list", list), ("cold list", cold), ("read", read)] {
        assert!(count <= 5, "{what}: {count} requests for attributes nobody set");
    }
    // And who uses them is answered right.
    Run::new("setfacl").args(["-m", "u:1001:r"]).arg(folder.join("root-7")).ok();
    let listed = Run::new("ls").arg("-l").arg(&folder).ok().out;
    let marked: Vec<&str> =
        listed.lines().filter(|line| line.split(' ').next().unwrap().ends_with('+')).collect();
    assert!(matches!(marked[..], [line] if line.ends_with("root-7")), "{marked:?}");
    drop(File::open(&folder).unwrap());
    cluster.finish();
}
