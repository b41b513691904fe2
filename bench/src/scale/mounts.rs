//! Mounts of one volume, each on a host of its own, with light work on each.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use flexfs_uring::clock;
use flexfs_wire::creds::{AdminAddr, Creds};
use flexfs_wire::creds_file;
use flexfs_wire::token::TokenKind;

use super::cluster::{Cluster, command_line, run as run_program};
use super::network::Network;
use super::study::{Rule, Study};
use super::work::{check_end, create, entry, list};
use crate::pattern::{PAGE, Random};
use crate::process::{self, Usage};
use crate::stats::Histogram;
use crate::target::{Context, Daemon, is_mounted};

pub(super) const ID: &str = "mounts";

/// Files of the directory that a mount lists, and that it writes one of each second.
const LISTED: u64 = 100;
/// Files of the directory that all look into.
const SHARED: u64 = 1_000;
/// Time between two turns of a mount.
const TURN: Duration = Duration::from_secs(1);
/// Operations of a turn: stat, write with close, listing.
const KINDS: [&str; 3] = ["stat", "write of 4 KiB with close", "listing of 100"];
/// Time for a mount or a server to start or end.
const LIMIT: Duration = Duration::from_secs(60);

/// Mounts more and more, and lets all work for `turns`.
///
/// # Errors
/// What failed; figures up to there are in the study.
pub(super) fn run(study: &mut Study, context: &Context, sizes: &[u64], turns: u32) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(context)?;
    create_all(&cluster, sizes)?;
    cluster.fs.unmount()?;
    let folder = context.scratch.join("hosts");
    fs::create_dir_all(&folder)?;
    let mut network = Network::new(folder.clone())?;
    let servers = Servers::move_to(&cluster, context, &folder)?;
    let mut mounts: Vec<Mount> = Vec::new();
    for &size in sizes {
        let mut failed = None;
        while (mounts.len() as u64) < size && failed.is_none() {
            check_end()?;
            let host = network.host()?;
            match Mount::start(&cluster, context, &folder, mounts.len() as u64, &host) {
                Ok(mount) => mounts.push(mount),
                Err(error) => failed = Some(error),
            }
        }
        // Where the machine takes no more, what it takes is the last size.
        let size = mounts.len() as u64;
        if study.steps.last().is_some_and(|step| step.n >= size as f64) {
            return failed.map_or(Ok(()), Err);
        }
        study.step(&size.to_string(), size as f64);
        let pids: Vec<u32> = mounts.iter().map(|mount| mount.daemon.pid()).collect();
        // The first turn fills the caches and is not counted.
        work(&mounts, 1)?;
        let before = (Usage::of(&[servers.meta.pid()]), Usage::of(&pids));
        let began = clock::now();
        let counts = work(&mounts, turns)?;
        let seconds = (clock::now() - began).as_secs_f64();
        let after = (Usage::of(&[servers.meta.pid()]), Usage::of(&pids));
        let done =
            counts.iter().map(|one| one.pairs().iter().map(|(_, count)| count).sum::<u64>()).sum::<u64>();
        // The last turn of the last mount begins then, if nobody is late.
        let wanted = f64::from(turns - 1) + (size - 1) as f64 / size as f64;
        study.note("operations a second", "/s", Rule::Shown, done as f64 / seconds);
        study.note("time it took, to what it should", "%", Rule::Shown, seconds / wanted * 100.0);
        for (kind, histogram) in KINDS.iter().zip(&counts) {
            for (part, name, rule) in [(500, "p50", Rule::Each), (990, "p99", Rule::Shown)] {
                let value = histogram.permille(part).context("nothing was done")?;
                study.note(&format!("{kind}, {name}"), "us", rule, value);
            }
        }
        let cpu = |one: f64, other: f64| (one - other) / seconds * 100.0;
        study.note("CPU of meta", "% of a core", Rule::Total, cpu(after.0.cpu_seconds, before.0.cpu_seconds));
        study.note(
            "CPU of a mount",
            "% of a core",
            Rule::Each,
            cpu(after.1.cpu_seconds, before.1.cpu_seconds) / size as f64,
        );
        study.note("memory of meta", "MiB", Rule::Total, after.0.rss_mib);
        study.note("memory of a mount", "MiB", Rule::Each, after.1.rss_mib / size as f64);
        if let Some(error) = failed {
            return Err(error.context(format!("mount {} does not start", size + 1)));
        }
    }
    Ok(())
}

/// The directories of all mounts, made by the cluster's own one.
fn create_all(cluster: &Cluster, sizes: &[u64]) -> anyhow::Result<()> {
    let root = cluster.root();
    fs::create_dir(root.join("shared"))?;
    create(&root.join("shared"), 0..SHARED)?;
    for number in 0..sizes.iter().copied().max().unwrap_or(0) {
        let own = root.join(format!("own-{number}"));
        fs::create_dir(&own)?;
        create(&own, 0..LISTED)?;
    }
    Ok(())
}

/// The cluster's servers, started again where other hosts find them.
struct Servers {
    meta: Daemon,
    _admin: Daemon,
}

impl Servers {
    fn move_to(cluster: &Cluster, context: &Context, folder: &Path) -> anyhow::Result<Self> {
        let pids = crate::target::Target::pids(&cluster.fs).server;
        let [meta, admin] = pids[..] else { anyhow::bail!("the cluster has not two servers") };
        let admin = move_one("admin", admin, context, folder)?;
        let meta_port = port_of(meta)?;
        let state = cluster.fs.state();
        let mut command = cluster.fs.program("configure")?;
        command.args(["update", "meta-store", "local", "--address"]);
        command.arg(format!("{}:{meta_port}", Network::servers()));
        command.arg("--credsFile").arg(state.join("creds/configure"));
        let updated = process::wait_until(LIMIT, || run_program(&mut command, folder, LIMIT).is_ok());
        ensure!(
            updated,
            "admin does not take the metadata server's new address: {}",
            process::tail(admin.log())
        );
        let meta = move_one("meta", meta, context, folder)?;
        let creds = creds_file::load(TokenKind::Volume, &state.join("creds/mount"))?;
        let port = port_of(admin.pid())?;
        let admin_addr = AdminAddr::parse(&format!("{}:{port}", Network::servers()))?;
        creds_file::store(&creds_of(folder), &Creds { admin_addr, ..creds })?;
        Ok(Self { meta, _admin: admin })
    }
}

fn creds_of(folder: &Path) -> PathBuf {
    folder.join("creds")
}

fn port_of(pid: u32) -> anyhow::Result<u16> {
    let words = command_line(pid)?;
    let at = words.iter().position(|word| word == "--bindAddr").context("a server without --bindAddr")?;
    let address = words.get(at + 1).context("--bindAddr has no value")?;
    Ok(address.rsplit(':').next().unwrap_or_default().parse()?)
}

/// Ends a server and starts it with the same words, but listening on all addresses.
fn move_one(name: &str, pid: u32, context: &Context, folder: &Path) -> anyhow::Result<Daemon> {
    let (words, port) = (command_line(pid)?, port_of(pid)?);
    let program = fs::read_link(format!("/proc/{pid}/exe"))?;
    process::terminate(pid);
    ensure!(process::wait_until(LIMIT, || !process::is_alive(pid)), "{name} (pid {pid}) does not end");
    let everywhere = format!("{}:{port}", Ipv4Addr::UNSPECIFIED);
    let mut is_address = false;
    let words = words.into_iter().skip(1).map(|word| {
        let is_now = std::mem::replace(&mut is_address, word == "--bindAddr");
        if is_now { everywhere.clone() } else { word }
    });
    let mut command = Command::new(program);
    command.args(words);
    let mut daemon =
        Daemon::start(name, &mut command, &folder.join(format!("{name}.log")), &context.scratch)?;
    daemon.wait_until(LIMIT, || std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())?;
    Ok(daemon)
}

/// One mount on its host.
struct Mount {
    number: u64,
    daemon: Daemon,
    point: PathBuf,
}

impl Mount {
    fn start(
        cluster: &Cluster,
        context: &Context,
        folder: &Path,
        number: u64,
        host: &[String; 2],
    ) -> anyhow::Result<Self> {
        let point = folder.join(format!("mnt-{number}"));
        fs::create_dir_all(&point)?;
        let [enter, network] = host;
        // One shard each: rings count against the locked memory of a user, all mounts of a machine together.
        let cpu =
            (number % std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64)).to_string();
        let mut command = Command::new("taskset");
        command.args(["-c", cpu.as_str(), enter.as_str(), network.as_str()]);
        command.arg(cluster.fs.program("mount")?.get_program());
        command.args(["start", "--foreground", "--transport", "uring", "--credsFile"]).arg(creds_of(folder));
        command.arg("--stateFolder").arg(folder.join("state")).arg("main").arg(&point);
        let log = folder.join(format!("mount-{number}.log"));
        let mut daemon = Daemon::start("a mount", &mut command, &log, &context.scratch)?;
        daemon.wait_until(LIMIT, || is_mounted(&point))?;
        Ok(Self { number, daemon, point })
    }

    /// One turn; gives what each operation took.
    fn turn(&self, random: &mut Random, counts: &mut [Histogram]) -> anyhow::Result<()> {
        let own = self.point.join(format!("own-{}", self.number));
        let mut timed = |kind: usize, work: &mut dyn FnMut() -> anyhow::Result<()>| {
            let began = clock::now();
            work()?;
            counts[kind].record(u64::try_from((clock::now() - began).as_nanos()).unwrap_or(u64::MAX));
            anyhow::Ok(())
        };
        let looked_at = entry(&self.point.join("shared"), random.below(SHARED));
        timed(0, &mut || Ok(rustix::fs::stat(&looked_at).map(drop)?))?;
        let written = entry(&own, random.below(LISTED));
        timed(1, &mut || {
            Ok(OpenOptions::new().write(true).truncate(true).open(&written)?.write_all(&[7; PAGE])?)
        })?;
        timed(2, &mut || {
            let found = list(&own)?;
            ensure!(found == LISTED, "{} has {found} entries instead of {LISTED}", own.display());
            Ok(())
        })
    }
}

/// So many turns on all mounts, a thread for each, spread over the second.
fn work(mounts: &[Mount], turns: u32) -> anyhow::Result<Vec<Histogram>> {
    let sums = Mutex::new(vec![Histogram::default(); KINDS.len()]);
    let began = clock::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0_u32..)
            .zip(mounts)
            .map(|(index, mount)| {
                let sums = &sums;
                let first = began + TURN.mul_f64(f64::from(index) / mounts.len() as f64);
                scope.spawn(move || turns_of(mount, first, turns, sums))
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })?;
    sums.into_inner().map_err(|_| anyhow::anyhow!("a thread panicked"))
}

fn turns_of(mount: &Mount, first: Instant, turns: u32, sums: &Mutex<Vec<Histogram>>) -> anyhow::Result<()> {
    let mut counts = vec![Histogram::default(); KINDS.len()];
    let mut random = Random::new(mount.number + 1);
    for turn in 0..turns {
        check_end()?;
        std::thread::sleep(clock::until(first + TURN * turn));
        mount.turn(&mut random, &mut counts).with_context(|| format!("on mount {}", mount.number))?;
    }
    if let Ok(mut sums) = sums.lock() {
        sums.iter_mut().zip(&counts).for_each(|(sum, one)| sum.add(&one.pairs()));
    }
    Ok(())
}
