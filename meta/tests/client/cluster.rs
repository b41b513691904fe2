//! A real admin.flexfs and a real meta.flexfs on free ports.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use flexfs_wire::hello::Reason;
use flexfs_wire::settings::Flags;
use flexfs_wire::token::{CaPin, Token};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::Session;

const META: &str = env!("CARGO_BIN_EXE_meta-flexfs");

/// admin.flexfs or configure.flexfs, beside the program under test; built when it is not there.
fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let path = Path::new(META).with_file_name(name);
    if !path.exists() {
        BUILT.get_or_init(|| {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "-p", "flexfs-admin", "--bins"]);
            let target = Path::new(META).parent().and_then(Path::parent).unwrap();
            assert!(build.env("CARGO_TARGET_DIR", target).status().unwrap().success());
        });
    }
    path
}

/// Both servers, their state in a folder that goes with them.
pub(crate) struct Cluster {
    dir: TempDir,
    admin: Option<Child>,
    admin_port: u16,
    meta: Option<Child>,
    pub(crate) addr: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) pin: CaPin,
    /// Token of the volume `main`.
    pub(crate) token: String,
    pub(crate) meta_token: String,
    pub(crate) account: String,
}

impl Cluster {
    /// A cluster with one volume, `main`.
    pub(crate) fn start() -> Self {
        let mut cluster = Self::start_admin_only();
        cluster.configure(&["create", "block-store", "b"]);
        let made = cluster.json(&["create", "meta-store", "m", "--address", "127.0.0.1:7441"]);
        cluster.meta_token = made["token"].as_str().unwrap().to_owned();
        let made = cluster.json(&["create", "volume", "main", "--metaStore", "m", "--blockStore", "b"]);
        cluster.token = made["token"].as_str().unwrap().to_owned();
        fs::write(cluster.path("meta-token"), &cluster.meta_token).unwrap();
        let admin = format!("127.0.0.1:{}", cluster.admin_port);
        let output = Command::new(META)
            .args(["init", "creds", "--adminAddr", &admin, "--tokenFile"])
            .arg(cluster.path("meta-token"))
            .arg("--credsFile")
            .arg(cluster.path("meta-creds"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        cluster.start_meta();
        cluster
    }

    fn start_admin_only() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = Command::new(program("admin-flexfs"))
            .args(["init", "--dbFolder"])
            .arg(dir.path().join("admin"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let account = String::from_utf8(made.stdout).unwrap().trim().to_owned();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut cluster = Self {
            pin: Token::parse(&account).unwrap().ca_pin,
            dir,
            admin: None,
            admin_port: 0,
            meta: None,
            addr: nowhere,
            metrics: nowhere,
            token: String::new(),
            meta_token: String::new(),
            account,
        };
        cluster.start_admin();
        fs::write(cluster.path("account"), &cluster.account).unwrap();
        let (admin, file) = (format!("127.0.0.1:{}", cluster.admin_port), cluster.path("account"));
        cluster.configure(&["init", "creds", "--adminAddr", &admin, "--tokenFile", file.to_str().unwrap()]);
        cluster
    }

    pub(crate) fn start_admin(&mut self) {
        let log = self.path("admin.log");
        let child = Command::new(program("admin-flexfs"))
            .args(["start", "--bindAddr", &format!("127.0.0.1:{}", self.admin_port), "--dbFolder"])
            .arg(self.path("admin"))
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        self.admin = Some(child);
        let addr = announced(&log, "address=");
        self.admin_port = addr.port();
    }

    /// Starts meta, on the port it had before.
    pub(crate) fn start_meta(&mut self) {
        let log = self.path("meta.log");
        // Each start has a log of its own; the old one is kept for `log`.
        let old = self.log();
        fs::write(self.path("meta.log.old"), old).unwrap();
        let child = self
            .meta_command("start")
            .args(["--bindAddr", &self.addr.to_string(), "--metricsAddr", "127.0.0.1:0", "--credsFile"])
            .arg(self.path("meta-creds"))
            .env("FLEXFS_LOG", "info,flexfs_meta=debug")
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        self.meta = Some(child);
        self.addr = announced(&log, "addr=");
        self.metrics = announced(&log, "metrics=");
    }

    /// `meta.flexfs VERB --dbFolder ..`.
    pub(crate) fn meta_command(&self, verb: &str) -> Command {
        let mut command = Command::new(META);
        command.args([verb, "--dbFolder"]).arg(self.path("meta"));
        command
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// All meta has logged.
    pub(crate) fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.path(name)).unwrap_or_default();
        read("meta.log.old") + &read("meta.log")
    }

    /// What meta tells Prometheus.
    pub(crate) fn scrape(&self) -> String {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// Memory of meta in use (`VmRSS`), KiB.
    pub(crate) fn rss_kib(&self) -> u64 {
        let pid = self.meta.as_ref().unwrap().id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// kill -9.
    pub(crate) fn kill_meta(&mut self) {
        let mut child = self.meta.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; whether it ended well.
    pub(crate) fn stop_meta(&mut self) -> bool {
        let mut child = self.meta.take().unwrap();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        within(Duration::from_secs(30), || child.try_wait().unwrap()).success()
    }

    pub(crate) fn kill_admin(&mut self) {
        let mut child = self.admin.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// `verify`; exit code and output.
    pub(crate) fn verify(&self) -> Output {
        self.meta_command("verify").arg("--json").output().unwrap()
    }

    pub(crate) fn configure(&self, arguments: &[&str]) -> String {
        let output = Command::new(program("configure-flexfs"))
            .args(arguments)
            .arg("--credsFile")
            .arg(self.path("creds"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.configure(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// Address of admin.
    pub(crate) fn admin_addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.admin_port))
    }

    /// A session with the volume's first token.
    pub(crate) fn open(&self) -> Session {
        self.try_open(&self.token, Flags::default()).unwrap()
    }

    pub(crate) fn try_open(&self, token: &str, flags: Flags) -> Result<Session, (Reason, String)> {
        Session::try_open(self.addr, self.pin, token, flags)
    }

    /// Another token of the volume.
    pub(crate) fn another_token(&self, flags: &[&str]) -> String {
        let made = self.json(&[&["create", "volume-token", "--volume", "main"], flags].concat());
        made["token"].as_str().unwrap().to_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in [&mut self.meta, &mut self.admin].into_iter().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("---- meta.flexfs ----\n{}", self.log());
        }
    }
}

/// The address a server's log names behind `key`.
fn announced(log: &Path, key: &str) -> SocketAddr {
    within(Duration::from_secs(60), || {
        let text = fs::read_to_string(log).unwrap();
        let (_, rest) = text.split_once(&format!(" {key}"))?;
        rest.split(' ').next()?.trim().parse().ok()
    })
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
