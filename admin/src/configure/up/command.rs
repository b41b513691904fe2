//! The two verbs, step by step. Every step looks first and acts only where something is missing, so `up` can be called
//! again at any time, and after any failure.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use flexfs_wire::creds::AdminAddr;
use flexfs_wire::creds_file;
use flexfs_wire::token::TokenKind;
use serde_json::{Value, json};

use super::daemon::{Daemon, tail};
use super::report::{Part, Report};
use super::state::{Settings, StateDir};
use super::{entity, place, program, wait};
use crate::configure::print;
use crate::configure::rest::Rest;
use crate::configure::text::parse_size;

/// Time for a server to answer after its start.
const START_TIME: Duration = Duration::from_secs(20);
/// Time for the mount to stand.
const MOUNT_TIME: Duration = Duration::from_secs(60);
/// Time for a server to stop.
const STOP_TIME: Duration = Duration::from_secs(30);
/// Time for the mount to write back what is dirty and go.
const UNMOUNT_TIME: Duration = Duration::from_secs(120);

/// What `up` takes.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Where to mount.
    #[arg(default_value = "/mnt/flexfs")]
    mount_point: PathBuf,
    /// Folder of the cluster's data [default: /var/lib/flexfs/<mount point>].
    #[arg(long = "stateDir")]
    state_dir: Option<PathBuf>,
    /// Block size of a new volume: a power of two from 256K to 8M [default: 4M].
    #[arg(long = "block-size", alias = "blockSize", value_parser = parse_size)]
    block_size: Option<u64>,
    /// File with the secret of a volume that its clients encrypt; a new volume is made encrypted then.
    #[arg(long = "secretFile")]
    secret_file: Option<PathBuf>,
    /// Name of the volume [default: main].
    #[arg(long)]
    volume: Option<String>,
    /// Port of admin [default: 7440].
    #[arg(long = "adminPort")]
    admin_port: Option<u16>,
    /// Port of meta [default: 7441].
    #[arg(long = "metaPort")]
    meta_port: Option<u16>,
    /// Port of meta's metrics [default: 7442].
    #[arg(long = "metricsPort")]
    metrics_port: Option<u16>,
    /// Transport of the mount: auto, uring or dev.
    #[arg(long)]
    transport: Option<String>,
    /// More flags for mount.flexfs, as in a mount table: ro,umask=0027.
    #[arg(long = "mountOptions")]
    mount_options: Option<String>,
}

/// What `down` takes.
#[derive(Debug, Args)]
pub(crate) struct Down {
    /// Where it is mounted [default: what --stateDir remembers, else /mnt/flexfs].
    mount_point: Option<PathBuf>,
    /// Folder of the cluster's data [default: /var/lib/flexfs/<mount point>].
    #[arg(long = "stateDir")]
    state_dir: Option<PathBuf>,
}

impl Up {
    /// Starts what does not run, mounts what is not mounted, and says what runs where.
    pub(crate) fn run(self, in_json: bool) -> anyhow::Result<()> {
        check_machine("up")?;
        let mount_point = place::resolve(&self.mount_point)?;
        let programs = Programs::find()?;
        let cluster = self.cluster(mount_point)?;
        let stands = cluster.check_mount_point()?;
        cluster.start_admin(&programs.admin)?;
        let creds = creds_file::load(TokenKind::Account, &cluster.dir.creds("configure"))?;
        let (meta_creds, mount_creds) = (cluster.dir.creds("meta"), cluster.dir.creds("mount"));
        let secret = self.secret_file.as_deref().map(creds_file::read_secret).transpose()?;
        let wanted = entity::Wanted { block_size: self.block_size, secret };
        entity::ensure(&Rest::new(&creds), &cluster.settings, wanted, &meta_creds, &mount_creds)?;
        cluster.start_meta(&programs.meta)?;
        if !stands {
            cluster.start_mount(&programs.mount, &self.mount_flags())?;
        }
        let report = cluster.report();
        if in_json {
            print::json(&serde_json::to_value(&report)?);
        } else {
            let own = std::env::current_exe().context("find this program's file")?;
            let default = StateDir::default_for(&cluster.settings.mount_point) == cluster.dir.root();
            print!("{}", report.text(&shown(&programs.mount), &shown(&own), default));
        }
        Ok(())
    }

    /// The cluster that the state folder remembers, with what the command line changes.
    fn cluster(&self, mount_point: PathBuf) -> anyhow::Result<Cluster> {
        let root = self.state_dir.clone().unwrap_or_else(|| StateDir::default_for(&mount_point));
        let dir = StateDir::open(&root)?;
        let before = dir.settings()?;
        let mut settings = before.clone().unwrap_or_else(|| Settings::new(mount_point.clone()));
        for (given, port) in [
            (self.admin_port, &mut settings.admin_port),
            (self.meta_port, &mut settings.meta_port),
            (self.metrics_port, &mut settings.metrics_port),
        ] {
            *port = given.unwrap_or(*port);
        }
        if let Some(volume) = &self.volume {
            settings.volume.clone_from(volume);
        }
        let mut cluster = Cluster { dir, settings };
        if let Some(before) = before {
            cluster.check_change(&before, &mount_point)?;
        }
        cluster.settings.mount_point = mount_point;
        cluster.dir.remember(&cluster.settings)?;
        Ok(cluster)
    }

    /// `--mountOptions` and `--transport` as flags of mount.flexfs.
    fn mount_flags(&self) -> Vec<String> {
        let options = self.mount_options.iter().flat_map(|list| list.split(','));
        let mut flags: Vec<String> = options
            .map(str::trim)
            .filter(|option| !option.is_empty())
            .map(|option| format!("--{option}"))
            .collect();
        flags.extend(self.transport.iter().map(|transport| format!("--transport={transport}")));
        flags
    }
}

impl Down {
    /// Unmounts, stops meta, then admin. The data stays.
    pub(crate) fn run(self, in_json: bool) -> anyhow::Result<()> {
        check_root("down")?;
        let given = self.mount_point.as_deref().map(place::resolve).transpose()?;
        let root = match (&self.state_dir, &given) {
            (Some(root), _) => std::path::absolute(root)?,
            (None, Some(mount_point)) => StateDir::default_for(mount_point),
            (None, None) => StateDir::default_for(Path::new("/mnt/flexfs")),
        };
        if !root.join("cluster.toml").exists() {
            bail!(
                "{} holds no cluster: nothing was started there (--stateDir names another)",
                root.display()
            );
        }
        let dir = StateDir::open(&root)?;
        let settings = dir.settings()?.with_context(|| format!("{} holds no cluster", root.display()))?;
        if given.as_ref().is_some_and(|given| *given != settings.mount_point) {
            bail!("the cluster in {} is mounted on {}", root.display(), settings.mount_point.display());
        }
        let cluster = Cluster { dir, settings };
        cluster.stop_mount()?;
        // Meta before admin: so it never has to complain about an admin that is gone.
        cluster.daemon("meta").stop(STOP_TIME)?;
        cluster.daemon("admin").stop(STOP_TIME)?;
        if in_json {
            print::json(&json!({ "mountPoint": cluster.settings.mount_point, "stateDir": root }));
        } else {
            print::out(&format!(
                "flexfs is down: {} is unmounted, the servers are stopped. The data stays in {}\n",
                cluster.settings.mount_point.display(),
                root.display()
            ));
        }
        Ok(())
    }
}

/// The programs of a cluster.
#[derive(Debug)]
struct Programs {
    admin: PathBuf,
    meta: PathBuf,
    mount: PathBuf,
}

impl Programs {
    fn find() -> anyhow::Result<Self> {
        Ok(Self {
            admin: program::find("admin")?,
            meta: program::find("meta")?,
            mount: program::find("mount")?,
        })
    }
}

/// One local cluster.
#[derive(Debug)]
struct Cluster {
    dir: StateDir,
    settings: Settings,
}

impl Cluster {
    fn daemon(&self, name: &'static str) -> Daemon {
        Daemon { name, pid_file: self.dir.pid(name), log: self.dir.log(name) }
    }

    /// Refuses to change what running programs already use.
    fn check_change(&self, before: &Settings, mount_point: &Path) -> anyhow::Result<()> {
        let now = &self.settings;
        let changes = [
            ("admin", now.admin_port != before.admin_port, "--adminPort"),
            (
                "meta",
                now.meta_port != before.meta_port || now.metrics_port != before.metrics_port,
                "its ports",
            ),
        ];
        for (name, changed, what) in changes {
            if changed && self.daemon(name).pid().is_some() {
                bail!("{name} runs already, so {what} cannot change now: `configure.flexfs down` first");
            }
        }
        let moved = mount_point != before.mount_point || now.volume != before.volume;
        if moved && place::mounted(&before.mount_point)?.is_some_and(|found| found.is_flexfs()) {
            bail!(
                "this cluster's volume {} is mounted on {}: `configure.flexfs down` first",
                before.volume,
                before.mount_point.display()
            );
        }
        Ok(())
    }

    /// Whether our mount stands; fails when the mount point cannot be used. A mount of ours whose process died is
    /// taken out of the way.
    fn check_mount_point(&self) -> anyhow::Result<bool> {
        let point = &self.settings.mount_point;
        if self.is_mounted()? {
            if !place::is_dead(point) {
                return Ok(true);
            }
            eprintln!("{}: the mount there has no process any more; unmounted", point.display());
            place::detach(point)?;
        }
        place::check_free(point)?;
        Ok(false)
    }

    fn start_admin(&self, program: &Path) -> anyhow::Result<()> {
        let port = self.settings.admin_port;
        let addr = AdminAddr::parse(&format!("127.0.0.1:{port}"))?;
        self.init_admin(program, &addr)?;
        let daemon = self.daemon("admin");
        if daemon.pid().is_none() {
            check_port(port, "--adminPort")?;
            let folder = self.dir.data("admin").display().to_string();
            let arguments =
                ["start", "--bindAddr", &addr.to_string(), "--dbFolder", &folder].map(str::to_owned);
            let mut child = daemon.start(program, &arguments)?;
            let creds = creds_file::load(TokenKind::Account, &self.dir.creds("configure"))?;
            let rest = Rest::new(&creds);
            await_start(&daemon, &mut child, || rest.get("/healthz").is_ok())?;
        }
        Ok(())
    }

    /// Makes admin's database and an account for this program, where there is none.
    fn init_admin(&self, program: &Path, addr: &AdminAddr) -> anyhow::Result<()> {
        let (folder, creds) = (self.dir.data("admin"), self.dir.creds("configure"));
        let made = folder.join("admin.db").exists();
        if made && entity::keep(&creds, TokenKind::Account, addr)? {
            return Ok(());
        }
        let mut command = Command::new(program);
        command.arg("init");
        if made {
            // The credentials were deleted: a further account is the way back in.
            command.arg("account").arg(format!("up-{}", std::process::id()));
        }
        command
            .arg("--dbFolder")
            .arg(&folder)
            .arg("--credsFile")
            .arg(&creds)
            .arg("--adminAddr")
            .arg(addr.to_string());
        let done =
            command.stdin(Stdio::null()).output().with_context(|| format!("run {}", program.display()))?;
        if !done.status.success() {
            bail!("admin.flexfs init failed: {}", String::from_utf8_lossy(&done.stderr).trim());
        }
        Ok(())
    }

    fn start_meta(&self, program: &Path) -> anyhow::Result<()> {
        let daemon = self.daemon("meta");
        if daemon.pid().is_some() {
            return Ok(());
        }
        let Settings { meta_port, metrics_port, .. } = self.settings;
        check_port(meta_port, "--metaPort")?;
        check_port(metrics_port, "--metricsPort")?;
        let arguments = [
            "start".to_owned(),
            "--bindAddr".to_owned(),
            format!("127.0.0.1:{meta_port}"),
            "--dbFolder".to_owned(),
            self.dir.data("meta").display().to_string(),
            "--credsFile".to_owned(),
            self.dir.creds("meta").display().to_string(),
            "--metricsAddr".to_owned(),
            format!("127.0.0.1:{metrics_port}"),
        ];
        let mut child = daemon.start(program, &arguments)?;
        await_start(&daemon, &mut child, || TcpStream::connect((Ipv4Addr::LOCALHOST, meta_port)).is_ok())
    }

    fn start_mount(&self, program: &Path, flags: &[String]) -> anyhow::Result<()> {
        let (daemon, point) = (self.daemon("mount"), &self.settings.mount_point);
        // A process of ours that lost its mount is in the way of a new one.
        daemon.stop(STOP_TIME)?;
        let mut command = Command::new(program);
        command.arg("start").args(flags);
        command.arg("--credsFile").arg(self.dir.creds("mount"));
        command.arg("--logFile").arg(&daemon.log);
        command.arg("--stateFolder").arg(self.dir.data("mount"));
        command.arg(&self.settings.volume).arg(point);
        // Into the log, not into a pipe: the daemon it leaves behind would hold the pipe open.
        let log = std::fs::OpenOptions::new().append(true).create(true).open(&daemon.log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/");
        let mut child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        let ended = wait::until(MOUNT_TIME, || Ok(child.try_wait()?))?;
        let failed = |why: &str| {
            anyhow::anyhow!(
                "{why}; the end of {}:\n{}",
                daemon.log.display(),
                tail(&daemon.log).unwrap_or_default()
            )
        };
        match ended {
            Some(status) if status.success() => {}
            Some(_) => return Err(failed("mount.flexfs failed")),
            None => {
                child.kill()?;
                child.wait()?;
                return Err(failed(&format!("mount.flexfs was not done within {} s", MOUNT_TIME.as_secs())));
            }
        }
        if place::mounted(point)?.is_none() {
            return Err(failed("mount.flexfs ended, and nothing is mounted"));
        }
        if let Some(pid) = mount_pid(program, point) {
            daemon.note(pid)?;
        }
        Ok(())
    }

    fn stop_mount(&self) -> anyhow::Result<()> {
        let (daemon, point) = (self.daemon("mount"), &self.settings.mount_point);
        // Without meta nothing can be written back: waiting long would not help.
        let served = self.daemon("meta").pid().is_some();
        let limit = if served { UNMOUNT_TIME } else { STOP_TIME };
        if self.is_mounted()? {
            if place::is_dead(point) {
                place::detach(point)?;
            } else if !daemon.terminate()? && !place::try_unmount(point)? {
                bail!("{}", busy(point));
            }
            let gone = || Ok(if self.is_mounted()? { None } else { Some(()) });
            if wait::until(limit, gone)?.is_none() {
                self.force_unmount(served)?;
            }
        }
        // The process writes back what is dirty before it goes, perhaps after the mount has gone.
        wait::until(limit, || Ok(daemon.pid().is_none().then_some(())))?;
        daemon.stop(STOP_TIME)
    }

    fn is_mounted(&self) -> anyhow::Result<bool> {
        Ok(place::mounted(&self.settings.mount_point)?.is_some_and(|found| found.is_flexfs()))
    }

    /// For a mount that did not go by itself.
    fn force_unmount(&self, served: bool) -> anyhow::Result<()> {
        let point = &self.settings.mount_point;
        if served {
            anyhow::ensure!(place::try_unmount(point)?, "{}", busy(point));
            return Ok(());
        }
        eprintln!("meta does not run, so what {} had not written back is lost", point.display());
        self.daemon("mount").stop(Duration::from_secs(1))?;
        if self.is_mounted()? { place::detach(point) } else { Ok(()) }
    }

    fn report(&self) -> Report {
        let part = |name: &'static str, address: String, creds: &str| {
            let daemon = self.daemon(name);
            Part { pid: daemon.pid(), address, log: daemon.log, creds: self.dir.creds(creds) }
        };
        let at = |port: u16| format!("127.0.0.1:{port}");
        Report {
            mount_point: self.settings.mount_point.clone(),
            volume: self.settings.volume.clone(),
            state_dir: self.dir.root().to_owned(),
            admin: part("admin", at(self.settings.admin_port), "configure"),
            meta: part("meta", at(self.settings.meta_port), "meta"),
            metrics: at(self.settings.metrics_port),
            mount: part("mount", self.settings.mount_point.display().to_string(), "mount"),
        }
    }
}

fn check_root(verb: &str) -> anyhow::Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    bail!("`configure.flexfs {verb}` mounts and unmounts, which needs root: run it with sudo")
}

/// What the machine must have.
fn check_machine(verb: &str) -> anyhow::Result<()> {
    check_root(verb)?;
    if !Path::new("/dev/fuse").exists() {
        bail!(
            "/dev/fuse is missing: `modprobe fuse` loads it; in a container, pass it in with --device /dev/fuse"
        );
    }
    Ok(())
}

/// Refuses a port that somebody else has. Programs that share ports among their threads would not notice.
fn check_port(port: u16, flag: &str) -> anyhow::Result<()> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            bail!("port {port} is in use by another program: choose another one with {flag}")
        }
        Err(error) => Err(error).with_context(|| format!("listen on port {port} ({flag})")),
    }
}

/// Waits until a server answers; fails with the end of its log when it dies, and stops it when it takes too long.
fn await_start(daemon: &Daemon, child: &mut Child, answers: impl Fn() -> bool) -> anyhow::Result<()> {
    let started = wait::until(START_TIME, || {
        if child.try_wait()?.is_some() {
            daemon.forget();
            bail!("{}", daemon.died());
        }
        Ok(answers().then_some(()))
    })?;
    if started.is_some() {
        return Ok(());
    }
    daemon.stop(STOP_TIME)?;
    bail!(
        "{} did not answer within {} s; the end of {}:\n{}",
        daemon.name,
        START_TIME.as_secs(),
        daemon.log.display(),
        tail(&daemon.log).unwrap_or_default()
    )
}

/// The pid of the mount's process, as it tells it itself.
fn mount_pid(program: &Path, point: &Path) -> Option<i32> {
    let status =
        Command::new(program).args(["status", "--json"]).arg(point).stdin(Stdio::null()).output().ok()?;
    let status: Value = serde_json::from_slice(&status.stdout).ok()?;
    i32::try_from(status.get("pid")?.as_i64()?).ok()
}

fn busy(point: &Path) -> String {
    format!(
        "{0} is in use, so it stays mounted and the servers stay up: end what works in it (`fuser -vm {0}` lists it), \
         then call `down` again",
        point.display()
    )
}

/// A program as people call it: by name when `PATH` finds it, else by its file.
fn shown(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).any(|folder| folder.join(name) == program);
    if in_path { name.to_string_lossy().into_owned() } else { program.display().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct UpLine {
        #[command(flatten)]
        up: Up,
    }

    #[test]
    fn mount_flags() {
        let line = ["up", "--mountOptions", "ro, umask=0027,,soft", "--transport", "dev"];
        let up = UpLine::try_parse_from(line).unwrap().up;
        assert_eq!(up.mount_flags(), ["--ro", "--umask=0027", "--soft", "--transport=dev"]);
        assert_eq!(up.mount_point, Path::new("/mnt/flexfs"));
    }

    #[test]
    fn a_taken_port_is_named_with_its_flag() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = check_port(port, "--metaPort").unwrap_err().to_string();
        assert!(error.contains(&port.to_string()) && error.contains("--metaPort"), "{error}");
        drop(taken);
        assert!(check_port(port, "--metaPort").is_ok());
    }

    #[test]
    fn ports_survive_a_second_up() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("s");
        let line = ["up", "/mnt/x", "--adminPort", "17", "--stateDir", state.to_str().unwrap()];
        let up = UpLine::try_parse_from(line).unwrap().up;
        up.cluster("/mnt/x".into()).unwrap();
        let up = UpLine::try_parse_from(["up", "/mnt/x", "--stateDir", state.to_str().unwrap()]).unwrap().up;
        let again = up.cluster("/mnt/x".into()).unwrap();
        assert_eq!((again.settings.admin_port, again.settings.meta_port), (17, 7441));
    }
}
