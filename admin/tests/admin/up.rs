//! `up` and `down` as far as they go without a kernel mount: what is refused, and the servers' part. The whole of it,
//! with a real mount, is tested with the mount.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::bench::{ADMIN, CONFIGURE};
use tempfile::TempDir;

/// A folder of programs in which "meta" is a second admin (it listens, and stops on SIGTERM) and "mount" always fails.
struct Bench {
    dir: TempDir,
    ports: [u16; 3],
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        place(CONFIGURE, &bin.join("configure.flexfs"));
        place(ADMIN, &bin.join("admin.flexfs"));
        let meta = "#!/bin/sh\n# start --bindAddr ADDR --dbFolder DIR ...\n\
            here=$(dirname \"$0\")\n[ -e \"$5/admin.db\" ] || \"$here/admin.flexfs\" init --dbFolder \"$5\" >/dev/null 2>&1\n\
            exec \"$here/admin.flexfs\" start --bindAddr \"$3\" --dbFolder \"$5\"\n";
        script(&bin.join("meta.flexfs"), meta);
        script(&bin.join("mount.flexfs"), "#!/bin/sh\necho \"no mount today: $*\" >&2\nexit 1\n");
        fs::create_dir(dir.path().join("mnt")).unwrap();
        let free: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let port = |index: usize| free[index].local_addr().unwrap().port();
        Self { ports: [port(0), port(1), port(2)], dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, verb: &str, more: &[&str]) -> Output {
        Command::new(self.path("bin/configure.flexfs"))
            .arg(verb)
            .arg(self.path("mnt"))
            .arg("--stateDir")
            .arg(self.path("state"))
            .args(more)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn up(&self, more: &[&str]) -> String {
        let ports = self.ports.map(|port| port.to_string());
        let flags = ["--adminPort", &ports[0], "--metaPort", &ports[1], "--metricsPort", &ports[2]];
        let output = self.run("up", &[&flags, more].concat());
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    fn pids(&self) -> Vec<String> {
        ["admin", "meta"]
            .iter()
            .map(|name| fs::read_to_string(self.path("state/run").join(format!("{name}.pid"))).unwrap())
            .collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if self.path("state/cluster.toml").exists() {
            self.run("down", &[]);
        }
    }
}

/// A link where it can be: a copy is a file that was open for writing, which a process forked meanwhile keeps "busy".
fn place(program: &str, at: &Path) {
    if fs::hard_link(program, at).is_err() {
        fs::copy(program, at).unwrap();
    }
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root() && Path::new("/dev/fuse").exists();
    if !root {
        eprintln!("skipped: needs root and /dev/fuse");
    }
    root
}

#[test]
fn root_is_needed() {
    let mut command = Command::new(CONFIGURE);
    command.args(["up", "/nowhere"]);
    if rustix::process::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    // A build folder that nobody else may enter gives no answer; that is not what is tested.
    let Ok(output) = command.output() else { return };
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("needs root: run it with sudo"), "{text}");
}

#[test]
fn mount_points_that_cannot_be_used() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    fs::write(bench.path("mnt/file"), "x").unwrap();
    assert!(bench.up(&[]).contains("is not empty"));
    fs::remove_dir_all(bench.path("mnt")).unwrap();
    assert!(bench.up(&[]).contains("does not exist: make it with `mkdir -p"));
    fs::write(bench.path("mnt"), "x").unwrap();
    assert!(bench.up(&[]).contains("is no directory"));
    let output = Command::new(CONFIGURE)
        .args(["up", "/proc", "--stateDir"])
        .arg(bench.path("other"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    // Without the other programs beside it, the search for them comes first.
    assert!(text.contains("is in use: proc") || text.contains("was found neither"), "{text}");
}

#[test]
fn servers_start_once_and_stop() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let text = bench.up(&["--block-size", "1M", "--mountOptions", "ro", "--transport", "dev"]);
    assert!(
        text.contains("mount.flexfs failed") && text.contains("no mount today: start --ro --transport=dev"),
        "{text}"
    );
    let pids = bench.pids();
    for name in ["configure", "meta", "mount"] {
        let file = bench.path("state/creds").join(name);
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o600, "{name}");
    }
    let volume = crate::bench::configure(&bench.path("state/creds/configure"), &["show", "volume", "main"]);
    let volume = String::from_utf8(volume.stdout).unwrap();
    assert!(volume.contains("1 MiB"), "{volume}");

    // Again: the same servers, the same credentials.
    let creds = |name| fs::read(bench.path("state/creds").join(name)).unwrap();
    let before = (creds("meta"), creds("mount"));
    assert!(bench.up(&[]).contains("mount.flexfs failed"));
    assert_eq!(bench.pids(), pids);
    assert_eq!((creds("meta"), creds("mount")), before);
    assert!(bench.up(&["--block-size", "2M"]).contains("a block size cannot be changed"));

    // Lost credentials are made anew.
    for name in ["configure", "meta", "mount"] {
        fs::remove_file(bench.path("state/creds").join(name)).unwrap();
    }
    assert!(bench.up(&[]).contains("mount.flexfs failed"));
    assert_ne!((creds("meta"), creds("mount")), before);

    let other = bench.run("up", &["--adminPort", "1"]);
    assert!(String::from_utf8(other.stderr).unwrap().contains("--adminPort cannot change now"));
    let down = bench.run("down", &[]);
    assert!(down.status.success(), "{down:?}");
    for port in bench.ports {
        TcpListener::bind(("127.0.0.1", port)).unwrap();
    }
    // Down twice is fine; the data is still there.
    assert!(bench.run("down", &[]).status.success());
    assert!(bench.up(&[]).contains("mount.flexfs failed"));
    let list = crate::bench::configure(&bench.path("state/creds/configure"), &["list", "volumes"]);
    assert!(String::from_utf8(list.stdout).unwrap().contains("main"));
}

#[test]
fn taken_ports_are_named_with_their_flag() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    for (index, flag) in ["--adminPort", "--metaPort", "--metricsPort"].iter().enumerate() {
        let taken = TcpListener::bind(("127.0.0.1", bench.ports[index])).unwrap();
        let text = bench.up(&[]);
        let wanted = format!(
            "port {} is in use by another program: choose another one with {flag}",
            bench.ports[index]
        );
        assert!(text.contains(&wanted), "{text}");
        drop(taken);
    }
}

#[test]
fn nothing_to_stop() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(CONFIGURE).args(["down", "--stateDir"]).arg(dir.path()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("holds no cluster"), "{text}");
}
