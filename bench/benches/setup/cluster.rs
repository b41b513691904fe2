//! A cluster of two processes on free loopback ports. This program runs again as each of them.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

use flexfs_uring::clock;
use flexfs_wire::tls::{self, ALPN_REST, Role};
use flexfs_wire::token::{CaPin, Token};
use rustls::{ClientConnection, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The volume.
pub(crate) const VOLUME: &str = "main";
/// Says to a process of this program which server it is.
const ROLE: &str = "FLEXFS_BENCH_ROLE";
/// Longest wait for a server's start.
const START_MAX: Duration = Duration::from_secs(60);

/// Runs the server this process was started as; `None` when it is the measurement.
pub(crate) fn serve() -> Option<ExitCode> {
    match std::env::var(ROLE).ok()?.as_str() {
        "admin" => Some(flexfs_admin::cli::main()),
        "meta" => Some(flexfs_meta::cli::main()),
        other => panic!("{ROLE}={other} is no role"),
    }
}

/// Both servers; they end, and their folder goes, with this value.
pub(crate) struct Cluster {
    /// Address of admin.
    pub(crate) admin: String,
    /// Address of meta.
    pub(crate) meta: String,
    /// Token of the volume.
    pub(crate) token: Token,
    pin: CaPin,
    account: String,
    children: Vec<Child>,
    dir: TempDir,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made =
            program("admin").args(["init", "--dbFolder"]).arg(dir.path().join("admin")).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let account = String::from_utf8(made.stdout).unwrap().trim().to_owned();
        let token = Token::parse(&account).unwrap();
        let pin = token.ca_pin;
        let mut cluster = Self {
            admin: String::new(),
            meta: String::new(),
            token,
            pin,
            account,
            children: Vec::new(),
            dir,
        };
        cluster.admin = cluster.spawn("admin", "address=", &["--bindAddr", "127.0.0.1:0"]);

        cluster.call("POST", "block-stores", &json!({ "name": "b" }));
        // Its port is not known yet.
        let made = cluster.call("POST", "meta-stores", &json!({ "name": "m", "address": "127.0.0.1:1" }));
        fs::write(cluster.path("token"), made["token"].as_str().unwrap()).unwrap();
        let volume = json!({ "name": VOLUME, "metaStore": "m", "blockStore": "b" });
        let volume = cluster.call("POST", "volumes", &volume);
        cluster.token = Token::parse(volume["token"].as_str().unwrap()).unwrap();

        let made = program("meta")
            .args(["init", "creds", "--adminAddr", &cluster.admin, "--tokenFile"])
            .arg(cluster.path("token"))
            .arg("--credsFile")
            .arg(cluster.path("creds"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let creds = cluster.path("creds");
        let creds = creds.to_str().unwrap();
        let arguments = ["--bindAddr", "127.0.0.1:0", "--metricsAddr", "127.0.0.1:0", "--credsFile", creds];
        cluster.meta = cluster.spawn("meta", "addr=", &arguments);
        cluster.call("PUT", "meta-stores/m", &json!({ "address": cluster.meta }));
        cluster
    }

    /// One more token of the volume.
    pub(crate) fn another_token(&self) -> Token {
        let made = self.call("POST", "volume-tokens", &json!({ "volume": VOLUME }));
        Token::parse(made["token"].as_str().unwrap()).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a server; the address its log names behind `key`.
    fn spawn(&mut self, role: &str, key: &str, arguments: &[&str]) -> String {
        let log = self.path(&format!("{role}.log"));
        let mut command = program(role);
        command.arg("start").args(arguments).arg("--dbFolder").arg(self.path(role));
        self.children.push(command.stderr(File::create(&log).unwrap()).spawn().unwrap());
        announced(&log, key)
    }

    /// One request to admin as its first account; the body of the answer, if it has one.
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let config = tls::client_config(self.pin, Role::Admin, ALPN_REST);
        let connection = ClientConnection::new(config, Role::Admin.server_name()).unwrap();
        let mut stream = StreamOwned::new(connection, TcpStream::connect(&self.admin).unwrap());
        let body = body.to_string();
        let head = format!(
            "{method} /v1/configure/{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             authorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.account,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 2"), "{method} {path}: {answer}");
        if body.is_empty() { Value::Null } else { serde_json::from_str(body).unwrap() }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn program(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(ROLE, role);
    command
}

fn announced(log: &Path, key: &str) -> String {
    let start = clock::now();
    loop {
        let text = fs::read_to_string(log).unwrap();
        // Whole lines only: the last one may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        if let Some((_, rest)) = whole.split_once(&format!(" {key}")) {
            return rest.split_whitespace().next().unwrap().to_owned();
        }
        assert!(clock::now() - start < START_MAX, "the server did not start:\n{text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
