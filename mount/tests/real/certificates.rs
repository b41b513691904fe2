//! Certificates of servers are short-lived and renewed by themselves: nobody restarts anything for them.

use std::collections::BTreeSet;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use crate::harness::{Cluster, Run, Transport, binary, now, soon};

one!(renewed, of_the_operator);

/// Life of the certificates, seconds: some of them fit into a test.
const LIFE: u64 = 12;

/// Serial number of the certificate that a server shows, and whether it is valid at this moment.
fn shown(address: &str, name: &str, protocol: &str) -> (String, bool) {
    let script = "openssl s_client -connect \"$0\" -servername \"$1\" -alpn \"$2\" </dev/null 2>/dev/null |
        openssl x509 -noout -serial -checkend 0";
    let run = Run::new("bash").args(["-c", script, address, name, protocol]);
    let text = run.run().out;
    let serial = text.lines().find_map(|line| line.strip_prefix("serial="));
    (
        serial.unwrap_or_else(|| panic!("{address} shows no certificate: {text}")).to_owned(),
        text.contains("not expire"),
    )
}

fn renewed(transport: Transport) {
    let cluster = Cluster::start(transport);
    fs::write(cluster.path("file"), "content").unwrap();
    let (admin, meta) = (cluster.admin(), cluster.meta());
    let address =
        |server: &crate::harness::Process| server.flag("--bindAddr").unwrap().into_string().unwrap();
    let (admin_at, meta_at) = (address(&admin), address(&meta));
    meta.kill();
    admin.kill();
    // The one it has is good for a month.
    fs::remove_dir_all(cluster.state().join("meta/tls")).unwrap();
    let admin = admin.with(&["--certLife", &format!("{LIFE}s")]);
    cluster.restart_server(&admin);
    cluster.restart_server(&meta);
    let back = || fs::read_to_string(cluster.path("file")).is_ok_and(|text| text == "content");
    assert!(soon(Duration::from_secs(30), back), "the servers do not come back");
    let pids = [cluster.admin().pid(), cluster.meta().pid()];

    let (mut of_admin, mut of_meta) = (BTreeSet::new(), BTreeSet::new());
    let start = now();
    while start.elapsed() < Duration::from_secs(3 * LIFE) {
        for (serials, address, name, protocol) in [
            (&mut of_admin, &admin_at, "admin.flexfs.internal", "http/1.1"),
            (&mut of_meta, &meta_at, "meta.flexfs.internal", "flexfs/1"),
        ] {
            let (serial, valid) = shown(address, name, protocol);
            assert!(valid, "{name} shows a certificate that has ended, after {:?}", start.elapsed());
            serials.insert(serial);
        }
        sleep(Duration::from_secs(1));
    }
    println!("in {:?}: {} of admin, {} of meta", start.elapsed(), of_admin.len(), of_meta.len());
    assert!(of_admin.len() >= 3 && of_meta.len() >= 3, "{of_admin:?} {of_meta:?}");
    // New mounts are verified by what is shown now; the old one never noticed.
    assert_eq!(fs::read_to_string(cluster.second_mount().join("file")).unwrap(), "content");
    assert_eq!([cluster.admin().pid(), cluster.meta().pid()], pids, "nothing was started anew");

    // Admin is away for longer than a certificate lives: once it is back, so is everything.
    cluster.admin().kill();
    sleep(Duration::from_secs(LIFE + 2));
    assert!(!shown(&meta_at, "meta.flexfs.internal", "flexfs/1").1, "there was nobody to renew it");
    fs::write(cluster.path("meanwhile"), "content").unwrap();
    cluster.restart_server(&admin);
    let valid = || shown(&meta_at, "meta.flexfs.internal", "flexfs/1").1;
    assert!(soon(Duration::from_secs(10), valid), "meta does not get a new one");
    assert_eq!(cluster.meta().pid(), pids[1]);
    assert_eq!(fs::read_to_string(cluster.second_mount().join("meanwhile")).unwrap(), "content");
    cluster.as_made_by_up();
    cluster.finish();
}

/// Certificates that the operator makes with the cluster's CA: shown, replaced while the server runs, and refused in words
/// where clients would refuse them.
fn of_the_operator(transport: Transport) {
    let cluster = Cluster::start(transport);
    fs::write(cluster.path("file"), "content").unwrap();
    let folder = cluster.root().join("own");
    fs::create_dir(&folder).unwrap();
    let make = |name: &str| {
        let script = r#"
            openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=own -keyout new.key -out new.csr
            openssl x509 -req -in new.csr -CA "$1/ca.pem" -CAkey "$1/ca.key" -days 2 -out new.pem \
                -extfile <(echo "subjectAltName=DNS:$2")
            cat new.pem "$1/ca.pem" >new.chain
            chmod 600 new.key && mv new.key own.key && mv new.chain own.pem"#;
        let run = Run::new("bash").args(["-ec", script, "make"]).arg(cluster.state().join("admin"));
        run.arg(name).folder(&folder).ok();
        let run = Run::new("openssl").args(["x509", "-noout", "-serial", "-in"]).arg(folder.join("own.pem"));
        run.ok().out.trim().trim_start_matches("serial=").to_owned()
    };
    let first = make("meta.flexfs.internal");
    let (cert, key) = (folder.join("own.pem"), folder.join("own.key"));
    let meta = cluster.meta();
    let address = meta.flag("--bindAddr").unwrap().into_string().unwrap();
    let serial = || shown(&address, "meta.flexfs.internal", "flexfs/1").0;
    let issued = serial();
    meta.kill();
    let meta = meta.with(&["--sslCert", cert.to_str().unwrap(), "--sslKey", key.to_str().unwrap()]);
    cluster.restart_server(&meta);
    let back = || fs::read_to_string(cluster.path("file")).is_ok_and(|text| text == "content");
    assert!(soon(Duration::from_secs(30), back), "the mount does not take the operator's certificate");
    assert_eq!(serial(), first);
    assert_ne!(first, issued);

    let second = make("meta.flexfs.internal");
    assert!(soon(Duration::from_secs(12), || serial() == second), "the new one is not shown");
    assert_eq!(fs::read_to_string(cluster.second_mount().join("file")).unwrap(), "content");
    // One that no client would take: the one in use stays, and the log says why.
    make("admin.flexfs.internal");
    let log = || fs::read_to_string(cluster.root().join("servers.log")).unwrap();
    assert!(
        soon(Duration::from_secs(12), || log().contains("is not valid for meta.flexfs.internal")),
        "{}",
        log()
    );
    assert_eq!(serial(), second);
    cluster.kill_meta();
    let text = Run::new(binary("meta")).args(meta.arguments()).fails().text();
    assert!(text.contains("own.pem") && text.contains("is not valid for meta.flexfs.internal"), "{text}");
    make("meta.flexfs.internal");
    Run::new("chmod").arg("o+r").arg(&key).ok();
    let text = Run::new(binary("meta")).args(meta.arguments()).fails().text();
    assert!(text.contains(&format!("chmod o= {}", key.display())), "{text}");
    Run::new("chmod").arg("o=").arg(&key).ok();
    cluster.restart_server(&meta);
    assert!(soon(Duration::from_secs(30), back), "the mount does not come back");
    cluster.as_made_by_up();
    cluster.finish();
}
