//! Empty files, and folders.

use std::fs::{self, OpenOptions};

use super::folder;
use super::meter::{Gate, Meter};
use super::spec::{Outcome, Spec};

/// `open(O_CREAT | O_EXCL)` and `close`, in a fresh folder.
pub(crate) fn files(spec: &Spec, gate: Gate<'_>) -> anyhow::Result<Outcome> {
    fs::create_dir_all(&spec.folder)?;
    gate()?;
    let outcome = Meter::run(spec, |number| {
        OpenOptions::new().write(true).create_new(true).open(folder::entry(&spec.folder, number))?;
        Ok(0)
    })?
    .end();
    folder::expect_entries(&spec.folder, outcome.done)?;
    Ok(outcome)
}

/// `mkdir`, in a fresh folder.
pub(crate) fn folders(spec: &Spec, gate: Gate<'_>) -> anyhow::Result<Outcome> {
    fs::create_dir_all(&spec.folder)?;
    gate()?;
    let outcome = Meter::run(spec, |number| {
        fs::create_dir(folder::entry(&spec.folder, number))?;
        Ok(0)
    })?
    .end();
    folder::expect_entries(&spec.folder, outcome.done)?;
    Ok(outcome)
}
