//! Instructions of the hot paths, counted by callgrind and compared with a committed baseline.
//!
//! ```text
//! counts            compares, fails on what has become dearer
//! counts --renew    writes the baseline anew
//! counts --quick    runs each case once, without callgrind
//! ```
//! Time on a busy machine says little; the number of instructions is the same on an idle and on a loaded one. It is no
//! time: cache misses, waits and system calls are not in it.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a measurement: a step that fails ends it")]

#[path = "../../benches/support/answer.rs"]
mod answer;
#[path = "../../benches/support/attr.rs"]
mod attr;
mod baseline;
mod callgrind;
mod case;
#[path = "../../benches/support/request.rs"]
mod request;
#[path = "../../benches/support/sample.rs"]
mod sample;
#[path = "../../benches/support/volume.rs"]
mod volume;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use baseline::Baseline;

/// Where the baseline lies.
fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("baseline/counts.tsv")
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => compare(),
        ["--renew"] => renew(),
        ["--quick"] => quick(),
        // How this program calls itself under callgrind.
        ["--case", name] => {
            case::find(name).run();
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("counts: usage: counts [--renew | --quick]");
            ExitCode::from(2)
        }
    }
}

fn quick() -> ExitCode {
    for case in case::all() {
        case.run();
    }
    println!("counts: every case runs");
    ExitCode::SUCCESS
}

fn compare() -> ExitCode {
    if let Some(why) = callgrind::incomparable() {
        println!("counts: not compared: {why}");
        return ExitCode::SUCCESS;
    }
    let text = match std::fs::read_to_string(file()) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("counts: {}: {error}; make it with: {}", file().display(), baseline::RENEW);
            return ExitCode::FAILURE;
        }
    };
    let baseline = match Baseline::parse(&text) {
        Ok(baseline) => baseline,
        Err(error) => {
            eprintln!("counts: {}: {error}", file().display());
            return ExitCode::FAILURE;
        }
    };
    let report = baseline.compare(&callgrind::count_all(), &callgrind::circumstances());
    print!("{}", report.table);
    for problem in &report.problems {
        eprintln!("counts: {problem}");
    }
    if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn renew() -> ExitCode {
    if let Some(why) = callgrind::incomparable() {
        eprintln!("counts: no baseline can be made here: {why}");
        return ExitCode::FAILURE;
    }
    let baseline = Baseline { circumstances: callgrind::circumstances(), counts: callgrind::count_all() };
    std::fs::write(file(), baseline.to_text()).unwrap();
    println!("counts: wrote {} cases to {}", baseline.counts.len(), file().display());
    ExitCode::SUCCESS
}
