//! What runs leave behind when they are killed: a folder `flexfs-compare.PID`, mounts below it, and processes, which the
//! folder's list of pids names (`target::pids`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{self, Identity};
use crate::target::{break_off, mounts_below, pids};

/// Name of a run's folder in front of its pid.
const PREFIX: &str = "flexfs-compare.";
/// Time for processes to end after SIGTERM.
const END_TIME: Duration = Duration::from_secs(3);
/// Time to remove a folder.
const REMOVE_TIME: Duration = Duration::from_secs(120);

/// The folder of this process's run.
pub(crate) fn folder(scratch: &Path) -> PathBuf {
    scratch.join(format!("{PREFIX}{}", std::process::id()))
}

/// Ends and removes what dead runs have left in `scratch`; gives their folders.
pub(crate) fn clear_dead(scratch: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(scratch) else { return Vec::new() };
    let dead: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| is_dead_run(path)).collect();
    for folder in &dead {
        clear(folder);
    }
    dead
}

fn is_dead_run(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some(pid) = name.strip_prefix(PREFIX).and_then(|pid| pid.parse::<u32>().ok()) else { return false };
    match pids::listed(path).first() {
        // The run itself is the first in its list.
        Some(run) => !run.is_alive(),
        None => !process::is_alive(pid),
    }
}

/// Takes off all mounts below a folder, ends the processes in its list, removes it.
pub(crate) fn clear(folder: &Path) {
    for target in mounts_below(folder) {
        break_off(&target);
    }
    let own = std::process::id();
    let left: Vec<Identity> =
        pids::listed(folder).into_iter().filter(|one| one.pid != own && one.is_alive()).collect();
    left.iter().for_each(|one| process::terminate(one.pid));
    if !process::wait_until(END_TIME, || !left.iter().any(|one| one.is_alive())) {
        left.iter().filter(|one| one.is_alive()).for_each(|one| process::kill(one.pid));
    }
    if mounts_below(folder).is_empty() && folder.exists() {
        // In a process of its own: a disk that hangs must not keep this one.
        let removing = Command::new("rm").args(["-rf", "--one-file-system", "--"]).arg(folder).spawn();
        let removed = removing.ok().and_then(|mut child| process::wait_for(&mut child, REMOVE_TIME));
        if !removed.is_some_and(|status| status.success()) {
            eprintln!("compare: {} is left behind: it could not be removed", folder.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_runs_are_told_from_living_ones_and_from_data() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let dead = dir.path().join(format!("{PREFIX}{}", child.id()));
        let others = [dir.path().join("data"), dir.path().join(format!("{PREFIX}x")), folder(dir.path())];
        for path in others.iter().chain([&dead]) {
            fs::create_dir(path).unwrap();
        }
        let mut left = Command::new("sleep").arg("60").spawn().unwrap();
        fs::write(pids::file(&dead), format!("{} 1\n", child.id())).unwrap();
        pids::note(&dead, left.id()).unwrap();
        let reaper = std::thread::spawn(move || left.wait().unwrap());
        assert_eq!(clear_dead(dir.path()), std::slice::from_ref(&dead));
        assert!(!reaper.join().unwrap().success());
        assert!(!dead.exists() && others.iter().all(|path| path.exists()));
    }
}
