//! `verify`: every invariant of the databases, checked with the server stopped.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::engine::Store as _;
use crate::engine::fjall::{Fjall, OpenError, Options};
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
    let _lock = server::lock(folder, None)?;
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
        let report = check(&volumes, id)?;
        clean &= report.is_clean();
        if json {
            reports.push(as_json(id, &report));
        } else {
            out(&text(id, &report));
        }
    }
    if json {
        out(&format!("{}\n", serde_json::json!({ "clean": clean, "volumes": reports })));
    } else if found.is_empty() {
        out(&format!("no volumes below {}\n", volumes.display()));
    }
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Checks one volume. A journal that is damaged is one of its problems, and the others are checked all the same.
fn check(volumes: &Path, id: &str) -> Result<Report> {
    let store = match Fjall::open(&database_folder(volumes, id), Options::default()) {
        Err(error @ (OpenError::Damaged(_) | OpenError::Lost { .. } | OpenError::Engine { .. })) => {
            return Ok(Report { problems: vec![error.to_string()], problem_count: 1, ..Report::default() });
        }
        other => other?,
    };
    let report = verify(&store).with_context(|| format!("volume {id} cannot be read"))?;
    store.close().with_context(|| format!("volume {id} did not close in order"))?;
    Ok(report)
}

fn text(id: &str, report: &Report) -> String {
    if report.is_clean() {
        return format!("volume {id}: clean\n");
    }
    let mut text = format!("volume {id}: {} problems\n", report.problem_count);
    for problem in &report.problems {
        text.push_str(&format!("  {problem}\n"));
    }
    if report.problem_count > report.problems.len() as u64 {
        text.push_str("  ... and more\n");
    }
    text
}

/// Writes to standard output. A reader that has seen enough, as `head` has, misses nothing it wants.
fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        eprintln!("meta.flexfs: standard output: {error}");
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
