//! Processes that end, or are ended, while the server is away: they end, and what they wrote is not lost.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use crate::child::Child;
use crate::harness::{Cluster, Run, Transport, now, within};

/// Time for a killed process to be gone. Much less is usual; a server is only taken for dead after six seconds.
const KILLED: Duration = Duration::from_secs(3);
/// Time for a process that exits while the server is away.
const EXITED: Duration = Duration::from_secs(6);
/// Time for the server's recovery and the data behind it.
const RECOVERY: Duration = Duration::from_secs(40);
/// What children write.
static WRITTEN: [u8; 100_000] = [7; 100_000];

both!(killed, exit, exec, many);

/// A server that is there but says nothing: nobody knows yet that it is away.
fn killed(transport: Transport) {
    let cluster = Cluster::start(transport);
    fs::write(cluster.path("locked"), "x").unwrap();
    let _holder = Child::start("flock-ex", &cluster.path("locked"));
    let mut writers: Vec<Child> = ["write-fsync", "threads", "write-exit", "write-exec"]
        .iter()
        .map(|verb| Child::start(verb, &cluster.path(verb)))
        .collect();
    for child in &writers {
        assert_eq!(child.says(Duration::from_secs(5)).as_deref(), Some("done"));
    }
    let idle = Child::start("write-exit", &cluster.path("idle"));
    assert_eq!(idle.says(Duration::from_secs(5)).as_deref(), Some("done"));
    // What the kernel knows of names is forgotten by then.
    std::thread::sleep(Duration::from_millis(1500));
    cluster.meta().signal(Signal::STOP);
    let mut stuck = vec![("idle", idle)];
    for verb in ["stat", "create", "remove", "read", "flock-ex"] {
        let name = if verb == "create" { "fresh" } else { "locked" };
        stuck.push((verb, Child::start(verb, &cluster.path(name))));
    }
    writers.iter_mut().for_each(Child::tell);
    stuck.extend(["write-fsync", "threads", "write-exit", "write-exec"].into_iter().zip(writers));
    std::thread::sleep(Duration::from_millis(500));
    let times: Vec<_> = stuck.into_iter().map(|(verb, child)| (verb, child.kill_timed())).collect();
    eprintln!("{times:?}");
    for (verb, time) in &times {
        assert!(*time < KILLED, "{verb}: kill -9 takes {time:?}: {times:?}");
    }
    cluster.meta().signal(Signal::CONT);
    for name in ["write-fsync", "write-exit", "write-exec", "idle"] {
        let path = cluster.path(name);
        assert!(within(RECOVERY, "read", move || fs::read(path).unwrap()) == WRITTEN, "{name} is lost");
    }
    cluster.finish();
}

/// A program that ends without closing its file must end, with a server that is dead and with one that is frozen.
fn exit(transport: Transport) {
    let cluster = Cluster::start(transport);
    let mut frozen = Child::start("write-exit", &cluster.path("frozen"));
    assert_eq!(frozen.says(Duration::from_secs(5)).as_deref(), Some("done"));
    cluster.meta().signal(Signal::STOP);
    frozen.tell();
    assert!(frozen.ends(EXITED), "exit with a dirty file waits for a frozen server");
    cluster.meta().signal(Signal::CONT);
    let path = cluster.path("frozen");
    assert!(within(RECOVERY, "read", move || fs::read(path).unwrap()) == WRITTEN);
    let mut dead = Child::start("write-exit", &cluster.path("dead"));
    assert_eq!(dead.says(Duration::from_secs(5)).as_deref(), Some("done"));
    cluster.kill_meta();
    dead.tell();
    assert!(dead.ends(EXITED), "exit with a dirty file waits for a dead server");
    cluster.restart();
    let path = cluster.path("dead");
    assert!(within(RECOVERY, "read", move || fs::read(path).unwrap()) == WRITTEN);
    // With a server that answers, whoever sees the end of the process sees its data, on any client.
    let other = cluster.second_mount();
    let mut child = Child::start("write-exit", &cluster.path("there"));
    assert_eq!(child.says(Duration::from_secs(5)).as_deref(), Some("done"));
    child.tell();
    assert!(child.ends(EXITED));
    assert!(fs::read(other.join("there")).unwrap() == WRITTEN, "exit does not write through");
    cluster.finish();
}

/// A process in the middle of exec closes files too: the next program comes, and `ps` is not held up for long.
fn exec(transport: Transport) {
    let cluster = Cluster::start(transport);
    let mut child = Child::start("write-exec", &cluster.path("one"));
    assert_eq!(child.says(Duration::from_secs(5)).as_deref(), Some("done"));
    cluster.kill_meta();
    child.tell();
    std::thread::sleep(Duration::from_millis(500));
    let start = now();
    // Nothing is left to be shown when the process has gone meanwhile.
    Run::new("ps")
        .args(["-o", "pid,stat,args", "-p", &child.pid().to_string()])
        .limit(EXITED.as_secs())
        .run();
    eprintln!("ps took {:?}", start.elapsed());
    assert!(child.ends(EXITED), "exec with a dirty file waits for a dead server");
    cluster.restart();
    let path = cluster.path("one");
    assert!(within(RECOVERY, "read", move || fs::read(path).unwrap()) == WRITTEN);
    cluster.finish();
}

/// More waiting processes than a queue has places: each can still be killed, and one that exits ends.
fn many(transport: Transport) {
    let cluster = Cluster::start(transport);
    let mut exits = Child::start("write-exit", &cluster.path("one"));
    assert_eq!(exits.says(Duration::from_secs(5)).as_deref(), Some("done"));
    std::thread::sleep(Duration::from_millis(1500));
    cluster.kill_meta();
    let script = "for i in $(seq 150); do stat \"$1/absent-$i\" & done; sleep 1; echo go; wait";
    let mut crowd = Run::shell(script, &[cluster.mnt()]).spawn_piped();
    std::thread::sleep(Duration::from_secs(3));
    exits.tell();
    assert!(exits.ends(EXITED), "an exit waits behind other requests of its core");
    // Ends the whole group; all of it must go.
    crowd.kill_group(KILLED);
    cluster.restart();
    let path = cluster.path("one");
    assert!(within(RECOVERY, "read", move || fs::read(path).unwrap()) == WRITTEN);
    cluster.finish();
}
