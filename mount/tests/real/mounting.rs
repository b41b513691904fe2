//! Mounting and unmounting, as people do it by hand.

use std::fs;

use crate::harness::{Cluster, Run, Transport};

both!(again_at_once);

/// `umount X; mount X`: the program behind the first mount may not have ended yet, which is nobody's concern.
fn again_at_once(transport: Transport) {
    let cluster = Cluster::start(transport);
    let (mnt, creds) = (cluster.root().join("mnt-other"), cluster.volume_creds());
    fs::create_dir(&mnt).unwrap();
    for round in 0..5 {
        cluster.start_mount(&mnt, &creds, &[]).ok();
        fs::write(mnt.join("one"), round.to_string()).unwrap();
        Run::new("umount").arg(&mnt).ok();
    }
    cluster.start_mount(&mnt, &creds, &[]).ok();
    assert_eq!(fs::read_to_string(mnt.join("one")).unwrap(), "4");
    let refused = cluster.start_mount(&mnt, &creds, &[]).fails().text();
    assert!(refused.contains("mounted here already"), "{refused}");
    Run::new("umount").arg(&mnt).ok();
    cluster.wait_mount_gone(&mnt);
    cluster.finish();
}
