//! What runs leave behind when they are killed: mounts, processes and folders, all of which name the run's folder.
//!
//! A run's folder is `flexfs-compare.PID`, so that one whose process is gone can be told.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process;
use crate::target::{break_off, mounts_below};

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
    let dead: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| is_dead_run(path)).collect();
    for folder in &dead {
        clear(folder);
    }
    dead
}

fn is_dead_run(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some(pid) = name.strip_prefix(PREFIX).and_then(|pid| pid.parse().ok()) else { return false };
    // The pid may be somebody else's by now.
    let is_run = || process::is_alive(pid) && process::command_line(pid).contains("compare");
    pid != std::process::id() && !is_run()
}

/// Takes off all mounts below a folder, ends all processes that name it or work in it, removes it.
pub(crate) fn clear(folder: &Path) {
    for target in mounts_below(folder) {
        break_off(&target);
    }
    let pids = processes_of(folder);
    pids.iter().for_each(|pid| process::terminate(*pid));
    let ended = process::wait_until(END_TIME, || !pids.iter().any(|pid| process::is_alive(*pid)));
    if !ended {
        pids.iter().for_each(|pid| process::kill(*pid));
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

/// Processes whose command line or working directory names a folder; not this one.
fn processes_of(folder: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let name = format!("{}/", folder.display());
    pids.filter(|pid| *pid != std::process::id())
        .filter(|pid| {
            process::command_line(*pid).contains(&name)
                || fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder))
        })
        .collect()
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
        // A process that works there, as redis does.
        let mut left = Command::new("sleep").arg("60").current_dir(&dead).spawn().unwrap();
        let reaper = std::thread::spawn(move || left.wait().unwrap());
        assert_eq!(clear_dead(dir.path()), [dead.clone()]);
        assert!(!reaper.join().unwrap().success());
        assert!(!dead.exists() && others.iter().all(|path| path.exists()));
    }
}
