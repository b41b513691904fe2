//! The null server of this crate, over io_uring or `/dev/fuse`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

use super::contract::{Context, Pids, Target};
use super::daemon::Daemon;
use super::place;
use crate::entry::NULL;
use crate::null::{READY, Transport};

/// Time to mount, and to end.
const LIMIT: Duration = Duration::from_secs(20);

/// A mounted null server.
#[derive(Debug)]
pub(crate) struct Null {
    program: PathBuf,
    scratch: PathBuf,
    folder: PathBuf,
    transport: Transport,
    server: Option<Daemon>,
}

impl Null {
    /// Nothing is started yet.
    pub(crate) fn new(context: &Context, transport: Transport) -> Self {
        let folder = context.scratch.join(format!("null-{}", transport.name()));
        Self {
            program: context.program.clone(),
            scratch: context.scratch.clone(),
            folder,
            transport,
            server: None,
        }
    }

    fn mount_point(&self) -> PathBuf {
        self.folder.join("mnt")
    }
}

impl Target for Null {
    fn start(&mut self) -> anyhow::Result<()> {
        fs::create_dir_all(self.mount_point()).context("make the mount point")?;
        let mut command = Command::new(&self.program);
        command.args([NULL, self.transport.name()]).arg(self.mount_point());
        let mut server =
            Daemon::start("the null server", &mut command, &self.folder.join("log"), &self.scratch)?;
        let log = server.log().to_owned();
        server.wait_until(LIMIT, || fs::read_to_string(&log).is_ok_and(|text| text.contains(READY)))?;
        self.server = Some(server);
        Ok(())
    }

    fn root(&self) -> PathBuf {
        self.mount_point()
    }

    /// It keeps nothing but what is the file system: there is nothing to forget.
    fn cool(&mut self) -> anyhow::Result<&'static str> {
        Ok("kernel caches dropped; the server has none")
    }

    fn pids(&self) -> Pids {
        Pids { client: self.server.iter().map(Daemon::pid).collect(), server: Vec::new() }
    }

    fn about(&self) -> String {
        format!(
            "a FUSE server that answers from memory and throws data away, over {}; entry and attribute timeouts 0",
            self.transport.text()
        )
    }

    fn discards(&self) -> bool {
        true
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        place::unmount(&self.mount_point(), &self.folder, LIMIT)?;
        match self.server.as_mut() {
            Some(server) => server.wait_for_end(LIMIT)?,
            None => return Ok(()),
        }
        self.server = None;
        Ok(())
    }

    fn break_off(&mut self) {
        place::break_off(&self.mount_point());
        self.server = None;
    }
}
