//! The program: what its first word or its arguments ask for.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use crate::args::Args;
use crate::target::PRESETS;
use crate::{null, process, report, run, work};

/// First argument of a worker process.
pub(crate) const WORKER: &str = "--worker";
/// First argument of a null server.
pub(crate) const NULL: &str = "--null-server";
/// Exit code of a run that was interrupted, as shells have it for SIGINT.
const INTERRUPTED: u8 = 130;

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    let result = match words[..] {
        [WORKER, order] => work::run_as_worker(order).map(|()| ExitCode::SUCCESS),
        [NULL, transport, target] => null::serve(transport, Path::new(target)).map(|()| ExitCode::SUCCESS),
        _ => compare(&Args::parse()),
    };
    result.unwrap_or_else(|error| {
        eprintln!("compare: error: {error:#}");
        ExitCode::FAILURE
    })
}

fn compare(args: &Args) -> anyhow::Result<ExitCode> {
    if args.list {
        list();
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(path) = &args.readme {
        let readme = tree().context("the tree this program was built from is not here")?.join("README.md");
        report::rewrite(&readme, path)?;
        println!("wrote {}", readme.display());
        return Ok(ExitCode::SUCCESS);
    }
    process::watch_signals()?;
    let out = args.out.clone().or_else(|| Some(tree()?.join("results"))).unwrap_or_else(|| "results".into());
    run::run(args, |found| {
        let path = report::write(found, &out)?;
        println!("{}", report::tables(found));
        println!("Saved as {} (and .md, and plots beside it)", path.display());
        Ok(())
    })?;
    Ok(if process::is_asked_to_end() { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// This crate's folder, while it is there.
fn tree() -> Option<PathBuf> {
    let tree = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    tree.join("README.md").exists().then_some(tree)
}

fn list() {
    println!("Work, by groups:");
    for chain in run::plan() {
        println!("  {:<12} {}", chain.id, chain.title);
        for row in chain.rows {
            println!("    {:<14} {} [{}]", row.id, row.title, row.unit().text());
        }
    }
    println!("Targets:");
    for (name, about) in PRESETS {
        println!("  {name:<12} {about}");
    }
}
