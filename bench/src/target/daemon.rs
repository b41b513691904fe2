//! A program that stays in the foreground and serves, ended by its pid.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::pids;
use crate::process;

/// Time for a program that was killed to be gone.
const KILL_TIME: Duration = Duration::from_secs(5);

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it with its output in `log`, notes it in the run's list in `scratch`. It gets a process
    /// group of its own: a Ctrl-C is for `compare`, which then ends it.
    ///
    /// # Errors
    /// When it is not installed.
    pub(crate) fn start(
        name: &str,
        command: &mut Command,
        log: &Path,
        scratch: &Path,
    ) -> anyhow::Result<Self> {
        let output = File::create(log).with_context(|| format!("make {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let daemon = Self { name: name.to_owned(), child, log: log.to_owned() };
        pids::note(scratch, daemon.pid())?;
        Ok(daemon)
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// When it ends before, or takes too long; with the end of its log.
    pub(crate) fn wait_until(
        &mut self,
        limit: Duration,
        mut serves: impl FnMut() -> bool,
    ) -> anyhow::Result<()> {
        let mut ended = false;
        let child = &mut self.child;
        let ready = process::wait_until(limit, || {
            ended = !matches!(child.try_wait(), Ok(None));
            ended || serves()
        });
        if ended {
            bail!("{} ended while it started: {}", self.name, process::tail(&self.log));
        }
        if !ready {
            bail!("{} does not serve after {limit:?}: {}", self.name, process::tail(&self.log));
        }
        Ok(())
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) fn wait_for_end(&mut self, limit: Duration) -> anyhow::Result<()> {
        if process::wait_for(&mut self.child, limit).is_none() {
            bail!("{} (pid {}) did not end within {limit:?}", self.name, self.pid());
        }
        Ok(())
    }

    /// Asks it to end.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) fn stop(&mut self, limit: Duration) -> anyhow::Result<()> {
        if matches!(self.child.try_wait(), Ok(None)) {
            process::terminate(self.pid());
        }
        self.wait_for_end(limit)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            process::kill_group(self.pid());
            let _ = process::wait_for(&mut self.child, KILL_TIME);
        }
    }
}

/// A port of the loopback device that nobody listens on.
///
/// # Errors
/// When there is none.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?.local_addr()?.port())
}

/// Whether somebody listens on a port.
pub(crate) fn answers(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}
