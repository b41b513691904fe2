//! The rows of a comparison and their order.
//!
//! Rows come in chains: what the first of a chain makes, the others use. All targets do a row before the next row begins.

use std::time::Duration;

use crate::work::{Kind, Unit};

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// As named in the report.
    pub(crate) name: &'static str,
    /// Files of metadata work, all workers together.
    pub(crate) files: u64,
    /// Files of one page, all workers together.
    pub(crate) small_files: u64,
    /// Mebibytes of the large file.
    pub(crate) mebibytes: u64,
    /// Random reads, and writes, all workers together.
    pub(crate) random: u64,
    /// Appends.
    pub(crate) appends: u64,
    /// Files of the source tree, about.
    pub(crate) tree_files: usize,
    /// Nothing is begun after this time; the figure is then the rate up to there.
    pub(crate) soft: Duration,
    /// The same for rows that move much data.
    pub(crate) soft_data: Duration,
    /// What is not done by then hangs, or is given up.
    pub(crate) hard: Duration,
    /// Rows that begin cold have the kernel's caches dropped.
    pub(crate) drops_caches: bool,
}

/// A run that is meant to be kept.
pub(crate) const FULL: Scale = Scale {
    name: "full",
    files: 10_000,
    small_files: 10_000,
    mebibytes: 1024,
    random: 10_000,
    appends: 500,
    tree_files: 10_000,
    soft: Duration::from_millis(2500),
    soft_data: Duration::from_secs(8),
    hard: Duration::from_secs(120),
    drops_caches: true,
};

/// Two minutes.
pub(crate) const QUICK: Scale = Scale {
    name: "quick",
    files: 2000,
    small_files: 1000,
    mebibytes: 128,
    random: 1000,
    appends: 100,
    tree_files: 600,
    soft: Duration::from_millis(800),
    soft_data: Duration::from_secs(2),
    hard: Duration::from_secs(30),
    drops_caches: true,
};

/// Whether it works: measures nothing, and leaves the machine's caches alone.
pub(crate) const TINY: Scale = Scale {
    name: "tiny",
    files: 40,
    small_files: 24,
    mebibytes: 3,
    random: 40,
    appends: 3,
    tree_files: 30,
    soft: Duration::from_secs(60),
    soft_data: Duration::from_secs(60),
    hard: Duration::from_secs(120),
    drops_caches: false,
};

impl Scale {
    /// How often a kind of work is done by all workers together.
    pub(crate) fn count(&self, kind: Kind) -> u64 {
        match kind {
            Kind::SmallWrite | Kind::SmallRead => self.small_files,
            Kind::SequentialWrite | Kind::SequentialRead => self.mebibytes,
            Kind::RandomRead | Kind::RandomWrite => self.random,
            Kind::Append => self.appends,
            Kind::Untar | Kind::Clone | Kind::Build => 1,
            _ => self.files,
        }
    }

    /// Time in which operations are begun.
    pub(crate) fn soft(&self, kind: Kind) -> Duration {
        match kind {
            Kind::SequentialWrite | Kind::SequentialRead => self.soft_data,
            _ => self.soft,
        }
    }
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) kind: Kind,
    pub(crate) workers: u64,
    /// Begins with caches dropped and the client mounted anew.
    pub(crate) cold: bool,
    /// Does everything once before, unmeasured.
    pub(crate) warm: bool,
    /// Later rows of the chain need what it leaves.
    pub(crate) makes: bool,
}

impl Row {
    /// What its figure counts.
    pub(crate) fn unit(&self) -> Unit {
        self.kind.unit()
    }
}

/// Rows that work in the same folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) id: String,
    /// Heading of its plot and table.
    pub(crate) title: String,
    pub(crate) rows: Vec<Row>,
    /// What it leaves takes much room, and is removed behind each round.
    pub(crate) is_large: bool,
}

/// Everything there is to do.
pub(crate) fn plan() -> Vec<Chain> {
    let mut chains = Vec::new();
    for workers in [1, 8] {
        chains.push(metadata(workers));
    }
    for workers in [1, 8] {
        chains.push(small(workers));
    }
    chains.extend([large(), log(), projects()]);
    chains
}

fn row(kind: Kind, id: &str, title: &str, workers: u64) -> Row {
    Row { id: id.to_owned(), title: title.to_owned(), kind, workers, cold: false, warm: false, makes: false }
}

fn counted(workers: u64) -> String {
    if workers == 1 { "1 process".to_owned() } else { format!("{workers} processes") }
}

fn metadata(workers: u64) -> Chain {
    let row = |kind, id: &str, title: &str| row(kind, &format!("{id}-{workers}"), title, workers);
    let rows = vec![
        Row { makes: true, ..row(Kind::Create, "create", "create empty file") },
        Row { cold: true, ..row(Kind::Stat, "stat-cold", "stat, cold") },
        Row { cold: true, ..row(Kind::Statx, "statx-cold", "stat with time of birth, cold") },
        Row { warm: true, ..row(Kind::Stat, "stat-cached", "stat again at once") },
        Row { cold: true, ..row(Kind::List, "readdir", "readdir, cold (entries)") },
        Row { cold: true, ..row(Kind::ListLong, "ls", "`ls -l`, cold (entries)") },
        row(Kind::Open, "open", "open + close"),
        row(Kind::Chmod, "chmod", "chmod"),
        row(Kind::Rename, "rename", "rename"),
        row(Kind::Unlink, "unlink", "unlink"),
        Row { makes: true, ..row(Kind::Mkdir, "mkdir", "mkdir") },
        row(Kind::Rmdir, "rmdir", "rmdir"),
    ];
    let title = format!("Metadata, {}", counted(workers));
    Chain { id: format!("metadata-{workers}"), title, rows, is_large: false }
}

fn small(workers: u64) -> Chain {
    let row = |kind, id: &str, title: &str| row(kind, &format!("{id}-{workers}"), title, workers);
    let rows = vec![
        Row { makes: true, ..row(Kind::SmallWrite, "small-write", "write 4 KiB files") },
        Row { cold: true, ..row(Kind::SmallRead, "small-read", "read 4 KiB files, cold") },
    ];
    Chain {
        id: format!("small-{workers}"),
        title: format!("Files of 4 KiB, {}", counted(workers)),
        rows,
        is_large: false,
    }
}

fn large() -> Chain {
    let rows = vec![
        Row { makes: true, ..row(Kind::SequentialWrite, "seq-write", "sequential write 1 MiB + fsync", 1) },
        Row { cold: true, ..row(Kind::SequentialRead, "seq-read", "sequential read, cold", 1) },
        Row { warm: true, ..row(Kind::SequentialRead, "seq-reread", "sequential read, second time", 1) },
        Row { cold: true, ..row(Kind::RandomRead, "rand-read-1", "random read 4 KiB, cold, depth 1", 1) },
        Row { cold: true, ..row(Kind::RandomRead, "rand-read-8", "random read 4 KiB, cold, depth 8", 8) },
        Row { warm: true, ..row(Kind::RandomRead, "rand-reread", "random read 4 KiB, second time", 1) },
        row(Kind::RandomWrite, "rand-write", "random write 4 KiB + fsync", 1),
    ];
    Chain { id: "large".to_owned(), title: "One large file".to_owned(), rows, is_large: true }
}

fn log() -> Chain {
    let rows = vec![row(Kind::Append, "append", "append 4 KiB + fdatasync", 1)];
    Chain { id: "log".to_owned(), title: "A log".to_owned(), rows, is_large: false }
}

fn projects() -> Chain {
    let rows = vec![
        row(Kind::Untar, "untar", "untar a source tree", 1),
        row(Kind::Clone, "clone", "git clone", 1),
        row(Kind::Build, "build", "cargo build of a small crate", 1),
    ];
    Chain { id: "projects".to_owned(), title: "Programs".to_owned(), rows, is_large: false }
}

/// The part of a plan that `only` names, by rows (`create-1`), work (`create`) or chains (`metadata-1`, `metadata`), with
/// what it needs. Rows that are only needed are not in the list of those to report, which comes second.
///
/// # Errors
/// A name that is nothing's.
pub(crate) fn selected(chains: Vec<Chain>, only: &[String]) -> Result<(Vec<Chain>, Vec<String>), String> {
    let matches = |name: &str, id: &str| {
        id == name || id.strip_prefix(name).is_some_and(|rest| rest == "-1" || rest == "-8")
    };
    for name in only {
        let known = chains
            .iter()
            .any(|chain| matches(name, &chain.id) || chain.rows.iter().any(|row| matches(name, &row.id)));
        if !known {
            return Err(format!("no work is named {name}; see --list"));
        }
    }
    let is_wanted = |chain: &Chain, row: &Row| {
        only.is_empty() || only.iter().any(|name| matches(name, &chain.id) || matches(name, &row.id))
    };
    let mut reported = Vec::new();
    let mut kept = Vec::new();
    for mut chain in chains {
        let wanted: Vec<bool> = chain.rows.iter().map(|row| is_wanted(&chain, row)).collect();
        reported.extend(
            chain.rows.iter().zip(&wanted).filter(|(_, wanted)| **wanted).map(|(row, _)| row.id.clone()),
        );
        let Some(last) = wanted.iter().rposition(|wanted| *wanted) else { continue };
        let mut index = 0;
        chain.rows.retain(|row| {
            let keep = index <= last && (wanted[index] || row.makes);
            index += 1;
            keep
        });
        kept.push(chain);
    }
    Ok((kept, reported))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_rows_are_unique_and_makers_come_first() {
        let chains = plan();
        let mut ids: Vec<&str> =
            chains.iter().flat_map(|chain| &chain.rows).map(|row| row.id.as_str()).collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all);
        assert!(chains.iter().filter(|chain| chain.rows.len() > 3).all(|chain| chain.rows[0].makes));
    }

    #[test]
    fn only_brings_what_it_needs_and_reports_what_it_names() {
        let only = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            selected(plan(), &names)
        };
        let (chains, reported) = only(&["stat-cold-1", "rmdir"]).unwrap();
        assert_eq!(reported, ["stat-cold-1", "rmdir-1", "rmdir-8"]);
        let ids: Vec<&str> = chains[0].rows.iter().map(|row| row.id.as_str()).collect();
        assert_eq!(ids, ["create-1", "stat-cold-1", "mkdir-1", "rmdir-1"]);
        assert_eq!(chains.len(), 2);
        assert_eq!(only(&["stat-cold-1"]).unwrap().0[0].rows.len(), 2);
        assert_eq!(only(&["projects"]).unwrap().1, ["untar", "clone", "build"]);
        assert_eq!(only(&[]).unwrap().0, plan());
        assert!(only(&["stat-hot"]).unwrap_err().contains("stat-hot"));
    }
}
