//! meta.flexfs as a process: starting twice, stopping, verifying.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;

use flexfs_wire::message::{Notice, Request};

use crate::client::cluster::Cluster;

#[test]
fn stops_in_order_and_verifies_clean() {
    let mut cluster = Cluster::start();
    let mut session = cluster.open();
    let file = session.make(session.root(), "f", 0o100_600);
    session.write_inline(file.node, b"kept");

    let running = cluster.verify();
    let text = String::from_utf8_lossy(&running.stderr).into_owned();
    assert!(!running.status.success() && text.contains("in use by another meta.flexfs"), "{text}");
    let second = cluster
        .meta_command("start")
        .args(["--bindAddr", "127.0.0.1:0", "--metricsAddr", "127.0.0.1:0", "--credsFile"])
        .arg(cluster.path("meta-creds"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && text.contains("in use by another meta.flexfs"), "{text}");
    assert!(cluster.stop_meta(), "{}", cluster.log());
    session.link.wait_closed();
    assert!(session.link.notices.contains(&Notice::Closing));
    let checked = cluster.verify();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    let mode = |name: &str| cluster.path(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("meta/tls/key.pem"), mode("meta-creds"), mode("meta")), (0o600, 0o600, 0o700));

    // Everything is found again, by the same session.
    cluster.start_meta();
    session.recover(Vec::new());
    assert_eq!(session.read_inline(file.node), b"kept");
    session.get(Request::Leave);
}

#[test]
fn a_port_in_use_is_named() {
    let mut cluster = Cluster::start();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    assert!(cluster.stop_meta());
    for (bind, metrics) in [(addr.as_str(), "127.0.0.1:0"), ("127.0.0.1:0", addr.as_str())] {
        let output = cluster
            .meta_command("start")
            .args(["--bindAddr", bind, "--metricsAddr", metrics, "--credsFile"])
            .arg(cluster.path("meta-creds"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(&addr) && text.contains("in use"), "{text}");
    }
    // A running server's own port too, though its sockets allow sharing.
    cluster.start_meta();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_meta-flexfs"))
        .args([
            "start",
            "--bindAddr",
            &cluster.addr.to_string(),
            "--metricsAddr",
            "127.0.0.1:0",
            "--credsFile",
        ])
        .arg(cluster.path("meta-creds"))
        .arg("--dbFolder")
        .arg(cluster.path("elsewhere"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("--bindAddr"), "{text}");
}

#[test]
fn credentials_are_checked_before_they_are_written() {
    let cluster = Cluster::start();
    let creds = cluster.path("other-creds");
    let run = |token: &str, admin: &str| {
        std::fs::write(cluster.path("t"), token).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_meta-flexfs"))
            .args(["init", "creds", "--adminAddr", admin, "--tokenFile"])
            .arg(cluster.path("t"))
            .arg("--credsFile")
            .arg(&creds)
            .output()
            .unwrap();
        assert!(!output.status.success() && !creds.exists());
        String::from_utf8(output.stderr).unwrap()
    };
    let text = run(&cluster.token, "127.0.0.1:1");
    assert!(text.contains("this is a volume token, but a meta token is needed"), "{text}");
    let text = run(&cluster.meta_token, "127.0.0.1:1");
    assert!(text.contains("cannot be reached"), "{text}");
    let text = run(&cluster.meta_token, &cluster.addr.to_string());
    assert!(text.contains("admin at"), "{text}");
    std::fs::set_permissions(cluster.path("meta-creds"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_meta-flexfs"))
        .args(["start", "--bindAddr", "127.0.0.1:0", "--metricsAddr", "127.0.0.1:0", "--credsFile"])
        .arg(cluster.path("meta-creds"))
        .arg("--dbFolder")
        .arg(cluster.path("elsewhere"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("chmod 600"), "{text}");
}

#[test]
fn health_and_metrics_answer() {
    let cluster = Cluster::start();
    let mut session = cluster.open();
    session.get(Request::StatFs);
    let get = |path: &str| {
        let mut stream = std::net::TcpStream::connect(cluster.metrics).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    assert!(get("/healthz").starts_with("HTTP/1.1 200"));
    assert!(get("/nothing").starts_with("HTTP/1.1 404"));
    std::thread::sleep(std::time::Duration::from_millis(700));
    session.get(Request::StatFs);
    let text = get("/metrics");
    for name in
        ["flexfs_meta_requests", "flexfs_meta_sessions", "flexfs_meta_links", "flexfs_meta_durable_lag"]
    {
        assert!(text.contains(name), "{name}: {text}");
    }
}

/// Calls of one client that come one after the other meet a volume nobody works at: the core that has them answers them.
#[test]
fn a_core_answers_what_it_can_itself() {
    let cluster = Cluster::start();
    let mut session = cluster.open();
    for _ in 0..200 {
        session.get(Request::StatFs);
    }
    // The thread sets the figures twice a second.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let text = cluster.scrape();
    let by = |who: &str| -> u64 {
        let by = format!("by=\"{who}\"");
        let mut lines =
            text.lines().filter(|line| line.starts_with("flexfs_meta_messages") && line.contains(&by));
        lines.next().map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    };
    // A machine that is busy otherwise makes some turns long, and what follows them is the thread's.
    assert!(by("core") >= 20 && by("core") + by("thread") >= 201, "{text}");
    assert!(by("thread") > 0, "sessions are the thread's: {text}");
}

#[test]
fn credentials_open_to_others_are_refused() {
    let mut cluster = Cluster::start();
    assert!(cluster.stop_meta());
    let creds = cluster.path("meta-creds");
    for mode in [0o640, 0o604, 0o620] {
        std::fs::set_permissions(&creds, std::fs::Permissions::from_mode(mode)).unwrap();
        let output = cluster
            .meta_command("start")
            .args(["--bindAddr", "127.0.0.1:0", "--metricsAddr", "127.0.0.1:0", "--credsFile"])
            .arg(&creds)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && text.contains(&format!("chmod 600 {}", creds.display())),
            "{text}"
        );
        assert!(!text.contains(&cluster.meta_token), "{text}");
    }
}

/// A key that others could read may have been read: meta gets another one instead of going on with it.
#[test]
fn a_key_open_to_others_is_replaced() {
    let mut cluster = Cluster::start();
    assert!(cluster.stop_meta());
    let key = cluster.path("meta/tls/key.pem");
    let before = std::fs::read(&key).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    cluster.start_meta();
    assert!(cluster.log().contains("the kept key is not used any more"), "{}", cluster.log());
    assert_ne!(std::fs::read(&key).unwrap(), before);
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    drop(cluster.open());
}
