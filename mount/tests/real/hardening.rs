//! What servers and client have given up, as the kernel tells it, and that they need no root beyond their start.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::harness::{Cluster, Process, Run, Transport, binary, soon};

both!(given_up);
one!(servers_as_nobody, servers_become_nobody);

/// CAP_CHOWN and CAP_DAC_OVERRIDE.
const FILES: &str = "0000000000000003";
/// CAP_DAC_OVERRIDE, CAP_IPC_LOCK, CAP_SYS_PTRACE and CAP_SYS_ADMIN.
const MOUNTS: &str = "0000000000284002";
const NONE: &str = "0000000000000000";

/// Every thread of a process is held, and it leaves no core.
fn is_held(process: &Process, capabilities: &str) {
    for (key, wanted) in [
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("CapEff", capabilities),
        ("CapPrm", capabilities),
        ("CapInh", NONE),
    ] {
        let found = process.statuses(key);
        assert!(found.len() > 1, "{process:?} has more than one thread");
        assert!(found.iter().all(|value| value == wanted), "{key} of {process:?}: {found:?}");
    }
    let limits = fs::read_to_string(process.proc("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{process:?}");
    // Files in /proc of a process that is not dumpable are root's, whoever it runs as.
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(fs::metadata(process.proc("environ")).unwrap().uid(), 0, "{process:?} can be looked into");
}

fn works(cluster: &Cluster) {
    fs::write(cluster.path("file"), "content").unwrap();
    Run::new("sync").arg("-f").arg(cluster.path("file")).ok();
    let other = cluster.second_mount();
    assert_eq!(fs::read_to_string(other.join("file")).unwrap(), "content");
}

fn given_up(transport: Transport) {
    let cluster = Cluster::start(transport);
    works(&cluster);
    is_held(&cluster.admin(), FILES);
    is_held(&cluster.meta(), FILES);
    is_held(&cluster.mount_process(cluster.mnt()).unwrap(), MOUNTS);
    for name in ["admin", "meta", "mount"] {
        let log = fs::read_to_string(cluster.state().join(format!("log/{name}.log"))).unwrap();
        assert!(log.contains("given up what is not needed: user 0:0; capabilities"), "{name}: {log}");
        assert!(log.contains("refused"), "{name} holds no system calls: {log}");
        if name != "mount" && kernel_has_landlock() {
            assert!(log.contains("landlock files, ports, signals"), "{name}: {log}");
        }
    }
    cluster.finish();
}

fn kernel_has_landlock() -> bool {
    // Scopes came last (6.12).
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut parts = release.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next(), parts.next()) >= (Some(6), Some(12))
}

/// Stops both servers and gives their files to nobody.
fn hand_over(cluster: &Cluster) -> [Process; 2] {
    let servers = [cluster.admin(), cluster.meta()];
    for server in servers.iter().rev() {
        server.signal(rustix::process::Signal::TERM);
        assert!(soon(Duration::from_secs(20), || !server.is_alive()), "{server:?} does not stop");
    }
    for folder in ["", "creds"] {
        fs::set_permissions(cluster.state().join(folder), fs::Permissions::from_mode(0o711)).unwrap();
    }
    Run::new("chown")
        .args(["-R", "nobody:"])
        .args(["admin", "meta"].map(|name| cluster.state().join(name)))
        .ok();
    servers
}

fn is_nobody(process: &Process) {
    let nobody = Run::new("id").args(["-u", "nobody"]).ok().out;
    let uid = nobody.trim();
    let found = process.statuses("Uid");
    assert!(found.iter().all(|uids| uids.split('\t').all(|found| found == uid)), "{found:?}");
    is_held(process, NONE);
}

/// As a service manager with `User=` starts them.
fn servers_as_nobody(transport: Transport) {
    let cluster = Cluster::start(transport);
    fs::write(cluster.path("before"), "content").unwrap();
    let servers = hand_over(&cluster);
    Run::new("chown").arg("nobody:").arg(cluster.state().join("creds/meta")).ok();
    let bare = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"];
    for (server, name) in servers.into_iter().zip(["admin", "meta"]) {
        // Where it was built may be nobody's to look at.
        let program = cluster.root().join(format!("{name}-flexfs"));
        fs::copy(binary(name), &program).unwrap();
        cluster.restart_behind(&server.moved(program), &bare);
    }
    let back = || fs::read_to_string(cluster.path("before")).is_ok_and(|text| text == "content");
    assert!(soon(Duration::from_secs(30), back), "the mount does not find its servers again");
    works(&cluster);
    is_nobody(&cluster.admin());
    is_nobody(&cluster.meta());
    cluster.as_made_by_up();
    cluster.finish();
}

/// As root starts them with `--user`.
fn servers_become_nobody(transport: Transport) {
    let cluster = Cluster::start(transport);
    let refused = |server: &str, folder: &str| {
        let folder = cluster.state().join(folder);
        let run = Run::new(binary(server)).args(["start", "--user", "nobody", "--dbFolder"]).arg(&folder);
        let text = run.args(["--bindAddr", "127.0.0.1:0"]).fails().text();
        assert!(text.contains(&format!("chown -R nobody {}", folder.display())), "{text}");
    };
    refused("admin", "admin");
    refused("meta", "meta");
    for server in hand_over(&cluster) {
        cluster.restart_server(&server.with(&["--user", "nobody"]));
    }
    let back = || cluster.configure(&["list", "volumes"]).run().status.success();
    assert!(soon(Duration::from_secs(30), back), "admin does not come back");
    works(&cluster);
    is_nobody(&cluster.admin());
    is_nobody(&cluster.meta());
    cluster.as_made_by_up();
    cluster.finish();
}
