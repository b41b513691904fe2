//! Taking away.

use std::fs;

use super::folder;
use super::meter::{Gate, Meter};
use super::spec::{Outcome, Spec};

/// `unlink` of what a listing, before the measurement, has found.
pub(crate) fn files(spec: &Spec, gate: Gate<'_>) -> anyhow::Result<Outcome> {
    folder::expect_entries(&spec.folder, spec.count)?;
    let mut names = folder::entries(&spec.folder)?;
    names.sort();
    gate()?;
    let mut names = names.into_iter();
    let outcome = Meter::run(spec, |_| {
        names.next().map_or(Ok(()), fs::remove_file)?;
        Ok(0)
    })?
    .end();
    folder::expect_entries(&spec.folder, spec.count - outcome.done)?;
    Ok(outcome)
}

/// `rmdir` of empty folders.
pub(crate) fn folders(spec: &Spec, gate: Gate<'_>) -> anyhow::Result<Outcome> {
    gate()?;
    let outcome = Meter::run(spec, |number| {
        fs::remove_dir(folder::entry(&spec.folder, number))?;
        Ok(0)
    })?
    .end();
    folder::expect_entries(&spec.folder, spec.count - outcome.done)?;
    Ok(outcome)
}
