//! `rootSquash`: root is nobody, and everybody else is who he is.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use crate::harness::{Cluster, Run, Transport};
use crate::refusals::new_token;
use crate::revoke::guest;

both!(root_is_nobody, others_are_themselves);

/// The owner's mount and one of a machine whose root is not trusted.
fn squashed(transport: Transport) -> (Cluster, std::path::PathBuf) {
    let cluster = Cluster::start(transport);
    let token = new_token(&cluster, &["--flags", "rootSquash"]);
    let (mnt, _) = guest(&cluster, &token.text);
    fs::create_dir(cluster.path("desk")).unwrap();
    set_mode(&cluster.path("desk"), 0o1777);
    (cluster, mnt)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn finish(cluster: Cluster, mnt: &Path) {
    Run::new("umount").arg(mnt).limit(30).ok();
    cluster.wait_mount_gone(mnt);
    cluster.finish();
}

fn root_is_nobody(transport: Transport) {
    let (cluster, mnt) = squashed(transport);
    fs::write(cluster.path("secret"), "root's own").unwrap();
    set_mode(&cluster.path("secret"), 0o600);
    fs::create_dir(cluster.path("closed")).unwrap();
    fs::write(cluster.path("closed/inner"), "x").unwrap();
    set_mode(&cluster.path("closed"), 0o700);
    for script in [
        "cat \"$1/secret\"",
        "echo x >> \"$1/secret\"",
        "chmod 666 \"$1/secret\"",
        "rm -f \"$1/secret\"",
        "ls \"$1/closed\"",
        "cat \"$1/closed/inner\"",
        "touch \"$1/new\"",
        "touch \"$1/desk/mine\"; chown 0:0 \"$1/desk/mine\"",
        "mknod \"$1/desk/sda\" b 8 0",
    ] {
        Run::shell(script, &[&mnt]).fails();
    }
    // Not in the sticky directory: there the kernel lets root open with O_CREAT what is his own only (fs.protected_regular), and
    // what he makes is nobody's.
    fs::create_dir(cluster.path("free")).unwrap();
    set_mode(&cluster.path("free"), 0o777);
    Run::shell("echo x > \"$1/free/file\"; mkdir \"$1/free/dir\"; cat \"$1/free/file\"", &[&mnt]).ok();
    let made = fs::metadata(cluster.path("free/file")).unwrap();
    assert_eq!((made.uid(), made.gid()), (65_534, 65_534));
    assert_eq!(fs::read_to_string(cluster.path("secret")).unwrap(), "root's own");
    finish(cluster, &mnt);
}

/// What belongs to root and what users may do with it, and what they do among themselves, is as on any file system.
fn others_are_themselves(transport: Transport) {
    let (cluster, mnt) = squashed(transport);
    let user = |id: u32, script: &str| Run::shell(script, &[&mnt]).user(id).folder("/");
    user(1, "cd \"$1/desk\"; mkdir d; cp -r /etc/apt d/; tar cf t.tar d; mkdir x; tar xf t.tar -C x; diff -r d x/d").ok();
    user(
        1,
        "cd \"$1/desk\"; echo a > own; chmod 0 own; chmod 4755 own; mv own d/own; ln d/own link; rm d/own",
    )
    .ok();
    assert_eq!(fs::metadata(cluster.path("desk/link")).unwrap().mode(), 0o104_755);
    // A file that its owner shut himself out of, and still has open.
    user(1, "cd \"$1/desk\"; exec 3> shut; chmod 0 shut; echo late >&3; truncate -s 2 /dev/fd/3 || true; exec 3>&-").ok();
    user(2, "rm -f \"$1/desk/link\"").fails();
    // Of root's, by mode, by group, by access list; a program that may be run and not read; names without what they stand for.
    let roots = cluster.path("roots");
    fs::create_dir(&roots).unwrap();
    for (name, mode) in [("open", 0o666), ("team", 0o660), ("listed", 0o600)] {
        fs::write(roots.join(name), name).unwrap();
        set_mode(&roots.join(name), mode);
    }
    chown(roots.join("team"), None, Some(50)).unwrap();
    Run::shell("setfacl -m u:2:rw \"$1/listed\"; cp /bin/true \"$1/run\"; chmod 711 \"$1/run\"", &[&roots])
        .ok();
    Run::shell("mkdir \"$1/names\"; echo x > \"$1/names/one\"; chmod 744 \"$1/names\"", &[&roots]).ok();
    user(1, "cd \"$1/roots\"; cat open; echo more >> open; ./run; for f in team listed; do ! cat $f; done")
        .ok();
    user(2, "cd \"$1/roots\"; cat listed; echo more >> listed").ok();
    let words = ["setpriv", "--reuid", "1", "--regid", "1", "--groups", "50"];
    Run::shell("cd \"$1/roots\"; cat team; echo more >> team", &[&mnt]).behind(&words).ok();
    // The library behind the other transport cannot pass on a line without attributes.
    if transport == Transport::Uring {
        assert!(user(1, "ls \"$1/roots/names\" 2>/dev/null || true").ok().text().contains("one"));
    }
    for name in ["open", "team", "listed"] {
        assert_eq!(fs::read_to_string(roots.join(name)).unwrap(), format!("{name}more\n"));
    }
    finish(cluster, &mnt);
}
