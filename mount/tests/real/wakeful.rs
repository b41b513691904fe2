//! CPUs that wake quickly while requests come.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Cluster, Run, Transport, binary, soon};

both!(while_requests_come);
one!(not_where_it_is_off);

fn while_requests_come(transport: Transport) {
    let cluster = Cluster::start(transport);
    let in_force = || cluster.status()["cpuLatency"]["inForce"] == Value::Bool(true);
    // While it is asked: programs take longer to start than the wish lasts.
    let ended = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        scope.spawn(|| {
            // No name twice: the kernel remembers what is missing.
            for number in (0_u64..).take_while(|_| !ended.load(Ordering::Relaxed)) {
                let _ = fs::metadata(cluster.path(format!("missing-{number}")));
            }
        });
        let seen = soon(Duration::from_secs(20), in_force);
        ended.store(true, Ordering::Relaxed);
        seen
    });
    assert!(seen, "requests come, and nothing is asked for");
    assert!(soon(Duration::from_secs(20), || !in_force()), "it is not taken back");
    let text = Run::new(binary("mount")).arg("status").arg(cluster.mnt()).run().text();
    assert!(text.contains("latency of idle CPUs") && text.contains("micros"), "{text}");
    cluster.finish();
}

fn not_where_it_is_off(transport: Transport) {
    let cluster = Cluster::start(transport);
    let mnt = cluster.root().join("other");
    fs::create_dir(&mnt).unwrap();
    cluster.start_mount(&mnt, &cluster.volume_creds(), &["--cpuLatency", "off"]).ok();
    assert!(cluster.status_of(&mnt).get("cpuLatency").is_none());
    Run::new("umount").arg(&mnt).ok();
    cluster.wait_mount_gone(&mnt);
    cluster.finish();
}
