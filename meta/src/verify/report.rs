//! The verdict, and the order of the checks.

use flexfs_wire::errno::Errno;

use super::facts::Facts;
use super::{names, sessions, space};
use crate::engine::Store;

/// Problems written out; more are counted only.
const PROBLEMS_SHOWN_MAX: usize = 1_000;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Sentences, each on one thing that is wrong; the first ones.
    pub problems: Vec<String>,
    /// All of them.
    pub problem_count: u64,
    /// Inodes.
    pub inodes: u64,
    /// Directory entries.
    pub entries: u64,
    /// Extents.
    pub extents: u64,
    /// Blocks.
    pub blocks: u64,
    /// Of them garbage.
    pub garbage: u64,
    /// Orphans: inodes without a name.
    pub orphans: u64,
    /// Bytes allocated by files.
    pub bytes: u64,
    /// Sessions that have not ended.
    pub sessions: u64,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.problem_count == 0
    }

    pub(super) fn problem(&mut self, text: impl FnOnce() -> String) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_SHOWN_MAX {
            self.problems.push(text());
        }
    }

    /// Notes a problem unless `holds`.
    pub(super) fn check(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.problem(text);
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for problem in &self.problems {
            writeln!(f, "problem: {problem}")?;
        }
        if self.problem_count > self.problems.len() as u64 {
            writeln!(f, "... and {} more", self.problem_count - self.problems.len() as u64)?;
        }
        writeln!(
            f,
            "{} inodes ({} orphans), {} entries, {} extents, {} blocks ({} garbage), {} bytes allocated, {} sessions",
            self.inodes,
            self.orphans,
            self.entries,
            self.extents,
            self.blocks,
            self.garbage,
            self.bytes,
            self.sessions
        )?;
        match self.problem_count {
            0 => write!(f, "clean"),
            count => write!(f, "{count} problems"),
        }
    }
}

/// Checks a volume that nobody writes to.
///
/// # Errors
/// `EIO` when the engine cannot read.
pub fn verify(store: &impl Store) -> Result<Report, Errno> {
    let mut report = Report::default();
    let Some(mut facts) = Facts::load(store, &mut report)? else { return Ok(report) };
    names::check_entries(store, &mut facts, &mut report)?;
    names::check_cookies(store, &facts, &mut report)?;
    names::check_links(store, &facts, &mut report)?;
    names::check_tree(&facts, &mut report);
    space::check_blocks(store, &mut facts, &mut report)?;
    space::check_extents(store, &mut facts, &mut report)?;
    space::check_parts(store, &mut facts, &mut report)?;
    space::check_live(store, &facts, &mut report)?;
    space::check_counters(&facts, &mut report);
    sessions::check(store, &facts, &mut report)?;
    Ok(report)
}
