//! `tar -x` of a source tree.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::command::output;
use super::sources::listing;
use crate::work::meter::{Gate, whole};
use crate::work::spec::{Outcome, Spec};

/// Every how many files the content is compared, too; names and sizes are of all.
const COMPARED: usize = 50;

/// Unpacks, and compares what came out with what went in.
pub(crate) fn untar(spec: &Spec, gate: Gate<'_>) -> anyhow::Result<Outcome> {
    let target = spec.folder.join("tree");
    fs::create_dir_all(&target)?;
    let tar = spec.sources.join("tree.tar");
    // The archive lies on the local disk: who is first must not pay for that.
    output(Command::new("tar").arg("-tf").arg(&tar))?;
    gate()?;
    let outcome =
        whole(|| output(Command::new("tar").arg("-xf").arg(&tar).arg("-C").arg(&target)).map(drop))?;
    let wanted = fs::read_to_string(spec.sources.join("tree.list")).context("read the list of files")?;
    let found = listing(&target)?;
    let lines: Vec<String> = found.iter().map(|(size, path)| format!("{size}\t{}", path.display())).collect();
    ensure!(
        lines.iter().map(String::as_str).eq(wanted.lines()),
        "the unpacked tree has other files or sizes than the archive ({} and {} files)",
        lines.len(),
        wanted.lines().count()
    );
    for (_, path) in found.iter().step_by(COMPARED) {
        let (one, other) = (fs::read(target.join(path))?, fs::read(spec.sources.join("tree").join(path))?);
        ensure!(one == other, "{} does not hold what the archive does", path.display());
    }
    Ok(outcome)
}
