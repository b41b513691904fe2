//! The loop: rounds, chains, rows, and within a row the targets in turn.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use flexfs_uring::clock;

use super::cell::{Seat, Setting};
use super::leftover;
use super::plan::{self, Chain, Row, Scale};
use crate::args::Args;
use crate::process;
use crate::progress::Progress;
use crate::report::{Cell, Report, RowInfo, machine, today};
use crate::target::{Choice, Context, pids};
use crate::work::{self, Sources};

/// Runs everything the arguments ask for, and gives the report to `save` before it removes what was made, which may take
/// minutes. What it started is ended when this returns, however it does.
///
/// # Errors
/// When nothing can be measured at all. What fails on one target is in the report.
pub(crate) fn run(args: &Args, save: impl FnOnce(&Report) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let (chains, reported) = plan::selected(plan::plan(), &args.only).map_err(anyhow::Error::msg)?;
    let scratch = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = scratch.canonicalize().with_context(|| format!("no folder {}", scratch.display()))?;
    let choices = args.choices();
    let needs_root = !args.tiny || choices.iter().any(Choice::mounts);
    ensure!(
        !needs_root || rustix::process::geteuid().is_root(),
        "mounting and dropping caches need root; run it with sudo"
    );
    let paths: Vec<&Path> =
        choices.iter().map(|one| Path::new(one.name())).filter(|path| path.is_dir()).collect();
    for place in paths.iter().copied().chain([scratch.as_path()]) {
        for dead in leftover::clear_dead(place) {
            eprintln!("compare: removed what a run that was killed had left in {}", dead.display());
        }
    }
    let folder = leftover::folder(&scratch);
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    pids::note(&folder, std::process::id())?;
    let result = Run::new(args, &folder, chains, reported, &choices)
        .and_then(Run::perform)
        .and_then(|report| save(&report));
    leftover::clear(&folder);
    result
}

/// A run that goes on.
struct Run<'a> {
    args: &'a Args,
    scale: &'a Scale,
    context: Context,
    chains: Vec<Chain>,
    reported: Vec<String>,
    seats: Vec<Seat>,
    sources: Option<Sources>,
    progress: Progress,
    cells: Vec<Cell>,
}

impl<'a> Run<'a> {
    fn new(
        args: &'a Args,
        folder: &Path,
        chains: Vec<Chain>,
        reported: Vec<String>,
        choices: &[Choice],
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("find this program's file")?;
        let beside = program.parent().context("a program without a folder")?.to_owned();
        let binaries = args.bin_dir.clone().unwrap_or(beside);
        let context = Context { scratch: folder.to_owned(), binaries, program };
        let seats: Vec<Seat> =
            choices.iter().map(|choice| Seat::new(choice.name(), choice.target(&context))).collect();
        let rows: usize = chains.iter().map(|chain| chain.rows.len()).sum();
        let rounds = usize::try_from(args.rounds())?;
        let scale = match (args.quick, args.tiny) {
            (true, _) => &plan::QUICK,
            (_, true) => &plan::TINY,
            _ => &plan::FULL,
        };
        let progress = Progress::new(rows * rounds * seats.len());
        Ok(Self { args, scale, context, chains, reported, seats, sources: None, progress, cells: Vec::new() })
    }

    fn perform(mut self) -> anyhow::Result<Report> {
        let (began, date) = (clock::now(), today());
        if self.chains.iter().flat_map(|chain| &chain.rows).any(|row| row.kind.needs_storage()) {
            self.progress.note("preparing the source tree, the repository and the crate");
            let folder = self.context.scratch.join("sources");
            self.sources = Some(work::prepare(&folder, self.scale.tree_files)?);
        }
        let mut is_whole = true;
        'rounds: for round in 1..=self.args.rounds() {
            for chain in self.chains.clone() {
                if !self.chain(&chain, round) {
                    is_whole = false;
                    break 'rounds;
                }
            }
        }
        self.progress.finish();
        let seconds = (clock::now() - began).as_secs_f64();
        self.progress.note("ending what was started");
        self.stop();
        Ok(self.report(date, seconds, is_whole))
    }

    /// Does a chain on all targets; false when the run is to end.
    fn chain(&mut self, chain: &Chain, round: u32) -> bool {
        for seat in &mut self.seats {
            if process::is_asked_to_end() {
                return false;
            }
            self.progress.begin(&format!("starting {}", seat.info.name));
            let was_up = seat.is_up;
            seat.begin_chain();
            if let Some(error) = seat.info.error.as_ref().filter(|_| was_up || round == 1) {
                self.progress.note(&format!("{}: {error}", seat.info.name));
            }
        }
        for row in &chain.rows {
            for index in 0..self.seats.len() {
                if process::is_asked_to_end() || !self.cell(index, chain, row, round) {
                    return false;
                }
            }
        }
        if chain.is_large {
            self.remove_large(chain, round);
        }
        true
    }

    fn cell(&mut self, index: usize, chain: &Chain, row: &Row, round: u32) -> bool {
        let setting = Setting {
            scale: self.scale,
            program: &self.context.program,
            scratch: &self.context.scratch,
            sources: &self.context.scratch.join("sources"),
        };
        let seat = &mut self.seats[index];
        let what = format!("round {round}, {} on {}", row.id, seat.info.name);
        self.progress.begin(&what);
        let Some(cell) = seat.measure(&setting, chain, row, round) else { return false };
        self.progress.end(&what, &cell.text(row.unit()));
        if self.reported.contains(&row.id) {
            self.cells.push(cell);
        }
        true
    }

    /// Room for the next round. By a process: the file system may hang.
    fn remove_large(&self, chain: &Chain, round: u32) {
        for seat in self.seats.iter().filter(|seat| seat.is_up) {
            let folder = seat.target.root().join(format!("round-{round}/{}", chain.id));
            let mut remove = std::process::Command::new("rm");
            remove.args(["-rf", "--"]).arg(&folder);
            if let Err(error) = process::run(&mut remove, &self.context.scratch, self.scale.hard) {
                self.progress.note(&format!("{}: {error:#}", folder.display()));
            }
        }
    }

    fn stop(&mut self) {
        for seat in self.seats.iter_mut().filter(|seat| seat.is_up) {
            if let Err(error) = seat.target.stop() {
                eprintln!("compare: {} did not end by itself: {error:#}", seat.info.name);
                seat.target.break_off();
            }
            seat.is_up = false;
        }
    }

    fn report(self, date: String, seconds: f64, is_whole: bool) -> Report {
        let rows = self.chains.iter().flat_map(|chain| chain.rows.iter().map(move |row| (chain, row)));
        let rows = rows
            .filter(|(_, row)| self.reported.contains(&row.id))
            .map(|(chain, row)| RowInfo {
                id: row.id.clone(),
                title: row.title.clone(),
                group: chain.title.clone(),
                unit: row.unit(),
                workers: row.workers,
                cold: row.cold,
            })
            .collect();
        let whole = if is_whole { "" } else { ", interrupted" };
        Report {
            format: crate::report::FORMAT,
            date,
            seconds,
            scale: format!("{}{whole}", self.scale.name),
            rounds: self.args.rounds(),
            base: self.args.base.name().to_owned(),
            options: without_folders(std::env::args().skip(1)),
            machine: machine(&self.context.scratch),
            tree: self.sources.map(|sources| sources.tree).unwrap_or_default(),
            targets: self.seats.into_iter().map(|seat| seat.info).collect(),
            rows,
            cells: self.cells,
        }
    }
}

/// The options of a run, without the folders: they change no figure, and reports are committed.
fn without_folders(options: impl Iterator<Item = String>) -> Vec<String> {
    const FOLDERS: [&str; 3] = ["--out", "--scratch", "--binDir"];
    let mut is_value = false;
    options
        .filter(|option| {
            let name = option.split('=').next().unwrap_or(option);
            let is_folder = std::mem::replace(&mut is_value, false) || FOLDERS.contains(&name);
            is_value = FOLDERS.contains(&option.as_str());
            !is_folder
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_no_folder_of_its_machine() {
        let options = ["--quick", "--out", "/a/b", "--scratch=/c", "--rounds", "3"].map(str::to_owned);
        assert_eq!(without_folders(options.into_iter()), ["--quick", "--rounds", "3"]);
    }
}
