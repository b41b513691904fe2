//! Attributes: reading and changing them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use anyhow::ensure;
use rustix::fs::FileType;

use super::folder;
use super::meter::{Gate, Meter};
use super::spec::{Outcome, Spec};

/// Permission bits that `chmod` sets; no file is made with them.
const CHANGED_MODE: u32 = 0o611;

/// `stat(2)`, in the order of creation: what most programs ask.
pub(crate) fn stat(spec: &Spec, gate: Gate<'_>) -> anyhow::Result<Outcome> {
    let look = |number| -> anyhow::Result<u64> {
        let attr = rustix::fs::stat(folder::entry(&spec.folder, number))?;
        let is_file = FileType::from_raw_mode(attr.st_mode) == FileType::RegularFile;
        ensure!(is_file && attr.st_size == 0, "not the empty file that was made");
        Ok(0)
    };
    if spec.warm {
        (0..spec.count).try_for_each(|number| look(number).map(drop))?;
    }
    gate()?;
    Ok(Meter::run(spec, look)?.end())
}

/// `statx(2)` with the time of birth, which Rust's programs ask, and which FUSE answers with a request of its own.
pub(crate) fn statx(spec: &Spec, gate: Gate<'_>) -> anyhow::Result<Outcome> {
    gate()?;
    let outcome = Meter::run(spec, |number| {
        let attr = fs::metadata(folder::entry(&spec.folder, number))?;
        ensure!(attr.is_file() && attr.len() == 0, "not the empty file that was made");
        Ok(0)
    })?;
    Ok(outcome.end())
}

/// `chmod`.
pub(crate) fn chmod(spec: &Spec, gate: Gate<'_>) -> anyhow::Result<Outcome> {
    gate()?;
    let outcome = Meter::run(spec, |number| {
        fs::set_permissions(folder::entry(&spec.folder, number), Permissions::from_mode(CHANGED_MODE))?;
        Ok(0)
    })?
    .end();
    for number in [0, outcome.done.saturating_sub(1)] {
        let mode = fs::metadata(folder::entry(&spec.folder, number))?.permissions().mode() & 0o7777;
        ensure!(mode == CHANGED_MODE, "file {number} has mode {mode:o} after chmod {CHANGED_MODE:o}");
    }
    Ok(outcome)
}
