//! Clocks that jump by an hour: the metadata server's wall clock, while it runs and between two runs.
//!
//! `faketime` (Debian) stands between the server and the C library's clock and reads the offset from a file again and again.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::RECOVERY;
use super::workload::Workload;
use crate::child::Child;
use crate::harness::{Cluster, Process, Run, Transport};

one!(jumps);

/// What a jump and a slow test may add to a time stamp, seconds.
const SLACK_SECS: i64 = 120;

/// Nothing hangs on wall time but time stamps, and those stay in reason.
fn jumps(transport: Transport) {
    let cluster = super::cluster(transport);
    let other = cluster.second_mount();
    // The server reads it again and again, and reaches no other folder of ours than its own.
    let clock = cluster.state().join("meta/clock");
    set(&clock, 0);
    let meta = cluster.meta();
    shifted(&cluster, &meta, &clock);
    fs::write(cluster.path("locked"), "x").unwrap();
    let holder = Child::start("posix-wait 0 0", &cluster.path("locked"));
    assert_eq!(holder.says(RECOVERY).as_deref(), Some("done"));
    let folder = cluster.path("work");
    let script = "git init -q \"$1\"; cd \"$1\"; git config user.name n; git config user.email e; \
        echo one >file; git add file; git commit -qm one";
    Run::shell(script, &[&folder]).ok();
    fs::write(cluster.path("old"), "x").unwrap();
    let load = Workload::start(&[cluster.mnt(), &other], 60);
    let mut ctime = 0;
    for (round, (hours, restart)) in
        [(1, false), (-1, false), (1, true), (-1, true), (0, false)].into_iter().enumerate()
    {
        set(&clock, hours);
        if restart {
            shifted(&cluster, &meta, &clock);
        }
        load.goes_on(RECOVERY, "after a jump of the clock");
        // Longer than attributes are cached, and than a tick of the server.
        sleep(Duration::from_millis(1200));
        let (name, expected) = (cluster.path(format!("new-{round}")), wall() + hours * 3600);
        // At the server: until then the mount shows when the program was told, by the server's clock as it was seconds ago.
        let mut file = File::create(&name).unwrap();
        file.write_all(b"x").and_then(|()| file.sync_all()).unwrap();
        drop(file);
        let made = fs::metadata(&name).unwrap();
        println!("at {hours} h: mtime {} ctime {} off", made.mtime() - wall(), made.ctime() - wall());
        assert!(
            (made.ctime() - expected).abs() < SLACK_SECS,
            "a clock at {hours} h is not in force: {made:?}"
        );
        // Content has the time of the program that wrote it, as far as the server's clock has come, or the server's.
        let (least, most) = (expected.min(wall()), expected.max(wall()));
        let sane = least - SLACK_SECS..most + SLACK_SECS;
        assert!(sane.contains(&made.mtime()), "at {hours} h: {made:?}");
        // Content written anew does not take the change time of its file back with the clock.
        let mut old = OpenOptions::new().write(true).open(cluster.path("old")).unwrap();
        write!(old, "{round}").unwrap();
        drop(old);
        let changed = fs::metadata(cluster.path("old")).unwrap().ctime();
        assert!(changed >= ctime, "at {hours} h the change time goes back from {ctime} to {changed}");
        ctime = changed;
        changes_are_seen(&folder, round);
    }
    let denied = Child::start("posix-try 0 0", &other.join("locked"));
    assert_eq!(denied.says(RECOVERY).as_deref(), Some("failed"), "a lock was lost to a clock");
    drop((holder, denied));
    let ended = load.end(RECOVERY);
    ended.no_errors();
    ended.check(&[cluster.mnt(), &other]);
    for mnt in [cluster.mnt(), &other] {
        assert_eq!(cluster.link_figure(mnt, "sessionsLost"), 0, "{mnt:?} lost its session to a clock");
    }
    cluster.as_made_by_up();
    cluster.finish();
}

/// git goes by time stamps: a change that leaves the size alone is seen, and no change is no change.
fn changes_are_seen(folder: &Path, round: usize) {
    let status = || Run::new("git").args(["status", "--porcelain"]).folder(folder).ok().out;
    assert_eq!(status(), "");
    let mut file = OpenOptions::new().write(true).open(folder.join("file")).unwrap();
    write!(file, "{round}{round}{round}").unwrap();
    drop(file);
    assert_eq!(status(), " M file\n", "round {round}");
    Run::new("git").args(["commit", "-qam", "next"]).folder(folder).ok();
    assert_eq!(status(), "");
}

/// Starts the metadata server anew under the clock; `meta` as it was without.
fn shifted(cluster: &Cluster, meta: &Process, clock: &Path) {
    cluster.kill_meta();
    let file = format!("FAKETIME_TIMESTAMP_FILE={}", clock.to_str().unwrap());
    // The wrapper's own offset would win over the file.
    let words = ["faketime", "-f", "+0", "env", "-u", "FAKETIME", &file, "FAKETIME_NO_CACHE=1"];
    let mut words = words.to_vec();
    words.push("FAKETIME_DONT_FAKE_MONOTONIC=1");
    cluster.restart_behind(meta, &words);
}

fn set(clock: &Path, hours: i64) {
    let new = clock.with_extension("new");
    fs::write(&new, format!("{:+}\n", hours * 3600)).unwrap();
    fs::rename(new, clock).unwrap();
}

/// Seconds since 1970 by our own clock.
#[expect(clippy::disallowed_methods, reason = "tests measure real processes; no protocol logic here")]
fn wall() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}
