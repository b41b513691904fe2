//! The metadata server dies again and again under the work of two clients.

use std::time::Duration;

use super::RECOVERY;
use super::workload::Workload;
use crate::harness::Transport;

both!(twenty);

/// kill -9 at moments nobody chose: both clients go on as if nothing had been, and what they did was done once.
fn twenty(transport: Transport) {
    let cluster = super::cluster(transport);
    let other = cluster.second_mount();
    let mounts = [cluster.mnt(), &other];
    let load = Workload::start(&mounts, 20);
    for round in 0..transport.scale(20, 5) {
        load.goes_on(RECOVERY, "after a restart");
        std::thread::sleep(Duration::from_millis(round * 37 % 200));
        let meta = cluster.meta();
        meta.kill();
        cluster.restart_server(&meta);
    }
    load.goes_on(RECOVERY, "after the last restart");
    let ended = load.end(RECOVERY);
    ended.no_errors();
    ended.check(&mounts);
    let lost = mounts.map(|mnt| cluster.link_figure(mnt, "sessionsLost"));
    assert_eq!(lost, [0, 0], "sessions lost to restarts");
    cluster.kill_meta();
    cluster.restart();
    ended.check(&mounts);
    cluster.finish();
}
