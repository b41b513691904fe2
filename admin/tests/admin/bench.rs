//! A real admin.flexfs on a free port, configure.flexfs beside it, and a small HTTPS client that can misbehave.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use flexfs_wire::tls::{self, ALPN_REST, Role};
use flexfs_wire::token::{CaPin, Token};
use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;
use tempfile::TempDir;

/// admin.flexfs.
pub(crate) const ADMIN: &str = env!("CARGO_BIN_EXE_admin-flexfs");
/// configure.flexfs.
pub(crate) const CONFIGURE: &str = env!("CARGO_BIN_EXE_configure-flexfs");

/// A running server with its first account.
pub(crate) struct Server {
    pub(crate) dir: TempDir,
    pub(crate) port: u16,
    pub(crate) pin: CaPin,
    pub(crate) account: String,
    child: Option<Child>,
}

impl Server {
    /// `init`, `start`, `configure init creds`.
    pub(crate) fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), &[])
    }

    /// The same in a folder that was prepared, with more words for `init`.
    pub(crate) fn start_in(dir: TempDir, init: &[&str]) -> Self {
        let made = Command::new(ADMIN)
            .args(["init", "--dbFolder"])
            .arg(dir.path().join("db"))
            .args(init)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let account = String::from_utf8(made.stdout).unwrap().trim().to_owned();
        let pin = Token::parse(&account).unwrap().ca_pin;
        let mut server = Self { dir, port: 0, pin, account, child: None };
        server.launch();
        fs::write(server.path("token"), &server.account).unwrap();
        let address = server.address();
        let token_file = server.path("token");
        server.configure(&[
            "init",
            "creds",
            "--adminAddr",
            &address,
            "--tokenFile",
            token_file.to_str().unwrap(),
        ]);
        server
    }

    /// Starts the server; its log tells the port.
    pub(crate) fn launch(&mut self) {
        let log = self.path("log");
        let file = File::create(&log).unwrap();
        let bind = format!("127.0.0.1:{}", self.port);
        let child = Command::new(ADMIN)
            .args(["start", "--bindAddr", &bind, "--dbFolder"])
            .arg(self.path("db"))
            .stderr(file)
            .spawn()
            .unwrap();
        self.child = Some(child);
        self.port = within(Duration::from_secs(20), || {
            let text = fs::read_to_string(&log).unwrap();
            text.split_once("address=127.0.0.1:")
                .map(|(_, rest)| rest.split(' ').next().unwrap().parse().unwrap())
        });
    }

    /// SIGTERM; answers whether it ended well and in time.
    pub(crate) fn stop(&mut self) -> bool {
        let Some(mut child) = self.child.take() else { return true };
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = within(Duration::from_secs(15), || child.try_wait().unwrap());
        status.success()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// Runs configure.flexfs with this server's credentials.
    pub(crate) fn try_configure(&self, arguments: &[&str]) -> Output {
        configure(&self.path("creds"), arguments)
    }

    /// The same, which must succeed; what it printed.
    pub(crate) fn configure(&self, arguments: &[&str]) -> String {
        let output = self.try_configure(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same in JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.configure(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    /// The same, which must fail; what it said.
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let output = self.try_configure(arguments);
        assert!(!output.status.success(), "{arguments:?} went through");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Block store, meta store and volume `main`; the tokens of the latter two.
    pub(crate) fn furnish(&self) -> (String, String) {
        self.configure(&["create", "block-store", "b"]);
        let meta = self.json(&["create", "meta-store", "m", "--address", "10.0.0.1:7441"]);
        let volume = self.json(&["create", "volume", "main", "--metaStore", "m", "--blockStore", "b"]);
        let text = |value: &Value| value["token"].as_str().unwrap().to_owned();
        (text(&meta), text(&volume))
    }

    /// One request; status and body.
    pub(crate) fn call(&self, method: &str, path: &str, bearer: &str, body: &str) -> (u16, String) {
        let mut stream = self.connect();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {bearer}\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Asks as a metadata server about a client's token.
    pub(crate) fn validate(&self, meta: &str, token: &str, volume: &str) -> Value {
        let body = serde_json::json!({ "token": token, "volume": volume, "client": "test" }).to_string();
        let (status, answer) = self.call("POST", "/v1/tokens/validate", meta, &body);
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str(&answer).unwrap()
    }

    /// Opens the event stream of a metadata server.
    pub(crate) fn events(&self, meta: &str) -> Events {
        let mut stream = self.connect();
        let head = format!("GET /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {meta}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        Events(BufReader::new(stream))
    }

    /// A verified TLS connection.
    pub(crate) fn connect(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let tls = tls::client_config(self.pin, Role::Admin, ALPN_REST);
        let socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        StreamOwned::new(ClientConnection::new(tls, Role::Admin.server_name()).unwrap(), socket)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Lines of an event stream.
pub(crate) struct Events(BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl Events {
    /// The next event that is no sign of life; `None` when the stream ended.
    pub(crate) fn next(&mut self) -> Option<Value> {
        loop {
            let event = self.line()?;
            if event["event"] != "alive" {
                return Some(event);
            }
        }
    }

    /// The next event.
    pub(crate) fn line(&mut self) -> Option<Value> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).unwrap_or(0) == 0 {
                return None;
            }
            // Between the lines stand the head and the sizes of chunks.
            if line.starts_with('{') {
                return Some(serde_json::from_str(&line).unwrap());
            }
        }
    }
}

/// Runs configure.flexfs.
pub(crate) fn configure(creds: &Path, arguments: &[&str]) -> Output {
    Command::new(CONFIGURE)
        .args(arguments)
        .arg("--credsFile")
        .arg(creds)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Looks until there is an answer; panics after `limit`.
pub(crate) fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
