//! `verify`: every invariant of the databases, checked with the server stopped.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::engine::Store as _;
use crate::engine::fjall::{Fjall, Options};
use crate::server;
use crate::verify::{Report, verify};
use crate::volume::{database_folder, found_volumes};

/// Checks one volume, or all; the exit code says whether they are clean.
///
/// # Errors
/// The server runs, or a database cannot be read.
pub(super) fn run(folder: &Path, volume: Option<&str>, json: bool) -> Result<ExitCode> {
    if !folder.is_dir() {
        bail!("there is no database folder {}; name it with --dbFolder", folder.display());
    }
    // Held to the end: no server may start in between.
    let _lock = server::lock(folder)?;
    let volumes = folder.join("volumes");
    let found = if volumes.is_dir() {
        found_volumes(&volumes).with_context(|| format!("list {}", volumes.display()))?
    } else {
        Vec::new()
    };
    let wanted: Vec<&String> = found.iter().filter(|id| volume.is_none_or(|wanted| wanted == *id)).collect();
    if let Some(wanted_id) = volume
        && wanted.is_empty()
    {
        bail!("there is no volume {wanted_id} below {}", volumes.display());
    }
    let mut clean = true;
    let mut reports = Vec::new();
    for id in wanted {
        let store = Fjall::open(&database_folder(&volumes, id), Options::default())?;
        let report = verify(&store).with_context(|| format!("volume {id} cannot be read"))?;
        store.close().with_context(|| format!("volume {id} did not close in order"))?;
        clean &= report.is_clean();
        if json {
            reports.push(as_json(id, &report));
        } else {
            print(id, &report);
        }
    }
    if json {
        println!("{}", serde_json::json!({ "clean": clean, "volumes": reports }));
    } else if found.is_empty() {
        println!("no volumes below {}", volumes.display());
    }
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(id: &str, report: &Report) {
    if report.is_clean() {
        println!("volume {id}: clean");
        return;
    }
    println!("volume {id}: {} problems", report.problem_count);
    for problem in &report.problems {
        println!("  {problem}");
    }
    if report.problem_count > report.problems.len() as u64 {
        println!("  ... and more");
    }
}

fn as_json(id: &str, report: &Report) -> serde_json::Value {
    serde_json::json!({
        "volume": id,
        "clean": report.is_clean(),
        "problemCount": report.problem_count,
        "problems": report.problems,
    })
}
