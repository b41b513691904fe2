//! Processes: their figures in `/proc`, ending them in time, and the wish to end this one.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context as _, bail};
use flexfs_uring::clock;
use rustix::process::{Pid, kill_process, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Pause between looks at something that ends by itself.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Clock ticks per second in `/proc/PID/stat` (`USER_HZ`, 100 on every architecture Linux runs on today).
const TICKS_PER_SECOND: f64 = 100.0;

static ASKED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Has SIGINT, SIGTERM and SIGHUP ask this program to end instead of killing it. Handlers and no blocked signals: programs
/// that are started inherit what is blocked, and would not hear that they are to end.
///
/// # Errors
/// When a handler cannot be set.
pub(crate) fn watch_signals() -> anyhow::Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ASKED)).context("set a signal handler")?;
    }
    Ok(())
}

/// Whether somebody asked this program to end.
pub(crate) fn is_asked_to_end() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// What some processes have used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// CPU time in user and kernel mode, seconds.
    pub(crate) cpu_seconds: f64,
    /// Resident memory, MiB.
    pub(crate) rss_mib: f64,
}

impl Usage {
    /// Of processes and all their descendants; those that are gone count nothing.
    pub(crate) fn of(pids: &[u32]) -> Self {
        let mut sum = Self::default();
        let mut left = pids.to_vec();
        while let Some(pid) = left.pop() {
            left.extend(children(pid));
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            sum.cpu_seconds += cpu_ticks(&stat).unwrap_or(0) as f64 / TICKS_PER_SECOND;
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            sum.rss_mib += rss_kib(&status).unwrap_or(0) as f64 / 1024.0;
        }
        sum
    }
}

/// utime and stime, the 14th and 15th field. The 2nd, the name, may hold anything, but ends with the last bracket.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn rss_kib(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists =
        threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// A process that cannot be mistaken for a later one with its pid. Only `/proc/PID/stat` is read: command lines and
/// working directories of processes that hang cannot be read without hanging, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    /// Clock ticks after boot.
    started: u64,
}

impl Identity {
    /// Of a process that is there and no zombie.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let state = fields.next()?;
        // The 22nd field; the state is the 3rd.
        let started = fields.nth(18)?.parse().ok()?;
        (!matches!(state, "Z" | "X")).then_some(Self { pid, started })
    }

    /// Whether it still is there.
    pub(crate) fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// When it began: seconds after boot, in steps of a tick.
    pub(crate) fn started(self) -> f64 {
        self.started as f64 / TICKS_PER_SECOND
    }

    /// As a line of a file.
    pub(crate) fn line(self) -> String {
        format!("{} {}\n", self.pid, self.started)
    }

    /// From such a line.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (pid, started) = line.split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, started: started.trim().parse().ok()? })
    }
}

/// Seconds since boot, as [`Identity::started`] counts them.
///
/// # Errors
/// `/proc` is not there.
pub(crate) fn uptime() -> anyhow::Result<f64> {
    let text = fs::read_to_string("/proc/uptime").context("read /proc/uptime")?;
    let seconds = text.split(' ').next().unwrap_or_default();
    seconds.parse().with_context(|| format!("/proc/uptime says {text:?}"))
}

/// Whether a process is there and no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    Identity::of(pid).is_some()
}

/// Asks a process to end.
pub(crate) fn terminate(pid: u32) {
    send(pid, rustix::process::Signal::TERM);
}

/// Ends a process.
pub(crate) fn kill(pid: u32) {
    send(pid, rustix::process::Signal::KILL);
}

fn send(pid: u32, signal: rustix::process::Signal) {
    if let Some(pid) = as_pid(pid) {
        // Gone already is what is wanted.
        let _ = kill_process(pid, signal);
    }
}

/// Ends a process group, named by its first process.
pub(crate) fn kill_group(pid: u32) {
    if let Some(pid) = as_pid(pid) {
        let _ = kill_process_group(pid, rustix::process::Signal::KILL);
    }
}

fn as_pid(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// Waits for a child for some time.
pub(crate) fn wait_for(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = clock::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if clock::now() < deadline => std::thread::sleep(LOOK_EVERY),
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Waits until something is so.
pub(crate) fn wait_until(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = clock::now() + limit;
    loop {
        if is_so() {
            return true;
        }
        if clock::now() >= deadline {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Runs a program that must succeed within a time, with its output going to files in `folder`; gives what it printed.
///
/// # Errors
/// When it cannot be started, fails (with the end of what it said), or takes too long and is ended.
pub(crate) fn run(command: &mut Command, folder: &Path, limit: Duration) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let short = Path::new(&name).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (out, err) = (folder.join(format!("{short}.out")), folder.join(format!("{short}.err")));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(fs::File::create(&out)?)
        .stderr(fs::File::create(&err)?)
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {name}"))?;
    let Some(status) = wait_for(&mut child, limit) else {
        kill_group(child.id());
        let _ = wait_for(&mut child, Duration::from_secs(1));
        bail!("{short} did not end within {limit:?}");
    };
    if !status.success() {
        bail!("{short} failed ({status}): {}", tail(&err));
    }
    Ok(fs::read_to_string(&out)?)
}

/// The last lines of a log, in one line.
pub(crate) fn tail(path: &Path) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_proc_are_read() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 100 1000 10";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("7 (a"), None);
        assert_eq!(rss_kib("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2048));
        let own = std::process::id();
        assert!(is_alive(own) && Usage::of(&[own]).rss_mib > 0.5);
        let identity = Identity::of(own).unwrap();
        assert!(uptime().unwrap() >= identity.started());
        assert!(identity.is_alive() && Identity::parse(&identity.line()) == Some(identity));
        assert!(!Identity { pid: own, started: identity.started + 1 }.is_alive());
        assert_eq!((Identity::parse("1"), Identity::parse("x 1\n")), (None, None));
    }

    #[test]
    fn programs_are_run_and_ended_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let shell = |text: &str, limit| run(Command::new("sh").args(["-c", text]), dir.path(), limit);
        let second = Duration::from_secs(20);
        assert_eq!(shell("echo out; echo err >&2", second).unwrap(), "out\n");
        let text = shell("echo why >&2; exit 3", second).unwrap_err().to_string();
        assert!(text.contains("exit status: 3") && text.ends_with("why"), "{text}");
        let text = shell("sleep 60 & sleep 60", Duration::from_millis(50)).unwrap_err().to_string();
        assert!(text.contains("did not end within"), "{text}");
        assert!(run(&mut Command::new("/no/such/program"), dir.path(), second).is_err());
    }

    #[test]
    fn children_are_counted_with_their_parent() {
        let mut child = Command::new("sleep").arg("20").spawn().unwrap();
        assert!(children(std::process::id()).contains(&child.id()));
        kill(child.id());
        assert!(wait_for(&mut child, Duration::from_secs(20)).is_some());
        assert!(!is_alive(child.id()));
    }
}
