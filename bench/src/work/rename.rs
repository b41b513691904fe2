//! Renaming within a folder.

use std::fs;

use anyhow::ensure;

use super::folder;
use super::meter::{Gate, Meter};
use super::spec::{Outcome, Spec};

/// `rename` to a name that was not there.
pub(crate) fn rename(spec: &Spec, gate: Gate<'_>) -> anyhow::Result<Outcome> {
    gate()?;
    let outcome = Meter::run(spec, |number| {
        fs::rename(folder::entry(&spec.folder, number), folder::renamed(&spec.folder, number))?;
        Ok(0)
    })?
    .end();
    folder::expect_entries(&spec.folder, spec.count)?;
    for number in [0, outcome.done.saturating_sub(1)] {
        ensure!(
            folder::renamed(&spec.folder, number).exists() && !folder::entry(&spec.folder, number).exists(),
            "file {number} is not where it was renamed to"
        );
    }
    Ok(outcome)
}
