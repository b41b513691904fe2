//! The program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Parser, ValueEnum};

use super::study::Study;
use super::{directory, extents, file, mounts, report, volume};
use crate::process;
use crate::report::{load, machine, today};
use crate::run::leftover;
use crate::target::{Context, break_off, mounts_below, pids};

/// A study that takes longer hangs, and is ended: its mounts are broken off, which lets go who waits for them.
const LIMIT: Duration = Duration::from_secs(45 * 60);
/// How often it is looked whether a study has ended.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Time for a study to end once its mounts are gone.
const END_LIMIT: Duration = Duration::from_secs(30);

/// Measures how cost grows with size, on real servers and mounts of flexfs. See bench/README.md.
///
/// Needs root: it mounts, kills its own servers, and drops the kernel's caches, which slows down everything else on the machine.
#[derive(Clone, Debug, Parser)]
#[command(name = "scale")]
struct Args {
    /// Studies [default: all].
    #[arg(value_name = "STUDY")]
    studies: Vec<Id>,
    /// Small sizes: whether everything works.
    #[arg(long)]
    tiny: bool,
    /// Folder for the results [default: bench/results/scale of this tree, else ./scale].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Folder on the local disk for servers and volumes [default: the folder for temporary files].
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Folder of flexfs's binaries [default: this program's].
    #[arg(long = "binDir", value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Measures nothing: writes the generated section of the README from the saved studies.
    #[arg(long)]
    readme: bool,
}

/// A study.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Id {
    Directory,
    Volume,
    File,
    Extents,
    Mounts,
}

impl Id {
    fn name(self) -> &'static str {
        match self {
            Self::Directory => directory::ID,
            Self::Volume => volume::ID,
            Self::File => file::ID,
            Self::Extents => extents::ID,
            Self::Mounts => mounts::ID,
        }
    }

    /// An empty study with its words.
    fn study(self) -> Study {
        let (title, about) = match self {
            Self::Directory => (
                "Files in one directory",
                "One mount; empty files made by four threads, the last 10 k of each size by one. Cold is mounted anew and the kernel's \
                 caches dropped.",
            ),
            Self::Volume => (
                "Files in a volume",
                "Empty files in directories of 1,000, made straight through the namespace machine over its engine, a commit each, in \
                 the measuring process; then the servers take the database over. All cold: meta was killed, caches dropped, \
                 mounted anew. A start is counted from the process's to `/healthz`.",
            ),
            Self::File => (
                "One large file",
                "1 MiB of data in each 64 MiB, holes between. Before the reads meta was killed and started, caches dropped, mounted anew. \
                 n is pages of 4 KiB.",
            ),
            Self::Extents => (
                "Extents in one file",
                "4 KiB written at every 8 KiB, so that no two merge. Before the reads meta was killed and started, caches dropped, mounted anew. \
                 Space is counted in the server's folder; the volume's retention is 0, and the server looks for garbage every five seconds.",
            ),
            Self::Mounts => (
                "Mounts of one volume",
                "Each in a network namespace of its own, at the end of a veth cable, with one shard. Each second and mount: `stat` of one of 1,000 files in a \
                 directory that all share, a write of 4 KiB over a file of its own directory with close, a listing of that directory (100 entries). All on one \
                 machine: servers, clients and the programs share its cores.",
            ),
        };
        Study::new(self.name(), title, about)
    }

    fn run(self, study: &mut Study, context: &Context, is_tiny: bool) -> anyhow::Result<()> {
        let of = |full: &[u64], tiny: &[u64]| if is_tiny { tiny.to_vec() } else { full.to_vec() };
        match self {
            Self::Directory => {
                directory::run(study, context, &of(&[10_000, 100_000, 1_000_000], &[100, 400]))
            }
            Self::Volume => {
                volume::run(study, context, &of(&[100_000, 1_000_000, 10_000_000], &[2_000, 4_000]))
            }
            Self::File => file::run(study, context, &of(&[1, 8, 64], &[1, 2])),
            Self::Extents => {
                extents::run(study, context, &of(&[1_000, 10_000, 100_000, 1_000_000], &[1_000, 2_000]))
            }
            Self::Mounts => {
                let turns = if is_tiny { 2 } else { 20 };
                mounts::run(study, context, &of(&[1, 10, 50, 200], &[1, 2]), turns)
            }
        }
    }
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    match scale(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn scale(args: &Args) -> anyhow::Result<()> {
    let tree = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let readme = tree.join("README.md");
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| if readme.exists() { tree.join("results/scale") } else { "scale".into() });
    if args.readme {
        let ids: Vec<&str> = Id::value_variants().iter().map(|id| id.name()).collect();
        report::rewrite(&readme, &out, &ids)?;
        println!("wrote {}", readme.display());
        return Ok(());
    }
    ensure!(rustix::process::geteuid().is_root(), "mounting and dropping caches need root; run it with sudo");
    process::watch_signals()?;
    let scratch = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = scratch.canonicalize().with_context(|| format!("no folder {}", scratch.display()))?;
    for dead in leftover::clear_dead(&scratch) {
        eprintln!("scale: removed what a run that was killed had left in {}", dead.display());
    }
    let ids = if args.studies.is_empty() { Id::value_variants() } else { &args.studies };
    let mut failed = Vec::new();
    for id in ids {
        let (study, result) = one(*id, args, &scratch)?;
        println!("{}", report::table(&study));
        println!("Saved as {}", report::write(&study, &out)?.display());
        if let Err(error) = result {
            failed.push(format!("{}: {error:#}", id.name()));
        }
        if process::is_asked_to_end() {
            break;
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

/// One study in a folder of its own, which goes behind it, with everything that was started. The study is what was measured,
/// also when it failed.
fn one(id: Id, args: &Args, scratch: &Path) -> anyhow::Result<(Study, anyhow::Result<()>)> {
    let folder = leftover::folder(scratch);
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    pids::note(&folder, std::process::id())?;
    let program = std::env::current_exe().context("find this program's file")?;
    let beside = program.parent().context("a program without a folder")?.to_owned();
    let binaries = args.bin_dir.clone().unwrap_or(beside);
    let context = Context { scratch: folder.clone(), binaries, program };
    let (begun, load_before) = (today(), load());
    let is_tiny = args.tiny;
    let (sender, receiver) = mpsc::channel();
    // On a thread: a mount that hangs must not keep this one.
    let worker = std::thread::spawn(move || {
        let mut study = id.study();
        let result = id.run(&mut study, &context, is_tiny);
        let _ = sender.send(());
        (study, result)
    });
    let mut waited = Duration::ZERO;
    while matches!(receiver.recv_timeout(LOOK_EVERY), Err(mpsc::RecvTimeoutError::Timeout)) {
        waited += LOOK_EVERY;
        if waited == LIMIT {
            eprintln!("scale: {} did not end within {LIMIT:?}; breaking its mounts off", id.name());
            mounts_below(&folder).iter().for_each(|target| break_off(target));
        } else if waited > LIMIT + END_LIMIT {
            leftover::clear(&folder);
            bail!("{} hangs", id.name());
        }
    }
    let joined = worker.join();
    let machine = machine(&folder);
    leftover::clear(&folder);
    let (mut study, mut result) = joined.map_err(|_| anyhow::anyhow!("{} panicked", id.name()))?;
    if waited >= LIMIT {
        result = result.with_context(|| format!("it took more than {LIMIT:?} and was ended"));
    }
    let whole = if is_tiny { "Tiny run" } else { "Run" };
    study.run = format!(
        "{whole} of {begun}, {machine}; load average {load_before:.1} before, {:.1} behind.",
        load(),
    );
    if let Err(error) = &result {
        // Results are kept in the tree, where no machine's paths belong.
        let why = format!("{error:#}").replace(&folder.display().to_string(), "SCRATCH");
        study.run.push_str(&format!(" It failed: {why}."));
    }
    Ok((study, result))
}

/// A number of things, as tables show it.
pub(super) fn count(number: u64) -> String {
    match number {
        1_000_000.. if number.is_multiple_of(1_000_000) => format!("{} M", number / 1_000_000),
        1_000.. if number.is_multiple_of(1_000) => format!("{} k", number / 1_000),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound_and_names_agree() {
        Args::command().debug_assert();
        for id in Id::value_variants() {
            assert_eq!(id.to_possible_value().unwrap().get_name(), id.name());
            assert_eq!(id.study().id, id.name());
        }
        assert_eq!([999, 1_000, 1_500, 2_000_000].map(count), ["999", "1 k", "1500", "2 M"]);
    }
}
