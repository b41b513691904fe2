//! Programs under a time limit.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::clock::now;

/// Limit of a program that says none.
const LIMIT: Duration = Duration::from_secs(60);
/// Most of an output that a failure prints, bytes.
const SHOWN_BYTES: usize = 6000;

/// A program to run.
pub(crate) struct Run {
    command: Command,
    input: Option<Vec<u8>>,
    limit: Duration,
}

/// What a program left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Both outputs, for refusals that may stand in either.
    pub(crate) fn text(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

impl Run {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        // A process group of its own: its children end with it.
        command.process_group(0).env("RUST_BACKTRACE", "0").env_remove("FLEXFS_CHILD");
        Self { command, input: None, limit: LIMIT }
    }

    /// `sh -c`, with `$1`, `$2`, .. for paths.
    pub(crate) fn shell(script: &str, arguments: &[&Path]) -> Self {
        Self::new("bash").args(["-euo", "pipefail", "-c", script, "bash"]).args(arguments)
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.command.current_dir(folder);
        self
    }

    pub(crate) fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    pub(crate) fn user(mut self, id: u32) -> Self {
        self.command.uid(id).gid(id);
        self
    }

    /// The same program, started by another one: `words` come before it.
    pub(crate) fn behind<A: AsRef<OsStr>>(self, words: &[A]) -> Self {
        let [first, rest @ ..] = words else { return self };
        let mut run =
            Self::new(first).args(rest).arg(self.command.get_program()).args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => run.command.env(name, value),
                None => run.command.env_remove(name),
            };
        }
        if let Some(folder) = self.command.get_current_dir() {
            run.command.current_dir(folder);
        }
        Self { input: self.input, limit: self.limit, ..run }
    }

    pub(crate) fn limit(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// Runs it to its end, which must be a good one.
    pub(crate) fn ok(self) -> Ran {
        let shown = self.shown();
        let ran = self.run();
        assert!(ran.status.success(), "{shown}: {}\n{}\n{}", ran.status, tail(&ran.out), tail(&ran.err));
        ran
    }

    /// Runs it to its end, which must be a bad one.
    pub(crate) fn fails(self) -> Ran {
        let shown = self.shown();
        let ran = self.run();
        assert!(!ran.status.success(), "{shown} succeeded\n{}\n{}", tail(&ran.out), tail(&ran.err));
        ran
    }

    /// Runs it to its end, whatever it is. Panics past the limit, with the process group killed.
    pub(crate) fn run(mut self) -> Ran {
        let shown = self.shown();
        // Files, not pipes: a daemon that inherits one must not keep us waiting for its end.
        let (mut out, mut err) = (scratch_file(), scratch_file());
        self.command.stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
        let mut child = self.spawn_quiet();
        let start = now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if start.elapsed() > self.limit {
                break None;
            }
            sleep(Duration::from_millis(if start.elapsed() < Duration::from_millis(200) { 1 } else { 10 }));
        };
        let read = |file: &mut File| {
            let mut bytes = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (text, error) = (read(&mut out), read(&mut err));
        let Some(status) = status else {
            kill_group(&mut child);
            panic!("{shown}: still running after {:?}\n{}\n{}", self.limit, tail(&text), tail(&error));
        };
        Ran { status, out: text, err: error }
    }

    /// Starts it and comes back at once; input and output are pipes.
    pub(crate) fn spawn_piped(mut self) -> Running {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = self.command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.shown()));
        Running { child }
    }

    fn spawn_quiet(&mut self) -> Child {
        let input = match self.input.take() {
            None => Stdio::null(),
            Some(bytes) => {
                let mut file = scratch_file();
                file.write_all(&bytes).unwrap();
                file.rewind().unwrap();
                file.into()
            }
        };
        self.command.stdin(input);
        self.command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.shown()))
    }

    fn shown(&self) -> String {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        let text = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
        text.chars().take(400).collect()
    }
}

/// A program that runs beside the test; killed when dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
}

impl Running {
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Its end within `limit`, none when it still runs.
    pub(crate) fn end(&mut self, limit: Duration) -> Option<ExitStatus> {
        let start = now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            if start.elapsed() > limit {
                return None;
            }
            sleep(Duration::from_millis(5));
        }
    }
}

impl Running {
    /// Kills its process group, whose processes must all be gone within `limit`.
    pub(crate) fn kill_group(&mut self, limit: Duration) {
        let group = Pid::from_child(&self.child);
        kill_process_group(group, Signal::KILL).unwrap();
        assert!(self.end(limit).is_some(), "a shell survives kill -9");
        let gone = || rustix::process::test_kill_process_group(group).is_err();
        assert!(super::clock::soon(limit, gone), "a process survives kill -9");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            kill_group(&mut self.child);
        }
    }
}

fn kill_group(child: &mut Child) {
    // It may have ended just now; then there is nobody to kill.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    let start = now();
    // A process inside a hanging file system is collected later, by whoever frees the file system.
    while matches!(child.try_wait(), Ok(None)) && start.elapsed() < Duration::from_secs(3) {
        sleep(Duration::from_millis(5));
    }
}

fn scratch_file() -> File {
    tempfile::tempfile().unwrap()
}

fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(SHOWN_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}
