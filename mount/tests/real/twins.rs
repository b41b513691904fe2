//! The same script on ext4 and on a mount: whatever the programs in it print, and however they end, must be the same.
//!
//! They run as root, as the users 1001 to 1004, and with groups; each line names its command, so a difference explains itself.

use std::fs;
use std::path::Path;

use crate::harness::{Cluster, Ext4, Run, Transport};

both!(access_lists, rights, attributes);

/// What every script can use.
const FRONT: &str = include_str!("scripts/twin.sh");

/// ACLs: checks, masks, inheritance, chmod, chown, programs that copy them.
fn access_lists(transport: Transport) {
    compare(transport, include_str!("scripts/acl.sh"), 600);
}

/// Times, set-gid and sticky directories, set-uid and set-gid after changes, owners, `O_NOATIME`, relatime.
fn rights(transport: Transport) {
    compare(transport, include_str!("scripts/rights.sh"), 150);
}

/// `user.`, `trusted.` and `security.` as root and as others; file capabilities.
fn attributes(transport: Transport) {
    compare(transport, include_str!("scripts/xattr.sh"), 80);
}

/// `lines_min`: a script that stops early compares nothing.
fn compare(transport: Transport, script: &str, lines_min: usize) {
    let cluster = Cluster::start(transport);
    let ext4 = Ext4::mount(&cluster.root().join("ext4"));
    let text = format!("{FRONT}\n{script}\necho end");
    let on = |folder: &Path| {
        let folder = folder.join("twin");
        fs::create_dir(&folder).unwrap();
        let run = Run::new("bash").args(["-uc", &text]).folder(&folder).env("TRANSPORT", transport.name());
        run.limit(120).run().out
    };
    let (there, here) = (on(ext4.path()), on(cluster.mnt()));
    assert!(there.lines().count() > lines_min && there.ends_with("end\n"), "the script on ext4:\n{there}");
    let differing: Vec<_> =
        there.lines().zip(here.lines()).filter(|(there, here)| there != here).take(20).collect();
    assert!(differing.is_empty(), "ext4, and here: {differing:#?}");
    assert_eq!(there.lines().count(), here.lines().count(), "{here}");
    drop(ext4);
    cluster.finish();
}
