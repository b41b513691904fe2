//! The servers and the mount that are measured: a cluster as `configure.flexfs up` makes it, whose metadata server can be killed.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::null::Transport;
use crate::process::{self, Identity, Usage};
use crate::target::{Context, FlexFs, Target as _};

/// Writing 3 drops the page cache, dentries and inodes (Documentation/admin-guide/sysctl/vm.rst).
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";
/// Time for a metadata server that was killed to serve again; the issue asks for 5 s.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Time for one look at the metrics.
const SCRAPE_LIMIT: Duration = Duration::from_secs(5);
/// Longest answer of the metrics that is read, bytes.
const SCRAPE_BYTES_MAX: u64 = 1 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) fs: FlexFs,
    pub(super) scratch: PathBuf,
}

/// Resident memory, MiB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub(super) meta: f64,
    pub(super) mount: f64,
}

impl Cluster {
    /// Starts one of its own, with nothing in it.
    ///
    /// # Errors
    /// Why it does not run.
    pub(super) fn start(context: &Context) -> anyhow::Result<Self> {
        let mut fs = FlexFs::new(context, Transport::Uring);
        fs.start()?;
        Ok(Self { fs, scratch: context.scratch.clone() })
    }

    pub(super) fn root(&self) -> PathBuf {
        self.fs.root()
    }

    /// Pid of the metadata server.
    ///
    /// # Errors
    /// It does not run.
    pub(super) fn meta(&self) -> anyhow::Result<u32> {
        self.fs.pids().server.first().copied().context("no metadata server runs")
    }

    /// Memory of metadata server and mount.
    ///
    /// # Errors
    /// One of them does not run.
    pub(super) fn memory(&self) -> anyhow::Result<Memory> {
        let mount = self.fs.pids().client;
        ensure!(!mount.is_empty(), "nothing is mounted");
        Ok(Memory { meta: Usage::of(&[self.meta()?]).rss_mib, mount: Usage::of(&mount).rss_mib })
    }

    /// Mounts anew, with nothing cached by the client or the kernel. The metadata server keeps what it has.
    ///
    /// # Errors
    /// When it does not come back.
    pub(super) fn cool(&mut self) -> anyhow::Result<()> {
        self.fs.cool()?;
        drop_caches(&self.scratch)
    }

    /// Unmounts, kills the metadata server, drops the kernel's caches, starts and mounts again: nobody has anything
    /// cached. Gives the seconds from the new server's start until it says that it serves.
    ///
    /// # Errors
    /// When it does not come back.
    pub(super) fn renew(&mut self) -> anyhow::Result<f64> {
        self.fs.unmount()?;
        let port = self.metrics_port()?;
        self.kill_meta()?;
        drop_caches(&self.scratch)?;
        let serves = self.start_again(port)?;
        Ok(serves - self.meta_started()?)
    }

    /// Kills the metadata server under the mount and starts it again. Gives the seconds from the new server's start until it says
    /// that it serves, and until a program that waits for a name nobody has cached goes on: the session's recovery is in it.
    ///
    /// # Errors
    /// When it does not come back.
    pub(super) fn crash(&mut self, waits_for: &Path) -> anyhow::Result<(f64, f64)> {
        let port = self.metrics_port()?;
        self.kill_meta()?;
        drop_caches(&self.scratch)?;
        let path = waits_for.to_owned();
        let waiting = std::thread::spawn(move || {
            rustix::fs::stat(&path).context("stat after the restart")?;
            process::uptime()
        });
        let serves = self.start_again(port)?;
        ensure!(
            process::wait_until(START_LIMIT, || waiting.is_finished()),
            "a program still waits {START_LIMIT:?} after the metadata server was killed"
        );
        let answered = waiting.join().map_err(|_| anyhow::anyhow!("the program that waited panicked"))??;
        let started = self.meta_started()?;
        Ok((serves - started, answered - started))
    }

    fn kill_meta(&self) -> anyhow::Result<()> {
        let pid = self.meta()?;
        process::kill(pid);
        ensure!(process::wait_until(START_LIMIT, || !process::is_alive(pid)), "pid {pid} does not end");
        Ok(())
    }

    fn meta_started(&self) -> anyhow::Result<f64> {
        Ok(Identity::of(self.meta()?).context("the metadata server has ended")?.started())
    }

    /// Starts what does not run, and gives the uptime at which the metadata server served. `up` may take some seconds before it starts
    /// one, for it looks at the mount first, which does not answer.
    fn start_again(&mut self, port: u16) -> anyhow::Result<f64> {
        let watch = std::thread::spawn(move || {
            let serves = || get(port, "/healthz").is_ok_and(|text| text.starts_with("HTTP/1.1 200"));
            ensure!(
                process::wait_until(START_LIMIT, serves),
                "meta does not serve {START_LIMIT:?} after its start"
            );
            process::uptime()
        });
        self.fs.up(&[])?;
        watch.join().map_err(|_| anyhow::anyhow!("the look at /healthz panicked"))?
    }

    /// Has the server give back the space of removed blocks at once; by default it keeps them for a week.
    ///
    /// # Errors
    /// Admin refuses.
    pub(super) fn keep_nothing(&self) -> anyhow::Result<()> {
        let mut command = self.fs.program("configure")?;
        command.args(["update", "volume", "main", "--retention", "0"]);
        command.arg("--credsFile").arg(self.fs.state().join("creds/configure"));
        run(&mut command, &self.scratch, START_LIMIT).map(drop)
    }

    /// Unmounts and ends the servers; what is stored stays.
    ///
    /// # Errors
    /// What does not end.
    pub(super) fn down(&mut self) -> anyhow::Result<()> {
        self.fs.stop()
    }

    /// Starts everything again behind [`Self::down`].
    ///
    /// # Errors
    /// Why it does not run.
    pub(super) fn up(&mut self) -> anyhow::Result<()> {
        self.fs.up(&[])
    }

    /// Folder of the volume's database.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub(super) fn database(&self) -> anyhow::Result<PathBuf> {
        let mut found = Vec::new();
        walk(&self.fs.state().join("meta"), &mut |path| {
            let is_database = path.file_name().is_some_and(|name| name == "db") && path.is_dir();
            if is_database {
                found.push(path.to_owned());
            }
            !is_database
        });
        match found.pop() {
            Some(path) if found.is_empty() => Ok(path),
            _ => bail!("the cluster has not exactly one volume"),
        }
    }

    /// Bytes that the servers have on the disk, as it counts them.
    pub(super) fn stored_bytes(&self) -> u64 {
        let mut sum = 0;
        walk(&self.fs.state().join("meta"), &mut |path| {
            sum += fs::symlink_metadata(path).map_or(0, |attr| attr.blocks() * 512);
            true
        });
        sum
    }

    /// Bytes of the mount's caches of data and layouts, as its status tells.
    ///
    /// # Errors
    /// When it does not answer.
    pub(super) fn cache_bytes(&self) -> anyhow::Result<f64> {
        let status = self.fs.status()?;
        let bytes = status.pointer("/data/cacheBytes").and_then(Value::as_f64);
        bytes.context("the mount's status does not tell data.cacheBytes")
    }

    fn metrics_port(&self) -> anyhow::Result<u16> {
        let words = command_line(self.meta()?)?;
        let at =
            words.iter().position(|word| word == "--metricsAddr").context("meta has no --metricsAddr")?;
        let address = words.get(at + 1).context("--metricsAddr has no value")?;
        Ok(address.rsplit(':').next().unwrap_or_default().parse()?)
    }
}

/// The words a process was started with.
///
/// # Errors
/// It is gone.
pub(super) fn command_line(pid: u32) -> anyhow::Result<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).with_context(|| format!("pid {pid} has ended"))?;
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    Ok(words.map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

/// Writes what is unwritten, for only then it can be dropped, and drops the kernel's caches.
///
/// # Errors
/// No root.
pub(super) fn drop_caches(scratch: &Path) -> anyhow::Result<()> {
    rustix::fs::syncfs(fs::File::open(scratch)?).context("sync the local disk")?;
    fs::write(DROP_CACHES, "3").context("drop the kernel's caches")
}

fn get(port: u16, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(SCRAPE_LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\n\r\n")?;
    let mut text = String::new();
    stream.take(SCRAPE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Calls `each` with everything below a folder; where it says no nothing below is looked at. What goes meanwhile is passed by.
fn walk(folder: &Path, each: &mut dyn FnMut(&Path) -> bool) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let goes_on = each(&entry.path());
        if goes_on && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), each);
        }
    }
}

/// Runs a program that must succeed.
///
/// # Errors
/// What it said.
pub(super) fn run(command: &mut Command, folder: &Path, limit: Duration) -> anyhow::Result<String> {
    process::run(command, folder, limit)
}
