//! Opening and closing.

use std::fs::File;

use super::folder;
use super::meter::{Gate, Meter};
use super::spec::{Outcome, Spec};

/// `open(O_RDONLY)` and `close`.
pub(crate) fn open(spec: &Spec, gate: Gate<'_>) -> anyhow::Result<Outcome> {
    gate()?;
    let outcome = Meter::run(spec, |number| {
        drop(File::open(folder::entry(&spec.folder, number))?);
        Ok(0)
    })?;
    Ok(outcome.end())
}
