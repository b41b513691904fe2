//! Processes of a cluster, found by what stands in their command line: each cluster has a folder of its own.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::clock::soon;

/// A running process, with what is needed to start it again.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pid: Pid,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    folder: PathBuf,
}

impl Process {
    /// Processes that name `folder` in their command line, ourselves left out.
    pub(crate) fn of(folder: &Path) -> Vec<Self> {
        let own = std::process::id().to_string();
        let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let numbers = entries.filter_map(|entry| entry.file_name().into_string().ok());
        numbers
            .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()) && *name != own)
            .filter_map(|name| Self::read(&name, folder))
            .collect()
    }

    /// The one running `program` (`meta-flexfs`) that names `folder`.
    pub(crate) fn find(program: &str, folder: &Path) -> Option<Self> {
        Self::of(folder).into_iter().find(|process| process.is(program))
    }

    fn read(number: &str, folder: &Path) -> Option<Self> {
        let proc = Path::new("/proc").join(number);
        let line = fs::read(proc.join("cmdline")).ok()?;
        let wanted = folder.as_os_str().as_bytes();
        line.windows(wanted.len()).any(|window| window == wanted).then_some(())?;
        let split = |bytes: &[u8]| -> Vec<OsString> {
            let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
            bytes.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect()
        };
        let environment = split(&fs::read(proc.join("environ")).ok()?).into_iter().filter_map(|pair| {
            let at = pair.as_bytes().iter().position(|byte| *byte == b'=')?;
            let (name, value) = pair.as_bytes().split_at(at);
            Some((OsString::from_vec(name.to_vec()), OsString::from_vec(value[1..].to_vec())))
        });
        Some(Self {
            pid: Pid::from_raw(number.parse().ok()?)?,
            program: fs::read_link(proc.join("exe")).ok()?,
            arguments: split(&line).split_off(1),
            environment: environment.collect(),
            folder: fs::read_link(proc.join("cwd")).ok()?,
        })
    }

    /// Whether it runs this program.
    pub(crate) fn is(&self, program: &str) -> bool {
        self.program.ends_with(program)
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// What stands behind a flag in its command line.
    pub(crate) fn flag(&self, name: &str) -> Option<OsString> {
        let prefix = format!("{name}=");
        let mut words = self.arguments.iter();
        while let Some(word) = words.next() {
            if word == name {
                return words.next().cloned();
            }
            if let Some(value) = word.as_bytes().strip_prefix(prefix.as_bytes()) {
                return Some(OsString::from_vec(value.to_vec()));
            }
        }
        None
    }

    /// The words that start it again.
    pub(crate) fn command(&self) -> Vec<OsString> {
        std::iter::once(self.program.clone().into()).chain(self.arguments.iter().cloned()).collect()
    }

    /// Its variables, as `env` takes them.
    pub(crate) fn environment(&self) -> Vec<OsString> {
        let pair = |(name, value): &(OsString, OsString)| {
            let mut pair = name.clone();
            pair.push("=");
            pair.push(value);
            pair
        };
        self.environment.iter().map(pair).collect()
    }

    /// The same, started with more arguments.
    pub(crate) fn with(mut self, more: &[&str]) -> Self {
        self.arguments.extend(more.iter().map(OsString::from));
        self
    }

    /// The same, by a copy of its program.
    pub(crate) fn moved(self, program: PathBuf) -> Self {
        Self { program, ..self }
    }

    /// Lines of `/proc/PID/task/*/status` that begin with `key`, one of each thread.
    pub(crate) fn statuses(&self, key: &str) -> Vec<String> {
        let tasks = fs::read_dir(self.proc("task")).unwrap().map(|task| task.unwrap().path().join("status"));
        let value = |path: PathBuf| {
            // A thread may have ended meanwhile.
            let text = fs::read_to_string(path).ok()?;
            Some(text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?.trim().to_owned())
        };
        tasks.filter_map(value).collect()
    }

    /// A file of its folder in `/proc`.
    pub(crate) fn proc(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.as_raw_nonzero().to_string()).join(name)
    }

    /// Its arguments, the program's name left out.
    pub(crate) fn arguments(&self) -> &[OsString] {
        &self.arguments
    }

    pub(crate) fn is_alive(&self) -> bool {
        let stat =
            fs::read_to_string(format!("/proc/{}/stat", self.pid.as_raw_nonzero())).unwrap_or_default();
        // A zombie has ended: only its parent has not looked yet. Not before its last thread, which may hold its files.
        let tasks =
            || fs::read_dir(format!("/proc/{}/task", self.pid.as_raw_nonzero())).map_or(0, Iterator::count);
        test_kill_process(self.pid).is_ok() && (!stat.contains(") Z ") || tasks() > 1)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // It may have ended by itself; the callers look at `is_alive`.
        let _ = kill_process(self.pid, signal);
    }

    /// kill -9, and gone when this returns.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
        assert!(soon(Duration::from_secs(10), || !self.is_alive()), "{self:?} survives kill -9");
    }

    /// As [`Process::start_again`], with another word in place of one of its arguments.
    pub(crate) fn start_elsewhere(mut self, word: &str, other: &str, log: &Path) {
        for argument in &mut self.arguments {
            if argument == word {
                *argument = other.into();
            }
        }
        self.start_again(log);
    }

    /// Starts the same program with the same arguments again, its output appended to `log`.
    pub(crate) fn start_again(&self, log: &Path) {
        let log: File = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().envs(self.environment.iter().cloned());
        command.current_dir(&self.folder).process_group(0).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = command.spawn().unwrap();
        // Somebody has to collect it when it ends.
        std::thread::spawn(move || child.wait());
    }
}
