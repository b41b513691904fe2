//! The rounds of a row on a target, put together.

use std::collections::BTreeSet;

use super::model::{Report, RowInfo};
use crate::stats::{Spread, median};

/// A row on a target, over all rounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Summary {
    /// None when no round has a value.
    pub(crate) value: Option<Spread>,
    /// A round was cut by its time limit.
    pub(crate) cut: bool,
    pub(crate) not_applicable: bool,
    /// Texts of the failures, each once.
    pub(crate) errors: Vec<String>,
    /// Medians of the rounds.
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) client_cpu: Option<f64>,
    pub(crate) server_cpu: Option<f64>,
    pub(crate) client_rss: Option<f64>,
    /// Median of the operations done.
    pub(crate) operations: Option<f64>,
    pub(crate) bytes: Option<f64>,
}

impl Report {
    /// Puts the rounds together.
    pub(crate) fn summary(&self, row: &str, target: &str) -> Summary {
        let cells: Vec<_> =
            self.cells.iter().filter(|cell| cell.row == row && cell.target == target).collect();
        let good: Vec<_> = cells.iter().filter(|cell| cell.value.is_some()).collect();
        let values: Vec<f64> = good.iter().filter_map(|cell| cell.value).collect();
        let errors: BTreeSet<&String> = cells.iter().filter_map(|cell| cell.error.as_ref()).collect();
        let median_of = |values: Vec<f64>| median(&values);
        Summary {
            value: Spread::of(&values),
            cut: good.iter().any(|cell| cell.cut),
            not_applicable: cells.iter().any(|cell| cell.not_applicable),
            errors: errors.into_iter().cloned().collect(),
            p50: median_of(good.iter().filter_map(|cell| cell.p50).collect()),
            p99: median_of(good.iter().filter_map(|cell| cell.p99).collect()),
            client_cpu: median_of(good.iter().map(|cell| cell.client_cpu).collect()),
            server_cpu: median_of(good.iter().map(|cell| cell.server_cpu).collect()),
            client_rss: median_of(good.iter().map(|cell| cell.client_rss).collect()),
            operations: median_of(good.iter().map(|cell| cell.operations as f64).collect()),
            bytes: median_of(good.iter().map(|cell| cell.bytes as f64).collect()),
        }
    }

    /// Groups of rows in their order.
    pub(crate) fn groups(&self) -> Vec<(&str, Vec<&RowInfo>)> {
        let mut groups: Vec<(&str, Vec<&RowInfo>)> = Vec::new();
        for row in &self.rows {
            match groups.iter_mut().find(|(name, _)| *name == row.group) {
                Some((_, rows)) => rows.push(row),
                None => groups.push((&row.group, vec![row])),
            }
        }
        groups
    }

    /// How many times better a target is than another in a row; of the medians.
    pub(crate) fn ratio(&self, row: &RowInfo, target: &str, base: &str) -> Option<f64> {
        let value = |target| self.summary(&row.id, target).value.map(|spread| spread.median);
        row.unit.ratio(value(target)?, value(base)?)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::report::model::{Cell, FORMAT, Machine, TargetInfo};
    use crate::work::Unit;

    /// Two rows on three targets: one that works, one slower that is cut, one that fails.
    pub(crate) fn sample() -> Report {
        let target = |name: &str, error: Option<&str>| TargetInfo {
            name: name.to_owned(),
            about: format!("about {name} <&>"),
            cold: String::new(),
            error: error.map(str::to_owned),
        };
        let row = |id: &str, unit, group: &str| RowInfo {
            id: id.to_owned(),
            title: format!("title of {id}"),
            group: group.to_owned(),
            unit,
            workers: 1,
            cold: false,
        };
        let cell = |row: &str, target: &str, round, value: f64| Cell {
            row: row.to_owned(),
            target: target.to_owned(),
            round,
            value: Some(value),
            operations: 100,
            p50: Some(10.0),
            p99: Some(99.0),
            client_cpu: 0.5,
            cut: target == "juicefs",
            ..Cell::default()
        };
        let mut cells = Vec::new();
        for (round, value) in [(1, 100.0), (2, 300.0), (3, 200.0)] {
            cells.push(cell("create-1", "ours", round, value));
            cells.push(cell("create-1", "juicefs", round, value / 4.0));
            cells.push(cell("untar", "ours", round, value));
            cells.push(cell("untar", "juicefs", round, value * 2.0));
            for row in ["create-1", "untar"] {
                let error = Some("it | hung".to_owned());
                cells.push(Cell { value: None, error, ..cell(row, "ext4", round, 0.0) });
            }
        }
        Report {
            format: FORMAT,
            date: "2026-11-26T01:02:03Z".to_owned(),
            seconds: 61.5,
            scale: "quick".to_owned(),
            rounds: 3,
            base: "juicefs".to_owned(),
            options: vec!["--quick".to_owned()],
            machine: Machine { cpu: "a CPU".to_owned(), cpus: 2, ..Machine::default() },
            tree: "12 files".to_owned(),
            targets: vec![target("ours", None), target("juicefs", None), target("ext4", Some("no disk"))],
            rows: vec![
                row("create-1", Unit::OpsPerSecond, "Metadata"),
                row("untar", Unit::Seconds, "Programs"),
            ],
            cells,
        }
    }

    #[test]
    fn rounds_become_medians_and_ratios_follow_the_unit() {
        let report = sample();
        let summary = report.summary("create-1", "ours");
        assert_eq!(summary.value, Some(Spread { median: 200.0, min: 100.0, max: 300.0 }));
        assert!(!summary.cut && report.summary("create-1", "juicefs").cut);
        assert_eq!(report.ratio(&report.rows[0], "ours", "juicefs"), Some(4.0));
        assert_eq!(report.ratio(&report.rows[1], "ours", "juicefs"), Some(2.0));
        assert_eq!(report.ratio(&report.rows[1], "ours", "ext4"), None);
        assert_eq!(report.summary("create-1", "ext4").errors, ["it | hung"]);
        assert_eq!(report.groups().len(), 2);
    }
}
