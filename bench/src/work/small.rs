//! Files of one page.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};

use anyhow::ensure;

use super::folder;
use super::meter::{Gate, Meter};
use super::spec::{Outcome, Spec};
use crate::pattern::{self, PAGE};

/// The seed of a file's bytes: its own, where data is kept.
fn seed(spec: &Spec, number: u64) -> u64 {
    if spec.discards { 0 } else { spec.index << 20 | number }
}

/// Create, write 4096 bytes, close.
pub(crate) fn write(spec: &Spec, gate: Gate<'_>) -> anyhow::Result<Outcome> {
    fs::create_dir_all(&spec.folder)?;
    let mut page = vec![0; PAGE];
    gate()?;
    let outcome = Meter::run(spec, |number| {
        pattern::fill(&mut page, seed(spec, number), 0);
        let path = folder::entry(&spec.folder, number);
        OpenOptions::new().write(true).create_new(true).open(path)?.write_all(&page)?;
        Ok(PAGE as u64)
    })?
    .end();
    folder::expect_entries(&spec.folder, outcome.done)?;
    Ok(outcome)
}

/// Open, read until there is no more, close. No `fstat`, which std's `read_to_end` would ask for, as C programs read.
pub(crate) fn read(spec: &Spec, gate: Gate<'_>) -> anyhow::Result<Outcome> {
    let mut bytes = vec![0; 2 * PAGE];
    gate()?;
    let outcome = Meter::run(spec, |number| {
        let mut file = File::open(folder::entry(&spec.folder, number))?;
        let mut length = 0;
        loop {
            match file.read(&mut bytes[length..])? {
                0 => break,
                more => length += more,
            }
        }
        ensure!(length == PAGE, "the file has {length} bytes instead of {PAGE}");
        ensure!(
            pattern::holds(&bytes[..PAGE], seed(spec, number), 0),
            "the file does not hold what was written"
        );
        Ok(PAGE as u64)
    })?;
    Ok(outcome.end())
}
