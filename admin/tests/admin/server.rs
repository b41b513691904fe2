//! admin.flexfs as a process: starting, stopping, and clients that do not play by the rules.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::bench::{ADMIN, Server, within};

fn plain(server: &Server) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

fn healthy(server: &Server) {
    assert_eq!(server.call("GET", "/healthz", "", "").0, 200);
}

#[test]
fn plaintext_clients_are_told_about_tls() {
    let server = Server::start();
    let mut socket = plain(&server);
    socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("TLS 1.3 only: use https://"), "{answer}");
    healthy(&server);
}

#[test]
fn garbage_is_dropped_and_the_server_goes_on() {
    let server = Server::start();
    for bytes in
        [&[0u8; 600][..], &[0xff; 10], b"\x16\x03\x01\xff\xff garbage that claims to be a hello", b"\n"]
    {
        let mut socket = plain(&server);
        socket.write_all(bytes).unwrap();
        let mut rest = Vec::new();
        // Closed within the time of a handshake, with or without an alert.
        let _ = socket.read_to_end(&mut rest);
        assert!(rest.len() < 100);
    }
    let mut seed = 1u64;
    for _ in 0..50 {
        let mut bytes = vec![0x16, 3, 1, 0, 200];
        bytes.extend((0..200).map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed.to_be_bytes()[0]
        }));
        let _ = plain(&server).write_all(&bytes);
    }
    healthy(&server);
}

#[test]
fn http_garbage_is_answered_and_the_server_goes_on() {
    let server = Server::start();
    let huge = format!("{{\"code\":\"{}\"}}", "x".repeat(200_000));
    for (method, path, body, wanted) in [
        ("POST", "/v1/configure/providers", "{", 400),
        ("POST", "/v1/configure/providers", "[]", 400),
        ("POST", "/v1/configure/providers", "\u{0}", 400),
        ("POST", "/v1/configure/providers", huge.as_str(), 413),
        ("POST", "/v1/configure/providers", "{\"code\":{\"a\":1}}", 400),
        ("PATCH", "/v1/configure/providers", "", 405),
        ("GET", "/v1/configure/volumes/%00%ff", "", 400),
        ("GET", "/v1/configure/volumes/..%2f..%2fetc", "", 404),
        ("GET", "/v1/configure/volumes?limit=99999999999999999999", "", 400),
        ("GET", "/nothing", "", 404),
    ] {
        let (status, text) = server.call(method, path, &server.account, body);
        assert_eq!(status, wanted, "{method} {path}: {text}");
        assert!(text.contains("urn:flexfs:problem:"), "{method} {path}: {text}");
    }
    let mut stream = server.connect();
    stream.write_all(b"\x00\x01 not http\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    healthy(&server);
}

#[test]
fn silent_connections_do_not_keep_others_out() {
    let server = Server::start();
    let silent: Vec<_> = (0..300).map(|_| plain(&server)).collect();
    let half: Vec<_> = (0..20)
        .map(|_| {
            let mut socket = plain(&server);
            let _ = socket.write_all(&[0x16, 3, 1]);
            socket
        })
        .collect();
    // Their handshakes are cut off after five seconds, which also frees the turns of this address.
    std::thread::sleep(Duration::from_millis(5500));
    healthy(&server);
    drop((silent, half));
}

#[test]
fn started_once_initialized_once() {
    let mut server = Server::start();
    let db = server.path("db");
    let run = |arguments: &[&str]| {
        let output = Command::new(ADMIN).args(arguments).arg("--dbFolder").arg(&db).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let text = run(&["start", "--bindAddr", "127.0.0.1:0"]);
    assert!(text.contains("another admin.flexfs works on"), "{text}");
    assert!(server.stop());
    let text = run(&["init"]);
    assert!(text.contains("was initialized before; nothing was changed"), "{text}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let text = run(&["start", "--bindAddr", &format!("127.0.0.1:{port}")]);
    assert!(text.contains(&format!("port {port} is in use")) && text.contains("--bindAddr"), "{text}");
    // Everything is found again.
    server.port = 0;
    server.launch();
    assert_eq!(server.call("GET", "/v1/configure/accounts", &server.account, "").0, 200);
}

#[test]
fn init_before_start() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(ADMIN).args(["start", "--dbFolder"]).arg(dir.path()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("admin.flexfs init"), "{text}");
}

#[test]
fn a_lost_account_token_is_replaced_on_the_server() {
    let server = Server::start();
    let made = Command::new(ADMIN)
        .args(["init", "account", "rescue", "--dbFolder"])
        .arg(server.path("db"))
        .output()
        .unwrap();
    let token = String::from_utf8(made.stdout).unwrap();
    assert_eq!(server.call("GET", "/v1/configure/accounts", token.trim(), "").0, 200);
}

/// The log is on a disk that is full: lines are lost, the server goes on.
#[test]
fn a_log_that_cannot_be_written_ends_nobody() {
    let mut server = Server::start();
    assert!(server.stop());
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut child = Command::new(ADMIN)
        .args(["start", "--bindAddr", &server.address(), "--dbFolder"])
        .arg(server.path("db"))
        .stderr(full)
        .spawn()
        .unwrap();
    within(Duration::from_secs(15), || {
        server.try_configure(&["list", "accounts"]).status.success().then_some(())
    });
    server.configure(&["create", "provider", "aws"]);
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Credentials of configure, the CA's key, and a key of the operator's.
#[test]
fn keys_and_credentials_open_to_others_are_refused() {
    let mut server = Server::start();
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let creds = server.path("creds");
    open(&creds, 0o644);
    let text = server.refused(&["list", "accounts"]);
    assert!(
        text.contains(&format!("chmod 600 {}", creds.display())) && !text.contains(&server.account),
        "{text}"
    );
    assert!(server.stop());
    let start = |more: &[&Path]| {
        let mut command = Command::new(ADMIN);
        command.args(["start", "--bindAddr", "127.0.0.1:0", "--dbFolder"]).arg(server.path("db"));
        for (flag, path) in ["--sslCert", "--sslKey"].iter().zip(more) {
            command.arg(flag).arg(path);
        }
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let key = server.path("own.key");
    fs::write(&key, "no key").unwrap();
    open(&key, 0o644);
    let text = start(&[&server.path("db/ca.pem"), &key]);
    assert!(text.contains(&format!("chmod o= {}", key.display())), "{text}");
    let key = server.path("db/ca.key");
    open(&key, 0o640);
    assert!(start(&[]).contains(&format!("chmod 600 {}", key.display())));
}

/// The organisation's own issuing CA becomes the cluster's: tokens pin it, and what admin signs is taken.
#[test]
fn an_operators_ca_is_the_clusters() {
    let dir = tempfile::tempdir().unwrap();
    let [cert, key] = ["issuing.pem", "issuing.key"].map(|name| dir.path().join(name).display().to_string());
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-384",
            "-nodes",
            "-days",
            "30",
        ])
        .args(["-subj", "/O=Institute/CN=Issuing CA 7", "-keyout", &key, "-out", &cert])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let mut server = Server::start_in(dir, &["--caCert", &cert, "--caKey", &key]);
    let cert = CertificateDer::from_pem_file(&cert).unwrap();
    assert_eq!(server.pin, flexfs_wire::tls::ca_pin(&cert).unwrap());
    server.configure(&["list", "accounts"]);
    // A second init takes nobody's CA away.
    let db = server.path("db");
    assert!(server.stop());
    fs::remove_file(db.join("admin.db")).unwrap();
    let again = Command::new(ADMIN)
        .args(["init", "--caCert", server.path("issuing.pem").to_str().unwrap()])
        .args(["--caKey", &key, "--dbFolder"])
        .arg(&db)
        .output()
        .unwrap();
    assert!(String::from_utf8(again.stderr).unwrap().contains("holds a CA already"));
}
