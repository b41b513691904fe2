//! One row on one target: what it begins with, who does it, what came out.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::plan::{Chain, Row, Scale};
use crate::process::Usage;
use crate::report::{Cell, TargetInfo, load};
use crate::stats::Histogram;
use crate::target::Target;
use crate::work::{Crew, CrewError, Kind, Outcome, Spec};

/// Writing 3 drops the page cache, dentries and inodes (Documentation/admin-guide/sysctl/vm.rst).
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";
/// Pages in a mebibyte.
const PAGES_PER_MEBIBYTE: u64 = 256;

/// A target in its place at the table.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) info: TargetInfo,
    pub(super) target: Box<dyn Target>,
    pub(super) is_up: bool,
    /// What the chain's last maker left: its row and what each of its workers has done.
    made: Option<(String, Vec<u64>)>,
    /// Why the rest of the chain cannot be done.
    broken: Option<String>,
}

/// What cells have in common.
#[derive(Debug)]
pub(super) struct Setting<'a> {
    pub(super) scale: &'a Scale,
    pub(super) program: &'a Path,
    pub(super) scratch: &'a Path,
    pub(super) sources: &'a Path,
}

impl Seat {
    pub(super) fn new(name: &str, target: Box<dyn Target>) -> Self {
        let info =
            TargetInfo { name: name.to_owned(), about: String::new(), cold: String::new(), error: None };
        Self { info, target, is_up: false, made: None, broken: None }
    }

    /// Brings the target up, if it is down, and forgets the chain before.
    pub(super) fn begin_chain(&mut self) {
        (self.made, self.broken) = (None, None);
        if self.is_up {
            return;
        }
        match self.target.start() {
            Ok(()) => {
                self.is_up = true;
                self.info.error = None;
                self.info.about = self.target.about();
            }
            Err(error) => self.give_up(&format!("does not start: {error:#}")),
        }
    }

    fn give_up(&mut self, why: &str) {
        self.target.break_off();
        self.is_up = false;
        self.info.error = Some(why.to_owned());
    }

    /// Does a row. None when the whole run is to end.
    pub(super) fn measure(
        &mut self,
        setting: &Setting<'_>,
        chain: &Chain,
        row: &Row,
        round: u32,
    ) -> Option<Cell> {
        let mut cell = Cell { row: row.id.clone(), target: self.info.name.clone(), round, ..Cell::default() };
        if row.kind.needs_storage() && self.target.discards() {
            cell.not_applicable = true;
            return Some(cell);
        }
        let why_not = if self.is_up { self.broken.clone() } else { self.info.error.clone() };
        if let Some(why) = why_not {
            cell.error = Some(why);
            return Some(cell);
        }
        if let Err(error) = self.prepare(setting, row) {
            let why = format!("could not be made ready: {error:#}");
            self.give_up(&why);
            cell.error = Some(why);
            return Some(cell);
        }
        let folder = self.target.root().join(format!("round-{round}/{}", chain.id));
        match self.work(setting, row, folder, &mut cell) {
            Ok(()) => {}
            Err(CrewError::Interrupted) => return None,
            Err(CrewError::Failed(text)) => {
                if row.makes {
                    self.broken = Some(format!("{} failed before", row.id));
                }
                cell.error = Some(text);
            }
            Err(CrewError::Hung(text)) => {
                self.give_up(&format!("was ended, because {} was {text}", row.id));
                cell.error = Some(text);
            }
        }
        Some(cell)
    }

    /// Empties caches where the row begins cold; writes of others are on the disk before any row.
    fn prepare(&mut self, setting: &Setting<'_>, row: &Row) -> anyhow::Result<()> {
        if row.cold {
            self.target.cool()?.clone_into(&mut self.info.cold);
        }
        let scratch = std::fs::File::open(setting.scratch)?;
        rustix::fs::syncfs(&scratch).context("sync the local disk")?;
        if row.cold && setting.scale.drops_caches {
            std::fs::write(DROP_CACHES, "3").context("drop the kernel's caches")?;
        }
        Ok(())
    }

    fn work(
        &mut self,
        setting: &Setting<'_>,
        row: &Row,
        folder: PathBuf,
        cell: &mut Cell,
    ) -> Result<(), CrewError> {
        let orders = self.orders(setting, row, folder);
        let mut crew = Crew::start(setting.program, &orders, setting.scale.hard)?;
        crew.gather()?;
        let pids = self.target.pids();
        let before = (Usage::of(&pids.client), Usage::of(&pids.server));
        cell.load_before = load();
        let (outcome, done) = crew.work()?;
        let after = (Usage::of(&pids.client), Usage::of(&pids.server));
        cell.load_after = load();
        cell.client_cpu = after.0.cpu_seconds - before.0.cpu_seconds;
        cell.server_cpu = after.1.cpu_seconds - before.1.cpu_seconds;
        cell.client_rss = after.0.rss_mib;
        fill(cell, row, &outcome);
        if row.makes {
            self.made = Some((row.id.clone(), done));
        }
        Ok(())
    }

    fn orders(&self, setting: &Setting<'_>, row: &Row, folder: PathBuf) -> Vec<Spec> {
        let made = self.made.as_ref().filter(|_| !row.makes);
        let folder = folder.join(made.map_or(row.id.as_str(), |(maker, _)| maker));
        let share = (setting.scale.count(row.kind) / row.workers).max(1);
        let is_random = matches!(row.kind, Kind::RandomRead | Kind::RandomWrite);
        let order = |index: u64| {
            let left = made.and_then(|(_, done)| done.get(usize::try_from(index).ok()?)).copied();
            let mebibytes = made.and_then(|(_, done)| done.first()).copied().unwrap_or(0);
            Spec {
                kind: row.kind,
                folder: if row.kind.is_shared() { folder.clone() } else { folder.join(format!("p{index}")) },
                index,
                count: if is_random { share } else { left.unwrap_or(share) },
                pages: mebibytes * PAGES_PER_MEBIBYTE,
                soft_millis: u64::try_from(setting.scale.soft(row.kind).as_millis()).unwrap_or(u64::MAX),
                warm: row.warm,
                discards: self.target.discards(),
                sources: setting.sources.to_owned(),
            }
        };
        (0..row.workers).map(order).collect()
    }
}

fn fill(cell: &mut Cell, row: &Row, outcome: &Outcome) {
    let mut histogram = Histogram::default();
    histogram.add(&outcome.latencies);
    cell.value = outcome.value(row.unit());
    if cell.value.is_none() {
        cell.error = Some("nothing was done".to_owned());
    }
    cell.cut = outcome.cut;
    cell.operations = outcome.done;
    cell.bytes = outcome.bytes;
    cell.seconds = outcome.nanos as f64 / 1e9;
    cell.p50 = histogram.permille(500);
    cell.p99 = histogram.permille(990);
}
