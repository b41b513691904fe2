//! A server that is away: operations wait, can be interrupted, and go on when it is back.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::time::Duration;

use rustix::process::Signal;

use crate::child::Child;
use crate::files::pattern;
use crate::harness::{Cluster, Run, Transport, now, soon, within};

/// Time for a client to notice that the server is back, and for the server to wait for its clients.
const RECOVERY: Duration = Duration::from_secs(40);

both!(dead_meta, frozen_meta, dead_admin, unmount_without_server, nothing_unwritten, moved_meta, quiet_end);

/// Time for an unmount that loses nothing, whatever the servers do.
const CLEAN_END: Duration = Duration::from_secs(8);

fn dead_meta(transport: Transport) {
    let cluster = Cluster::start(transport);
    // What this mount has looked at it can tell for a while without a server.
    let other = cluster.second_mount();
    for (mnt, name) in [(cluster.mnt(), "one"), (&other, "two"), (&other, "three")] {
        fs::write(mnt.join(name), pattern(0, 100_000)).unwrap();
    }
    let mut file = OpenOptions::new().append(true).open(cluster.path("one")).unwrap();
    cluster.kill_meta();
    std::thread::sleep(Duration::from_millis(1500));
    let mut impatient = Child::start("stat", &cluster.path("two"));
    let patient = Child::start("stat", &cluster.path("three"));
    assert!(impatient.is_waiting() && patient.is_waiting(), "an answer without a server");
    assert!(impatient.interrupt(Duration::from_secs(3)), "kill -INT does not end a waiting process");
    assert!(patient.says(Duration::from_secs(3)).is_none(), "gave up although it should wait");
    let writer = std::thread::spawn(move || {
        file.write_all(b"the end").unwrap();
        file.sync_all().unwrap();
    });
    std::thread::sleep(Duration::from_millis(300));
    cluster.restart();
    assert_eq!(patient.says(RECOVERY).as_deref(), Some("done"), "does not go on when the server is back");
    within(RECOVERY, "write across an outage", move || writer.join().unwrap());
    let bytes = fs::read(cluster.path("one")).unwrap();
    assert_eq!((bytes.len(), &bytes[100_000..]), (100_007, &b"the end"[..]));
    cluster.finish();
}

/// A server that holds its connections and says nothing is as dead as one that is gone.
fn frozen_meta(transport: Transport) {
    let cluster = Cluster::start(transport);
    fs::write(cluster.second_mount().join("one"), "x").unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let meta = cluster.meta();
    meta.signal(Signal::STOP);
    let mut impatient = Child::start("stat", &cluster.path("one"));
    assert!(impatient.is_waiting());
    let interrupted = impatient.interrupt(Duration::from_secs(3));
    let patient = Child::start("stat", &cluster.path("one"));
    std::thread::sleep(Duration::from_secs(15));
    meta.signal(Signal::CONT);
    assert!(interrupted, "kill -INT does not end a waiting process");
    assert_eq!(patient.says(RECOVERY).as_deref(), Some("done"));
    fs::write(cluster.path("two"), "y").unwrap();
    cluster.finish();
}

/// admin is needed for new sessions only: running ones go on without it, new ones are told what is missing.
fn dead_admin(transport: Transport) {
    let cluster = Cluster::start(transport);
    fs::write(cluster.path("one"), "x").unwrap();
    let (creds, admin) = (cluster.volume_creds(), cluster.admin());
    admin.kill();
    fs::write(cluster.path("two"), pattern(0, 300_000)).unwrap();
    // Not by `up`, which would start admin first.
    let meta = cluster.meta();
    meta.kill();
    meta.start_again(&cluster.root().join("meta-again.log"));
    let path = cluster.path("two");
    let bytes = within(RECOVERY, "read without admin", move || fs::read(path).unwrap());
    assert_eq!(bytes, pattern(0, 300_000));
    let mnt = cluster.root().join("mnt-other");
    fs::create_dir(&mnt).unwrap();
    let text = cluster.start_mount(&mnt, &creds, &[]).limit(60).fails().text();
    assert!(text.contains("admin"), "does not name admin: {text}");
    admin.start_again(&cluster.root().join("admin-again.log"));
    let tries = || cluster.start_mount(&mnt, &creds, &[]).run().status.success();
    assert!(soon(RECOVERY, tries), "no new mount after admin is back");
    Run::new("umount").arg(&mnt).ok();
    cluster.wait_mount_gone(&mnt);
    // What `up` did not start, `down` does not stop.
    cluster.meta().kill();
    cluster.admin().kill();
    cluster.restart();
    cluster.finish();
}

/// An operator can always take a mount away, whatever the servers do.
fn unmount_without_server(transport: Transport) {
    let cluster = Cluster::start(transport);
    fs::write(cluster.path("one"), "x").unwrap();
    // What is not durable when the server dies is lost with the client that is told to end at once.
    fs::File::open(cluster.path("one")).unwrap().sync_all().unwrap();
    cluster.kill_meta();
    cluster.admin().kill();
    let stuck = Child::start("stat", &cluster.path("other"));
    Run::new("umount").arg("-l").arg(cluster.mnt()).limit(20).ok();
    stuck.kill();
    // It would wait a minute for the server, for what was written; asked twice it does not.
    for _ in 0..2 {
        if let Some(mount) = cluster.mount_process(cluster.mnt()) {
            mount.signal(Signal::TERM);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    cluster.wait_mount_gone(cluster.mnt());
    cluster.up();
    assert_eq!(fs::read_to_string(cluster.path("one")).unwrap(), "x");
    cluster.finish();
}

/// Without anything to lose an unmount does not wait for a server that is away.
fn nothing_unwritten(transport: Transport) {
    let cluster = Cluster::start(transport);
    for (name, ends) in [("one", "umount -l"), ("two", "SIGTERM")] {
        fs::write(cluster.path(name), pattern(0, 100_000)).unwrap();
        fs::File::open(cluster.path(name)).unwrap().sync_all().unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        cluster.kill_meta();
        let mount = cluster.mount_process(cluster.mnt()).expect("the mount runs");
        let start = now();
        match ends {
            "SIGTERM" => mount.signal(Signal::TERM),
            command => drop(Run::shell(&format!("{command} \"$1\""), &[cluster.mnt()]).limit(20).ok()),
        }
        assert!(soon(Duration::from_secs(20), || !mount.is_alive()), "{ends}: the client stays");
        eprintln!("{ends}: {:?}", start.elapsed());
        assert!(start.elapsed() < CLEAN_END, "{ends} takes {:?}", start.elapsed());
        cluster.up();
        assert_eq!(fs::read(cluster.path(name)).unwrap(), pattern(0, 100_000));
    }
    cluster.finish();
}

/// The operator starts the metadata server at another address and tells admin: mounts follow.
fn moved_meta(transport: Transport) {
    let cluster = Cluster::start(transport);
    fs::write(cluster.path("one"), pattern(0, 100_000)).unwrap();
    let [port] = crate::harness::free_ports();
    let address = format!("127.0.0.1:{port}");
    let meta = cluster.meta();
    let old = meta.flag("--bindAddr").expect("up names the address").into_string().unwrap();
    meta.kill();
    let stores = cluster.configure_json(&["list", "meta-stores"]);
    let text = stores.to_string();
    let store = stores.as_array().or_else(|| stores["items"].as_array()).and_then(|list| list.first());
    let id = store.and_then(|store| store["id"].as_str()).unwrap_or_else(|| panic!("{text}")).to_owned();
    cluster.configure(&["update", "meta-store", &id, "--address", &address]).ok();
    meta.start_elsewhere(&old, &address, &cluster.root().join("meta-moved.log"));
    let path = cluster.path("one");
    let bytes = within(RECOVERY, "read from the moved server", move || fs::read(path).unwrap());
    assert_eq!(bytes, pattern(0, 100_000));
    fs::write(cluster.path("two"), "y").unwrap();
    assert_eq!(cluster.status()["link"]["metaAddr"], address.as_str());
    Run::new("umount").arg(cluster.mnt()).limit(60).ok();
    cluster.wait_mount_gone(cluster.mnt());
    cluster.configure(&["update", "meta-store", &id, "--address", &old]).ok();
    cluster.meta().kill();
    cluster.up();
    assert_eq!(fs::read_to_string(cluster.path("two")).unwrap(), "y");
    cluster.finish();
}

/// A mount that ends in good order has nothing to complain about, and neither have its servers.
fn quiet_end(transport: Transport) {
    let cluster = Cluster::start(transport);
    let mnt = cluster.root().join("mnt-quiet");
    fs::create_dir(&mnt).unwrap();
    let creds = cluster.volume_creds();
    cluster.start_mount(&mnt, &creds, &[]).ok();
    fs::write(mnt.join("one"), pattern(0, 3_000_000)).unwrap();
    fs::read(mnt.join("one")).unwrap();
    Run::new("umount").arg(&mnt).limit(60).ok();
    cluster.wait_mount_gone(&mnt);
    let log = fs::read_to_string(mnt.with_extension("log")).unwrap();
    assert!(!log.contains(" WARN ") && !log.contains(" ERROR "), "{log}");
    cluster.finish();
}
