//! `git clone` of a local repository.

use std::path::Path;
use std::process::Command;

use anyhow::ensure;

use super::command::{output, warmed};
use super::sources::git;
use crate::work::meter::{Gate, whole};
use crate::work::spec::{Outcome, Spec};

/// Clones through the transport (`file://`), so that objects are written and not linked, and checks the work tree.
pub(crate) fn clone(spec: &Spec, gate: Gate<'_>) -> anyhow::Result<Outcome> {
    std::fs::create_dir_all(&spec.folder)?;
    let (source, target) = (spec.sources.join("repo.git"), spec.folder.join("clone"));
    let url = format!("file://{}", source.display());
    let clone = |target: &Path| output(git().args(["clone", "-q", &url]).arg(target)).map(drop);
    // The repository lies on the local disk, as git does: who is first must not pay for that.
    warmed(spec, clone)?;
    gate()?;
    let outcome = whole(|| clone(&target))?;
    let changed = output(git().arg("-C").arg(&target).args(["status", "--porcelain"]))?;
    ensure!(
        changed.is_empty(),
        "the clone differs from its commit: {}",
        changed.lines().next().unwrap_or("")
    );
    let head = |folder| output(git().arg("-C").arg(folder).args(["rev-parse", "HEAD"]));
    ensure!(head(&source)? == head(&target)?, "the clone is of another commit");
    let files = output(Command::new("find").arg(&target).args(["-type", "f", "-not", "-path", "*/.git/*"]))?;
    ensure!(!files.is_empty(), "the clone has no files");
    Ok(outcome)
}
