//! The saved report.

use serde::{Deserialize, Serialize};

use crate::work::Unit;

/// Version of the format.
pub(crate) const FORMAT: u32 = 1;

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) format: u32,
    /// When it began, UTC, `2026-11-26T01:20:00Z`.
    pub(crate) date: String,
    /// Seconds it took.
    pub(crate) seconds: f64,
    /// Whole scale: `full`, `quick`.
    pub(crate) scale: String,
    pub(crate) rounds: u32,
    /// Target that others are set in relation to.
    pub(crate) base: String,
    /// The command line.
    pub(crate) options: Vec<String>,
    pub(crate) machine: Machine,
    /// What programs were at work on; empty when none was.
    pub(crate) tree: String,
    pub(crate) targets: Vec<TargetInfo>,
    pub(crate) rows: Vec<RowInfo>,
    pub(crate) cells: Vec<Cell>,
}

/// Where it ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_gib: f64,
    pub(crate) kernel: String,
    /// File system of the scratch folder.
    pub(crate) disk: String,
    /// Commit of the tree, with `+` when it has changes; empty outside of a repository.
    pub(crate) commit: String,
}

impl std::fmt::Display for Machine {
    /// The commit, and what it ran on.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let commit = if self.commit.is_empty() { "unknown" } else { &self.commit };
        let Self { cpus, cpu, memory_gib, kernel, disk, .. } = self;
        write!(f, "commit {commit}, {cpus} CPUs ({cpu}), {memory_gib} GiB, Linux {kernel}, disk {disk}")
    }
}

/// One target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TargetInfo {
    pub(crate) name: String,
    /// Software, versions, options.
    pub(crate) about: String,
    /// What cold means for it; empty when it was never cooled.
    pub(crate) cold: String,
    /// Why it did not start, the last time it did not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) error: Option<String>,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RowInfo {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) group: String,
    pub(crate) unit: Unit,
    pub(crate) workers: u64,
    pub(crate) cold: bool,
}

/// One measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Cell {
    pub(crate) row: String,
    pub(crate) target: String,
    pub(crate) round: u32,
    /// In the row's unit; none when it failed or does not apply.
    pub(crate) value: Option<f64>,
    /// Why there is no value.
    pub(crate) error: Option<String>,
    /// It cannot be done there.
    pub(crate) not_applicable: bool,
    /// The time limit cut it: the value is the rate up to there.
    pub(crate) cut: bool,
    pub(crate) operations: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    /// Latency of an operation, microseconds.
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    /// CPU seconds of the client's processes within the measurement.
    pub(crate) client_cpu: f64,
    /// CPU seconds of the servers'.
    pub(crate) server_cpu: f64,
    /// Resident memory of the client's processes behind it, MiB.
    pub(crate) client_rss: f64,
    /// Load average of the last minute before it.
    pub(crate) load_before: f64,
    /// And behind it.
    pub(crate) load_after: f64,
}

impl Cell {
    /// In one line, for the progress.
    pub(crate) fn text(&self, unit: Unit) -> String {
        match (self.value, &self.error) {
            (Some(value), _) => {
                let cut = if self.cut { " (cut)" } else { "" };
                format!("{value:.1} {}{cut}", unit.text())
            }
            (None, Some(error)) => format!("failed: {error}"),
            (None, None) => "not applicable".to_owned(),
        }
    }
}
