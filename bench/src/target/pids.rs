//! The list of processes a run has started, for a later run that finds them left behind.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::process::Identity;

/// The list in a run's folder: pid and start time, a line each, the run itself first.
pub(crate) fn file(folder: &Path) -> PathBuf {
    folder.join("pids")
}

/// Adds a process; one that has ended already needs no note.
///
/// # Errors
/// Those of the disk.
pub(crate) fn note(folder: &Path, pid: u32) -> anyhow::Result<()> {
    let Some(identity) = Identity::of(pid) else { return Ok(()) };
    let path = file(folder);
    let add =
        || OpenOptions::new().create(true).append(true).open(&path)?.write_all(identity.line().as_bytes());
    let added: std::io::Result<()> = add();
    added.with_context(|| format!("write {}", path.display()))
}

/// The processes in the list.
pub(crate) fn listed(folder: &Path) -> Vec<Identity> {
    let text = fs::read_to_string(file(folder)).unwrap_or_default();
    text.lines().filter_map(Identity::parse).collect()
}
