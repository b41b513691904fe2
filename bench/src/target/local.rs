//! A folder of something that is mounted already: the local disk, or any path.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::contract::{Pids, Target};

/// A plain folder.
#[derive(Debug)]
pub(crate) struct Local {
    root: PathBuf,
    about: String,
    /// It lies outside of the run's folder, which is removed as a whole.
    is_outside: bool,
}

impl Local {
    /// A folder that is made and taken away.
    pub(crate) fn new(root: PathBuf, about: String, is_outside: bool) -> Self {
        Self { root, about, is_outside }
    }
}

/// Type of the file system a path is on, from the mount table.
pub(crate) fn fs_type(path: &Path) -> String {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mounts = table.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    // The last of the longest is the one that covers the others.
    let found = mounts.filter(|(target, _)| path.starts_with(target)).max_by_key(|(target, _)| target.len());
    found.map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned())
}

impl Target for Local {
    fn start(&mut self) -> anyhow::Result<()> {
        fs::create_dir_all(&self.root).with_context(|| format!("make {}", self.root.display()))
    }

    fn root(&self) -> PathBuf {
        self.root.clone()
    }

    fn cool(&mut self) -> anyhow::Result<&'static str> {
        Ok("kernel caches dropped")
    }

    fn pids(&self) -> Pids {
        Pids::default()
    }

    fn about(&self) -> String {
        self.about.clone()
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        if !self.is_outside {
            return Ok(());
        }
        fs::remove_dir_all(&self.root).with_context(|| format!("remove {}", self.root.display()))
    }

    fn break_off(&mut self) {}
}
