//! Processes that outlive this one: started with a log file, known by pid and start time, so that a pid that
//! was reused is never taken for them, let alone killed.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// Lines of a log that are shown when its program failed.
const TAIL_LINES: usize = 15;
/// Bytes of a log that are looked at for these.
const TAIL_BYTES: u64 = 8192;

/// A process, beyond mistaking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    pid: i32,
    /// Clock ticks from boot to its start (field 22 of `/proc/PID/stat`).
    start: u64,
    /// Which boot.
    boot: String,
}

impl Identity {
    /// The running process `pid`; `None` when there is none, or only its remains.
    fn of(pid: i32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let start = start_of(&String::from_utf8_lossy(&stat))?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Self { pid, start, boot: boot.trim().to_owned() })
    }
}

/// Start time from a `/proc/PID/stat` line; `None` for a zombie. The name in parentheses may hold anything.
fn start_of(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // Field 3 (state) comes first here, so field 22 has index 19.
    if matches!(*fields.first()?, "Z" | "X") { None } else { fields.get(19)?.parse().ok() }
}

/// A program that runs in the background, and the files that go with it.
#[derive(Clone, Debug)]
pub(crate) struct Daemon {
    /// Its name, for texts.
    pub(crate) name: &'static str,
    /// File that names its process.
    pub(crate) pid_file: PathBuf,
    /// Where its output goes.
    pub(crate) log: PathBuf,
}

impl Daemon {
    /// Its pid when it runs.
    pub(crate) fn pid(&self) -> Option<i32> {
        let noted = self.noted()?;
        (Identity::of(noted.pid).as_ref() == Some(&noted)).then_some(noted.pid)
    }

    /// Starts it. It survives this process and the terminal's interrupts.
    pub(crate) fn start(&self, program: &Path, arguments: &[String]) -> anyhow::Result<Child> {
        let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.log);
        let log = log.with_context(|| format!("open {}", self.log.display()))?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .current_dir("/")
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let pid = i32::try_from(child.id()).context("pid")?;
        if self.note(pid)?.is_none() {
            bail!("{}", self.died());
        }
        Ok(child)
    }

    /// Remembers that it runs as `pid`; `None` when no such process runs.
    pub(crate) fn note(&self, pid: i32) -> anyhow::Result<Option<()>> {
        let Some(identity) = Identity::of(pid) else { return Ok(None) };
        fs::write(&self.pid_file, toml::to_string(&identity)?)
            .with_context(|| format!("write {}", self.pid_file.display()))?;
        Ok(Some(()))
    }

    /// Stops it with SIGTERM, and with SIGKILL when `limit` has passed. Fine when it does not run.
    pub(crate) fn stop(&self, limit: Duration) -> anyhow::Result<()> {
        if let Some(process) = self.open()? {
            // An error here is a process that ended by itself in between.
            let _ = pidfd_send_signal(&process, Signal::TERM);
            if !ended(&process, limit)? {
                eprintln!("{} did not stop within {} s: killed", self.name, limit.as_secs());
                let _ = pidfd_send_signal(&process, Signal::KILL);
                ended(&process, Duration::from_secs(10))?;
            }
        }
        self.forget();
        Ok(())
    }

    /// Sends SIGTERM; `false` when it does not run.
    pub(crate) fn terminate(&self) -> anyhow::Result<bool> {
        match self.open()? {
            None => Ok(false),
            Some(process) => Ok(pidfd_send_signal(&process, Signal::TERM).is_ok()),
        }
    }

    /// Forgets a process that is gone.
    pub(crate) fn forget(&self) {
        // Nothing depends on it: a stale file names a process that no longer matches.
        let _ = fs::remove_file(&self.pid_file);
    }

    /// What to say when it ended by itself: the end of its log has the cause.
    pub(crate) fn died(&self) -> String {
        let tail = tail(&self.log).unwrap_or_default();
        format!("{} ended right after its start; the end of {}:\n{tail}", self.name, self.log.display())
    }

    /// A handle on the noted process, which cannot come to mean another one.
    fn open(&self) -> anyhow::Result<Option<rustix::fd::OwnedFd>> {
        let Some(noted) = self.noted() else { return Ok(None) };
        let Some(pid) = Pid::from_raw(noted.pid) else { return Ok(None) };
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => process,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("look at {} (pid {})", self.name, noted.pid));
            }
        };
        // Compared after the handle exists: if the noted one still lives, the handle is on it.
        Ok((Identity::of(noted.pid).as_ref() == Some(&noted)).then_some(process))
    }

    fn noted(&self) -> Option<Identity> {
        toml::from_str(&fs::read_to_string(&self.pid_file).ok()?).ok()
    }
}

fn ended(process: &rustix::fd::OwnedFd, limit: Duration) -> anyhow::Result<bool> {
    let limit = Timespec::try_from(limit).context("time limit")?;
    let mut polled = [PollFd::new(process, PollFlags::IN)];
    Ok(poll(&mut polled, Some(&limit))? > 0)
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path) -> anyhow::Result<String> {
    let mut file = match File::open(log) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error.into()),
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(|line| format!("  {line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon(folder: &Path) -> Daemon {
        Daemon { name: "sleep", pid_file: folder.join("pid"), log: folder.join("log") }
    }

    #[test]
    fn started_known_and_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let daemon = daemon(dir.path());
        assert_eq!(daemon.pid(), None);
        daemon.stop(Duration::from_secs(1)).unwrap();
        let mut child = daemon.start(Path::new("/bin/sleep"), &["60".to_owned()]).unwrap();
        assert_eq!(daemon.pid(), Some(i32::try_from(child.id()).unwrap()));
        daemon.stop(Duration::from_secs(5)).unwrap();
        assert!(!child.wait().unwrap().success());
        assert_eq!(daemon.pid(), None);
    }

    #[test]
    fn a_stranger_with_the_pid_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let daemon = daemon(dir.path());
        let mut stranger = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(stranger.id()).unwrap();
        let mut identity = Identity::of(pid).unwrap();
        identity.start -= 1;
        fs::write(&daemon.pid_file, toml::to_string(&identity).unwrap()).unwrap();
        assert_eq!(daemon.pid(), None);
        daemon.stop(Duration::from_secs(1)).unwrap();
        assert!(stranger.try_wait().unwrap().is_none());
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }

    #[test]
    fn stat_lines() {
        let line = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987 1 2";
        assert_eq!(start_of(line), Some(987));
        assert_eq!(start_of(&line.replace(" S ", " Z ")), None);
        assert_eq!(start_of("garbage"), None);
    }
}
