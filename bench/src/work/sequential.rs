//! One large file, written and read from front to end in pieces of 1 MiB.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::ensure;

use super::meter::{Gate, Meter};
use super::spec::{Outcome, Spec};
use crate::pattern::{self, CHUNK};

/// The file of sequential and random work.
pub(crate) fn file(folder: &Path) -> PathBuf {
    folder.join("large")
}

/// Write all, one `fsync` at the end, which is part of the measurement.
pub(crate) fn write(spec: &Spec, gate: Gate<'_>) -> anyhow::Result<Outcome> {
    fs::create_dir_all(&spec.folder)?;
    let path = file(&spec.folder);
    let mut out = File::create(&path)?;
    let mut chunk = vec![0; CHUNK];
    pattern::fill(&mut chunk, 0, 0);
    gate()?;
    let meter = Meter::run(spec, |number| {
        pattern::fill(&mut chunk, 0, number * CHUNK as u64);
        out.write_all(&chunk)?;
        Ok(CHUNK as u64)
    })?;
    out.sync_all()?;
    let outcome = meter.end();
    let size = fs::metadata(&path)?.len();
    ensure!(size == outcome.bytes, "the file has {size} bytes, {} were written", outcome.bytes);
    Ok(outcome)
}

/// Read all and compare. Warm: it was read once, right before.
pub(crate) fn read(spec: &Spec, gate: Gate<'_>) -> anyhow::Result<Outcome> {
    let mut chunk = vec![0; CHUNK];
    pattern::fill(&mut chunk, 0, 0);
    if spec.warm {
        let mut input = File::open(file(&spec.folder))?;
        while input.read(&mut chunk)? > 0 {}
    }
    gate()?;
    let mut input = File::open(file(&spec.folder))?;
    let meter = Meter::run(spec, |number| {
        input.read_exact(&mut chunk)?;
        ensure!(pattern::holds(&chunk, 0, number * CHUNK as u64), "the data read is not what was written");
        Ok(CHUNK as u64)
    })?;
    let outcome = meter.end();
    ensure!(
        outcome.cut || input.read(&mut chunk)? == 0,
        "the file goes on behind the {} bytes written",
        outcome.bytes
    );
    Ok(outcome)
}
