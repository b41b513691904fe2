//! `cargo build` of a small crate, sources and target folder on the file system.

use std::path::Path;
use std::process::Command;

use anyhow::ensure;

use super::command::{output, warmed};
use super::sources::crate_prints;
use crate::work::meter::{Gate, whole};
use crate::work::spec::{Outcome, Spec};

/// Builds without the network, and runs what was built.
pub(crate) fn build(spec: &Spec, gate: Gate<'_>) -> anyhow::Result<Outcome> {
    std::fs::create_dir_all(&spec.folder)?;
    output(Command::new("cp").arg("-r").arg(spec.sources.join("crate")).arg(&spec.folder))?;
    let folder = spec.folder.join("crate");
    // The toolchain lies on the local disk: who is first must not pay for that.
    warmed(spec, |warm| {
        output(Command::new("cp").arg("-r").arg(spec.sources.join("crate")).arg(warm))?;
        cargo_build(warm)
    })?;
    gate()?;
    let outcome = whole(|| cargo_build(&folder))?;
    let printed = output(&mut Command::new(folder.join("target/debug/small")))?;
    ensure!(printed.trim() == crate_prints(), "the program built prints {printed:?}");
    Ok(outcome)
}

fn cargo_build(folder: &Path) -> anyhow::Result<()> {
    let mut cargo = Command::new("cargo");
    // Flags and folders of the caller's own build must not leak in.
    for name in ["CARGO_TARGET_DIR", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER"] {
        cargo.env_remove(name);
    }
    output(cargo.args(["build", "--quiet", "--offline"]).current_dir(folder)).map(drop)
}
