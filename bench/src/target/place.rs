//! Mount points, also dead ones: asked for in the mount table, never by looking at them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use flexfs_mount::fuse::attach;

use crate::process;

/// The kernel's directory of FUSE connections, and the file system that fills it.
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// Whether something is mounted there.
pub(crate) fn is_mounted(target: &Path) -> bool {
    attach::find(target).ok().flatten().is_some()
}

/// Unmounts in good order, within a time.
///
/// # Errors
/// Busy, or hanging.
pub(crate) fn unmount(target: &Path, folder: &Path, limit: Duration) -> anyhow::Result<()> {
    if !is_mounted(target) {
        return Ok(());
    }
    // In a process of its own: umount(2) of a file system that hangs does not return.
    process::run(Command::new("umount").arg(target), folder, limit)?;
    ensure!(!is_mounted(target), "{} is still mounted", target.display());
    Ok(())
}

/// Ends a mount by force: waiting calls get errors, and the tree is rid of it.
pub(crate) fn break_off(target: &Path) {
    for _ in 0..8 {
        let Ok(Some(mounted)) = attach::find(target) else { return };
        if mounted.fs_type.starts_with("fuse") && mounted.abort().is_err() {
            // The directory may not be filled yet.
            let fill = ["-t", "fusectl", "fusectl", CONNECTIONS];
            if Command::new("mount").args(fill).status().is_ok_and(|status| status.success()) {
                drop(mounted.abort());
            }
        }
        if attach::detach(target).is_err() {
            return;
        }
    }
}

/// Removes a folder of the run, if it is there; never through a mount.
///
/// # Errors
/// When something is still mounted below, or it cannot be removed.
pub(crate) fn remove(folder: &Path) -> anyhow::Result<()> {
    ensure!(mounts_below(folder).is_empty(), "something is still mounted below {}", folder.display());
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Mount points at or below a folder, the innermost first.
pub(crate) fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(PathBuf::from)
        .filter(|target| target.starts_with(folder))
        .collect();
    found.reverse();
    found
}
