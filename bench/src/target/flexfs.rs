//! This file system: a whole cluster on loopback, started by `configure.flexfs up`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::contract::{Context, Pids, Target};
use super::daemon::free_port;
use super::{pids, place};
use crate::null::Transport;
use crate::process::{self, Identity};

/// Time for the cluster to start or end.
const LIMIT: Duration = Duration::from_secs(90);
/// Time for the mount to write back and end.
const FLUSH_LIMIT: Duration = Duration::from_secs(70);

/// A cluster of its own and its mount.
#[derive(Debug)]
pub(crate) struct FlexFs {
    binaries: PathBuf,
    scratch: PathBuf,
    folder: PathBuf,
    transport: Transport,
    version: String,
    admin: Option<Identity>,
    meta: Option<Identity>,
    mount: Option<Identity>,
}

impl FlexFs {
    /// Nothing is started yet.
    pub(crate) fn new(context: &Context, transport: Transport) -> Self {
        let folder = context.scratch.join(format!("flexfs-{}", transport.name()));
        let (binaries, scratch) = (context.binaries.clone(), context.scratch.clone());
        let version = String::new();
        Self { binaries, scratch, folder, transport, version, admin: None, meta: None, mount: None }
    }

    /// Where it is mounted.
    pub(crate) fn mount_point(&self) -> PathBuf {
        self.folder.join("mnt")
    }

    /// Folder of the cluster's data, as `up` lays it out.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// One of its programs.
    ///
    /// # Errors
    /// It is not built.
    pub(crate) fn program(&self, name: &str) -> anyhow::Result<Command> {
        let path = self.binaries.join(format!("{name}-flexfs"));
        ensure!(
            path.exists(),
            "{} is missing: build it with `cargo build --release`, or name the folder with --binDir",
            path.display()
        );
        Ok(Command::new(path))
    }

    /// What the mount says of itself.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) fn status(&self) -> anyhow::Result<Value> {
        let mut command = self.program("mount")?;
        command.arg("status").arg(self.mount_point()).arg("--json").arg("--stateFolder");
        command.arg(self.state().join("mount"));
        Ok(serde_json::from_str(&process::run(&mut command, &self.folder, LIMIT)?)?)
    }

    /// Unmounts, and waits until the client has ended.
    ///
    /// # Errors
    /// It does not.
    pub(crate) fn unmount(&mut self) -> anyhow::Result<()> {
        place::unmount(&self.mount_point(), &self.folder, FLUSH_LIMIT)?;
        if let Some(mount) = self.mount {
            ensure!(process::wait_until(FLUSH_LIMIT, || !mount.is_alive()), "mount.flexfs did not end");
        }
        self.mount = None;
        Ok(())
    }

    /// Starts what does not run and mounts what is not mounted.
    ///
    /// # Errors
    /// Why it does not run.
    pub(crate) fn up(&mut self, ports: &[(&str, u16)]) -> anyhow::Result<()> {
        let mut command = self.program("configure")?;
        command.arg("up").arg(self.mount_point()).arg("--stateDir").arg(self.state());
        command.args(["--json", "--transport", self.transport.name()]);
        for (flag, port) in ports {
            command.args([*flag, &port.to_string()]);
        }
        let report: Value = serde_json::from_str(&process::run(&mut command, &self.folder, LIMIT)?)?;
        let process = |part: &str| -> anyhow::Result<Option<Identity>> {
            let pid = report[part]["pid"].as_u64().with_context(|| format!("`up` names no pid of {part}"))?;
            let pid = u32::try_from(pid)?;
            pids::note(&self.scratch, pid)?;
            let identity = Identity::of(pid).with_context(|| format!("{part} has ended already"))?;
            Ok(Some(identity))
        };
        (self.admin, self.meta, self.mount) = (process("admin")?, process("meta")?, process("mount")?);
        self.check_transport()
    }

    /// A mount that fell back to the other transport would be measured under the wrong name.
    fn check_transport(&self) -> anyhow::Result<()> {
        let status = self.status()?;
        let transport = status["transport"].as_str().unwrap_or("none");
        ensure!(
            transport == self.transport.name(),
            "the mount uses transport {transport} instead of {}",
            self.transport.name()
        );
        Ok(())
    }
}

impl Target for FlexFs {
    fn start(&mut self) -> anyhow::Result<()> {
        place::remove(&self.folder)?;
        fs::create_dir_all(self.mount_point()).context("make the mount point")?;
        let version = process::run(self.program("mount")?.arg("version"), &self.folder, LIMIT)?;
        self.version = version.lines().next().unwrap_or_default().trim().to_owned();
        let ports =
            [("--adminPort", free_port()?), ("--metaPort", free_port()?), ("--metricsPort", free_port()?)];
        self.up(&ports)
    }

    fn root(&self) -> PathBuf {
        self.mount_point()
    }

    fn cool(&mut self) -> anyhow::Result<&'static str> {
        self.unmount()?;
        self.up(&[])?;
        Ok("mounted anew with an empty cache, kernel caches dropped")
    }

    fn pids(&self) -> Pids {
        Pids {
            client: self.mount.iter().map(|one| one.pid).collect(),
            server: self.meta.iter().chain(&self.admin).map(|one| one.pid).collect(),
        }
    }

    fn about(&self) -> String {
        format!(
            "{}, transport {}, quickstart's volume (4 MiB blocks), TLS on",
            self.version,
            self.transport.text()
        )
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        let mut command = self.program("configure")?;
        command.arg("down").arg(self.mount_point()).arg("--stateDir").arg(self.state());
        process::run(&mut command, &self.folder, LIMIT)?;
        (self.admin, self.meta, self.mount) = (None, None, None);
        Ok(())
    }

    fn break_off(&mut self) {
        place::break_off(&self.mount_point());
        let left = [self.mount, self.meta, self.admin];
        left.into_iter().flatten().filter(|one| one.is_alive()).for_each(|one| process::kill(one.pid));
        (self.admin, self.meta, self.mount) = (None, None, None);
    }
}
