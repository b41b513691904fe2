//! A log: small appends, each made durable.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};

use anyhow::ensure;

use super::meter::{Gate, Meter};
use super::spec::{Outcome, Spec};
use crate::pattern::{self, PAGE};

/// `write` of 4096 bytes with `O_APPEND`, and `fdatasync`.
pub(crate) fn append(spec: &Spec, gate: Gate<'_>) -> anyhow::Result<Outcome> {
    fs::create_dir_all(&spec.folder)?;
    let path = spec.folder.join("log");
    let mut out = OpenOptions::new().append(true).create_new(true).open(&path)?;
    let mut page = vec![0; PAGE];
    gate()?;
    let outcome = Meter::run(spec, |number| {
        pattern::fill(&mut page, 0, number * PAGE as u64);
        out.write_all(&page)?;
        out.sync_data()?;
        Ok(PAGE as u64)
    })?
    .end();
    let mut all = Vec::new();
    File::open(&path)?.read_to_end(&mut all)?;
    ensure!(all.len() as u64 == outcome.bytes, "the log has {} bytes, not {}", all.len(), outcome.bytes);
    ensure!(pattern::holds(&all, 0, 0), "the log does not hold what was appended");
    Ok(outcome)
}
