//! A cluster on loopback with one volume and one mount, made by `configure.flexfs up` as a user would make it.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::clock::{now, soon};
use super::command::{Ran, Run, Running};
use super::host::{Host, Network};
use super::machine::{self, binary};
use super::process::Process;
use super::shell;

/// Name of the volume that `up` makes.
pub(crate) const VOLUME: &str = "main";
/// Longest life of a cluster before the watchdog frees whoever hangs in it. Below nextest's own limit.
const LIFE: Duration = Duration::from_secs(540);
/// Time for `up`, seconds.
const UP_SECONDS: u64 = 60;
/// Lines of each log that a failed test prints.
const LOG_LINES: usize = 40;

/// How the mount talks to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// FUSE over io_uring: what a user gets by default, so no flag asks for it here.
    Uring,
    /// /dev/fuse.
    Dev,
}

impl Transport {
    /// As `status` names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Dev => "dev",
        }
    }

    /// `much` on the default transport, `little` on the other: it is there to be right, not to be measured.
    pub(crate) fn scale<T>(self, much: T, little: T) -> T {
        match self {
            Self::Uring => much,
            Self::Dev => little,
        }
    }
}

/// What to start.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) transport: Transport,
    /// More flags of `configure.flexfs up`.
    pub(crate) flags: Vec<String>,
    /// Where servers keep their data, when not in the cluster's own folder.
    pub(crate) state: Option<PathBuf>,
}

/// A running cluster. Dropped, it is gone: unmounted, stopped, deleted.
pub(crate) struct Cluster {
    // The last field to be dropped is the folder everything lives in.
    transport: Transport,
    up: Vec<String>,
    state: PathBuf,
    mnt: PathBuf,
    more: Mutex<Vec<PathBuf>>,
    metrics: u16,
    hand: Mutex<Option<Running>>,
    ended: Arc<AtomicBool>,
    finished: bool,
    root: TempDir,
}

impl Cluster {
    /// A cluster with the defaults, mounted.
    pub(crate) fn start(transport: Transport) -> Self {
        Self::with(Options { transport, flags: Vec::new(), state: None })
    }

    /// A cluster with options, mounted.
    pub(crate) fn with(options: Options) -> Self {
        Self::with_life(options, LIFE)
    }

    /// The same, freed by the watchdog after `life`.
    pub(crate) fn with_life(options: Options, life: Duration) -> Self {
        machine::require(options.transport == Transport::Uring);
        let root = machine::scratch();
        let mnt = root.path().join("mnt");
        fs::create_dir(&mnt).unwrap();
        let state = options.state.unwrap_or_else(|| root.path().join("state"));
        let [admin, meta, metrics] = machine::free_ports();
        let mut up = vec!["--stateDir".to_owned(), state.to_str().unwrap().to_owned()];
        for (flag, port) in [("--adminPort", admin), ("--metaPort", meta), ("--metricsPort", metrics)] {
            up.extend([flag.to_owned(), port.to_string()]);
        }
        if options.transport == Transport::Dev {
            up.extend(["--transport".to_owned(), "dev".to_owned()]);
        }
        // The same tests on encrypted volumes: FLEXFS_SECRET holds the words, twelve characters at least.
        if let Some(secret) = std::env::var_os("FLEXFS_SECRET").filter(|_| options.flags.is_empty()) {
            let file = root.path().join("secret");
            write_secret(&file, secret.to_str().unwrap());
            up.extend(["--secretFile".to_owned(), file.to_str().unwrap().to_owned()]);
        }
        up.extend(options.flags);
        let ended = Arc::new(AtomicBool::new(false));
        watch(root.path().to_owned(), ended.clone(), life);
        let transport = options.transport;
        let (more, hand) = (Mutex::new(Vec::new()), Mutex::new(None));
        let cluster = Self { transport, up, state, mnt, more, metrics, hand, ended, finished: false, root };
        cluster.up();
        *cluster.hand.lock().unwrap() = Some(cluster.lend_a_hand());
        cluster
    }

    /// The mount point.
    pub(crate) fn mnt(&self) -> &Path {
        &self.mnt
    }

    /// A path on the mount.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.mnt.join(name)
    }

    /// A folder of this cluster that is not on the mount.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// Where the servers keep their data.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// `configure.flexfs up` with the flags of this cluster; the transport in use must be the one wanted.
    pub(crate) fn up(&self) {
        Run::new(binary("configure")).arg("up").arg(&self.mnt).args(&self.up).limit(UP_SECONDS).ok();
        assert_eq!(self.status_of(&self.mnt)["transport"], self.transport.name(), "transport in use");
    }

    /// `configure.flexfs down`: unmounts and stops, keeps the data.
    pub(crate) fn down(&self) {
        Run::new(binary("configure"))
            .arg("down")
            .arg(&self.mnt)
            .arg("--stateDir")
            .arg(&self.state)
            .limit(UP_SECONDS)
            .ok();
        assert!(!is_mounted(&self.mnt), "down leaves the mount");
        assert!(
            soon(Duration::from_secs(10), || self.servers().is_empty()),
            "down leaves {:?}",
            self.servers()
        );
    }

    /// Takes the mount away and brings it back; the servers go on.
    pub(crate) fn remount(&self) {
        Run::new("umount").arg(&self.mnt).limit(60).ok();
        self.wait_mount_gone(&self.mnt);
        self.up();
    }

    /// `configure.flexfs` as the operator of this cluster.
    pub(crate) fn configure(&self, arguments: &[&str]) -> Run {
        Run::new(binary("configure")).args(arguments).arg("--credsFile").arg(self.operator_creds())
    }

    /// What `configure.flexfs .. --json` prints.
    pub(crate) fn configure_json(&self, arguments: &[&str]) -> Value {
        let ran = self.configure(arguments).arg("--json").ok();
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}", ran.out))
    }

    /// `mount.flexfs status --json` of the first mount.
    pub(crate) fn status(&self) -> Value {
        self.status_of(&self.mnt)
    }

    /// `mount.flexfs status --json` of a mount.
    pub(crate) fn status_of(&self, mnt: &Path) -> Value {
        let ran = Run::new(binary("mount")).args(["status", "--json"]).arg(mnt).limit(20).ok();
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}", ran.out))
    }

    /// A count of the session of a mount, as `status` shows it.
    pub(crate) fn link_figure(&self, mnt: &Path, name: &str) -> u64 {
        let status = self.status_of(mnt);
        status["link"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {status}"))
    }

    /// What the client behind a mount has to say.
    pub(crate) fn log_of(&self, mnt: &Path) -> String {
        let own = self.state().join("log/mount.log");
        fs::read_to_string(if mnt == self.mnt() { own } else { mnt.with_extension("log") }).unwrap()
    }

    /// Mounts the volume a second time, as another client.
    pub(crate) fn second_mount(&self) -> PathBuf {
        let mnt = self.root().join(format!("mnt{}", self.more.lock().unwrap().len() + 2));
        fs::create_dir(&mnt).unwrap();
        self.start_mount(&mnt, &self.volume_creds(), &[]).ok();
        self.more.lock().unwrap().push(mnt.clone());
        assert_eq!(self.status_of(&mnt)["transport"], self.transport.name(), "transport in use");
        mnt
    }

    /// Mounts the volume as a client on a host; `creds` come from [`Self::open_to`].
    pub(crate) fn mount_on(&self, host: &Host, creds: &Path) -> PathBuf {
        let mnt = self.root().join(format!("mnt{}", self.more.lock().unwrap().len() + 2));
        fs::create_dir(&mnt).unwrap();
        self.start_mount(&mnt, creds, &[]).behind(&host.enter()).ok();
        self.more.lock().unwrap().push(mnt.clone());
        mnt
    }

    /// Has the servers listen to other hosts too, at the address those know them by; credentials for mounts there.
    pub(crate) fn open_to(&self, network: &Network) -> PathBuf {
        let creds = self.root().join("creds-hosts");
        let (admin, meta) = (self.admin(), self.meta());
        let [old_admin, old_meta] = [&admin, &meta]
            .map(|server| server.flag("--bindAddr").expect("up names the address").into_string().unwrap());
        let [admin_port, meta_port] =
            [&old_admin, &old_meta].map(|address| address.rsplit_once(':').unwrap().1.to_owned());
        let text = fs::read_to_string(self.volume_creds()).unwrap();
        assert!(text.contains(&old_admin), "{old_admin} is not where admin is");
        let address = network.address();
        write_secret(&creds, &text.replace(&old_admin, &format!("{address}:{admin_port}")));
        self.move_meta(&format!("{address}:{meta_port}"));
        for (server, old, port) in [(admin, old_admin, admin_port), (meta, old_meta, meta_port)] {
            server.kill();
            server.start_elsewhere(&old, &format!("0.0.0.0:{port}"), &self.root().join("servers.log"));
        }
        let back = || self.configure(&["list", "volumes"]).run().status.success();
        assert!(soon(Duration::from_secs(20), back), "admin does not come back");
        creds
    }

    /// Tells admin where clients find the metadata server.
    pub(crate) fn move_meta(&self, address: &str) {
        self.configure(&["update", "meta-store", "local", "--address", address]).ok();
    }

    /// Unmounts the mounts beside the first, and has servers that `up` started: `down` stops no others.
    pub(crate) fn as_made_by_up(&self) {
        self.unmount_more();
        self.meta().kill();
        self.admin().kill();
        self.restart();
    }

    /// `mount.flexfs start` with a credentials file.
    pub(crate) fn start_mount(&self, mnt: &Path, creds: &Path, flags: &[&str]) -> Run {
        let run = Run::new(binary("mount")).arg("start").arg("--credsFile").arg(creds).args(flags);
        let run = if self.transport == Transport::Dev { run.args(["--transport", "dev"]) } else { run };
        let run = run.arg("--stateFolder").arg(mnt.with_extension("state"));
        run.arg("--logFile").arg(mnt.with_extension("log")).arg(VOLUME).arg(mnt).limit(30)
    }

    /// A figure of meta's `/metrics`, one without labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let url = format!("http://127.0.0.1:{}/metrics", self.metrics);
        let text = Run::new("curl").args(["-sS", "--max-time", "10", &url]).ok().out;
        let named = text
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
        let values: Vec<f64> = named.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
        assert!(!values.is_empty(), "no {name} in {text}");
        values.iter().sum()
    }

    /// Requests of a kind that meta answered.
    pub(crate) fn requests(&self, kind: &str) -> u64 {
        let url = format!("http://127.0.0.1:{}/metrics", self.metrics);
        let text = Run::new("curl").args(["-sS", "--max-time", "10", &url]).ok().out;
        let kind = format!("kind=\"{kind}\"");
        let lines =
            text.lines().filter(|line| line.starts_with("flexfs_meta_requests{") && line.contains(&kind));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// Credentials of the volume.
    pub(crate) fn volume_creds(&self) -> PathBuf {
        self.state.join("creds/mount")
    }

    /// Credentials of the operator.
    pub(crate) fn operator_creds(&self) -> PathBuf {
        self.state.join("creds/configure")
    }

    /// The metadata server.
    pub(crate) fn meta(&self) -> Process {
        Process::find("meta-flexfs", &self.state).expect("meta runs")
    }

    /// The admin server.
    pub(crate) fn admin(&self) -> Process {
        Process::find("admin-flexfs", &self.state).expect("admin runs")
    }

    /// The client behind a mount point.
    pub(crate) fn mount_process(&self, mnt: &Path) -> Option<Process> {
        let names = |process: &Process| process.arguments().iter().any(|word| word == mnt.as_os_str());
        let found = Process::of(self.root()).into_iter().chain(Process::of(&self.state));
        found
            .filter(Process::is_alive)
            .find(|process| names(process) && process.flag("--credsFile").is_some())
    }

    /// kill -9 of meta.
    pub(crate) fn kill_meta(&self) {
        self.meta().kill();
    }

    /// Starts again what was killed; an `up` of a running cluster does just that.
    pub(crate) fn restart(&self) {
        let words = [binary("configure"), "up".into(), self.mnt.clone()].into_iter().map(Into::into);
        let words: Vec<OsString> = words.chain(self.up.iter().map(Into::into)).collect();
        self.by_hand(&shell::line(&words));
    }

    /// Starts a server that was killed again at once, as a supervisor does; `up` would look at everything else first.
    pub(crate) fn restart_server(&self, server: &Process) {
        self.restart_behind(server, &[]);
    }

    /// The same, started by another program: `words` come before its own.
    pub(crate) fn restart_behind(&self, server: &Process, words: &[&str]) {
        let mut line = vec!["setsid".into(), "env".into(), "-i".into()];
        line.extend(server.environment());
        line.extend(words.iter().map(Into::into));
        line.extend(server.command());
        let log = self.root().join("servers.log");
        self.by_hand(&format!("{} >>{} 2>&1 &", shell::line(&line), shell::line(&[log])));
    }

    /// Runs a line of shell.
    ///
    /// Another process does it, started before the test opened any file: a process that execs closes the files it inherited,
    /// and the close of a dirty file would wait for the server for a while.
    fn by_hand(&self, line: &str) {
        let mut hand = self.hand.lock().unwrap();
        let hand = &mut hand.as_mut().expect("there from the start").child;
        let (log, done) = (self.root().join("restart.log"), self.root().join("restart.done"));
        writeln!(hand.stdin.as_mut().unwrap(), "{line}").unwrap();
        let ended = soon(Duration::from_secs(UP_SECONDS), || done.exists());
        assert!(ended, "{line}: {:?}", fs::read_to_string(&log));
        let code = fs::read_to_string(&done).unwrap();
        assert_eq!(code, "0\n", "{line}: {:?}", fs::read_to_string(&log));
        fs::remove_file(&done).unwrap();
    }

    /// A shell that runs each line it reads.
    fn lend_a_hand(&self) -> Running {
        let script = "log=$1 done=$2; while read -r line; do eval \"$line\" >\"$log\" 2>&1 </dev/null; \
            echo $? >\"$done.new\"; mv \"$done.new\" \"$done\"; done";
        let run = Run::new("bash").arg("-c").arg(script).arg("hand").arg(self.root().join("restart.log"));
        run.arg(self.root().join("restart.done")).folder("/").spawn_piped()
    }

    /// kill -9 of the client.
    pub(crate) fn kill_mount(&self) {
        self.mount_process(&self.mnt).expect("the mount runs").kill();
    }

    /// Waits until the client behind a mount point has ended.
    pub(crate) fn wait_mount_gone(&self, mnt: &Path) {
        assert!(
            soon(Duration::from_secs(20), || self.mount_process(mnt).is_none()),
            "the client stays after umount"
        );
    }

    /// `meta.flexfs verify` on the stopped cluster: every invariant of the database.
    pub(crate) fn verify(&self) -> Ran {
        assert!(self.servers().is_empty(), "verify wants stopped servers");
        let folder = self.state.join("meta");
        Run::new(binary("meta")).arg("verify").arg("--dbFolder").arg(folder).limit(120).ok()
    }

    /// The good end of a test: everything down, the database sound.
    pub(crate) fn finish(mut self) {
        self.unmount_more();
        self.down();
        self.verify();
        self.finished = true;
    }

    fn unmount_more(&self) {
        for mnt in std::mem::take(&mut *self.more.lock().unwrap()) {
            Run::new("umount").arg(&mnt).limit(60).ok();
            self.wait_mount_gone(&mnt);
        }
    }

    /// Servers and clients that run.
    fn servers(&self) -> Vec<Process> {
        let names = |process: &Process| {
            let is_other = process.is("bash") || process.is("strace");
            !is_other && ["--stateDir", "verify"].iter().all(|word| process.flag(word).is_none())
        };
        let mut found = Process::of(self.root());
        found.extend(Process::of(&self.state));
        found.retain(|process| names(process) && process.is_alive());
        found
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.finished {
            self.show_logs();
        }
        self.ended.store(true, Ordering::Relaxed);
        release(self.root.path());
        for process in Process::of(self.root.path()).into_iter().chain(Process::of(&self.state)) {
            process.signal(rustix::process::Signal::KILL);
            let _ = soon(Duration::from_secs(5), || !process.is_alive());
        }
    }
}

impl Cluster {
    fn show_logs(&self) {
        let mut logs = Vec::new();
        find_logs(&self.state, &mut logs);
        find_logs(self.root.path(), &mut logs);
        logs.dedup();
        for log in logs {
            let text = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("---- {}", log.display());
            eprintln!("{}", lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"));
        }
    }
}

/// Writes a file as credentials must be: for its owner alone.
pub(crate) fn write_secret(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Whether something is mounted there. Reads the kernel's table: a dead mount answers no other question.
pub(crate) fn is_mounted(mnt: &Path) -> bool {
    mounts().iter().any(|(_, path)| path == mnt)
}

/// Minor device number and path of every mount.
fn mounts() -> Vec<(String, PathBuf)> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let entry = |line: &str| {
        let mut words = line.split(' ').skip(2);
        let minor = words.next()?.split_once(':')?.1.to_owned();
        Some((minor, PathBuf::from(words.nth(1)?)))
    };
    table.lines().filter_map(entry).collect()
}

/// Frees whoever hangs in a mount below `root` and takes the mounts away.
fn release(root: &Path) {
    let below: Vec<_> = mounts().into_iter().filter(|(_, path)| path.starts_with(root)).collect();
    if below.is_empty() {
        return;
    }
    let connections = Path::new("/sys/fs/fuse/connections");
    if !is_mounted(connections) {
        // Without it the unmount below still takes the mount out of sight.
        let _ = Command::new("mount").args(["-t", "fusectl", "none"]).arg(connections).status();
    }
    for (minor, path) in below.into_iter().rev() {
        // Not FUSE, or gone already: the unmount decides.
        let _ = fs::write(connections.join(&minor).join("abort"), "1");
        let _ = Command::new("umount").arg("-l").arg(&path).status();
    }
}

/// The cluster's time limit: past it, hanging system calls of the test end with an error, and so does the test.
fn watch(root: PathBuf, ended: Arc<AtomicBool>, life: Duration) {
    let start = now();
    std::thread::spawn(move || {
        while !ended.load(Ordering::Relaxed) {
            if start.elapsed() > life {
                eprintln!("watchdog: the test runs for {life:?}; its mounts are aborted");
                release(&root);
                return;
            }
            sleep(Duration::from_millis(200));
        }
    });
}

fn find_logs(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            found.push(path);
            continue;
        }
        let is_mount = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("mnt"));
        // A dead mount answers no question.
        if !is_mount && !path.is_symlink() && path.is_dir() {
            find_logs(&path, found);
        }
    }
}
