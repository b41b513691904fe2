//! Running a program to its end.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::work::spec::Spec;

/// Runs a program that must succeed, and gives what it printed. Ended from outside, with the worker's process group.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {name}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<&str> = text.trim_end().lines().rev().take(3).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("{name} failed ({}): {}", output.status, tail.join(" / "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Does the work once on the local disk, in a folder that is not there before and goes afterwards.
pub(crate) fn warmed(spec: &Spec, work: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let folder = spec.sources.join("warm");
    let _ = fs::remove_dir_all(&folder);
    work(&folder)?;
    fs::remove_dir_all(&folder).context("remove what was made to warm caches")
}
