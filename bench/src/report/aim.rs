//! What the rows are to reach (issue 6), and whether they do: the one place with these figures.
//!
//! An aim sets one figure of the first target in relation to another target's, or to a number. It passes, falls short, or
//! stays open where one of the two was not measured.

use super::model::Report;
use super::summary::Summary;
use super::table::short;

/// Whom a figure is set in relation to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Against {
    Juice,
    Disk,
    /// The null server of the first target's transport: what this kernel's FUSE allows.
    Null,
    /// Nobody: the figure itself.
    Number,
}
use Against::{Disk, Juice, Null, Number};

/// Which figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    /// How many times better, whichever way the row's unit counts.
    Better,
    /// How many times as long; for rows in seconds.
    Longer,
    /// Median latency.
    P50,
    /// CPU seconds of the client, per byte moved.
    ClientCpu,
    /// Memory of the client behind the row, MiB.
    ClientRss,
}
use Figure::{Better, ClientCpu, ClientRss, Longer, P50};

/// What it must be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    AtLeast(f64),
    MoreThan(f64),
    AtMost(f64),
}
use Bound::{AtLeast, AtMost, MoreThan};

/// One aim.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Aim {
    /// Id of the row.
    row: &'static str,
    figure: Figure,
    against: Against,
    bound: Bound,
}

const fn aim(row: &'static str, figure: Figure, against: Against, bound: Bound) -> Aim {
    Aim { row, figure, against, bound }
}

/// Issue 6, in the order of the rows.
const AIMS: &[Aim] = &[
    aim("create-1", Better, Juice, AtLeast(15.0)),
    aim("create-1", Better, Null, AtLeast(0.7)),
    aim("stat-cold-1", Better, Juice, AtLeast(4.0)),
    aim("stat-cached-1", Better, Null, AtLeast(0.85)),
    aim("ls-1", Better, Juice, AtLeast(2.0)),
    aim("chmod-1", Better, Juice, AtLeast(15.0)),
    aim("rename-1", Better, Juice, AtLeast(15.0)),
    aim("unlink-1", Better, Juice, AtLeast(15.0)),
    aim("mkdir-1", Better, Juice, AtLeast(15.0)),
    aim("create-8", Better, Juice, AtLeast(8.0)),
    aim("stat-cold-8", Better, Juice, AtLeast(4.0)),
    aim("ls-8", Better, Juice, AtLeast(2.0)),
    aim("small-write-1", Better, Juice, AtLeast(20.0)),
    aim("small-read-1", Better, Juice, AtLeast(15.0)),
    aim("small-read-1", Better, Disk, MoreThan(1.0)),
    aim("small-write-8", Better, Juice, AtLeast(10.0)),
    aim("small-read-8", Better, Juice, AtLeast(15.0)),
    aim("small-read-8", Better, Disk, MoreThan(1.0)),
    aim("seq-write", Better, Juice, AtLeast(2.0)),
    aim("seq-write", Better, Disk, AtLeast(0.85)),
    aim("seq-write", ClientCpu, Juice, AtMost(0.4)),
    aim("seq-read", Better, Disk, AtLeast(0.95)),
    aim("seq-read", ClientCpu, Juice, AtMost(0.4)),
    aim("seq-reread", Better, Juice, AtLeast(4.0)),
    aim("rand-read-1", Better, Disk, AtLeast(0.6)),
    aim("rand-read-8", Better, Juice, AtLeast(2.0)),
    aim("rand-reread", Better, Null, AtLeast(0.85)),
    aim("rand-write", Better, Juice, AtLeast(20.0)),
    aim("append", P50, Disk, AtMost(1.5)),
    aim("untar", Better, Juice, AtLeast(10.0)),
    aim("clone", Better, Juice, AtLeast(5.0)),
    aim("build", Longer, Disk, AtMost(1.3)),
    // The last row of a run.
    aim("build", ClientRss, Number, AtMost(128.0)),
];

/// How an aim stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    Short,
    /// One of the two figures is missing.
    Open,
}

impl Verdict {
    fn text(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Short => "**short**",
            Self::Open => "not measured",
        }
    }
}

impl Bound {
    fn judge(self, value: Option<f64>) -> Verdict {
        let is_met = |value| match self {
            AtLeast(bound) => value >= bound,
            MoreThan(bound) => value > bound,
            AtMost(bound) => value <= bound,
        };
        match value {
            None => Verdict::Open,
            Some(value) if is_met(value) => Verdict::Pass,
            Some(_) => Verdict::Short,
        }
    }

    fn text(self, unit: &str) -> String {
        match self {
            AtLeast(bound) => format!(">= {bound}{unit}"),
            MoreThan(bound) => format!("> {bound}{unit}"),
            AtMost(bound) => format!("<= {bound}{unit}"),
        }
    }
}

impl Aim {
    /// Name of the target it is measured against; none when it is a number.
    fn other<'a>(&self, first: &str) -> Option<&'a str> {
        match self.against {
            Juice => Some("juicefs"),
            Disk => Some("ext4"),
            Null if first == "ours-dev" => Some("null-dev"),
            Null => Some("null-uring"),
            Number => None,
        }
    }

    /// The figure, in relation to the other's where there is one.
    fn measured(&self, report: &Report, first: &str) -> Option<f64> {
        let row = report.rows.iter().find(|row| row.id == self.row)?;
        if self.figure == Better {
            return report.ratio(row, first, self.other(first)?);
        }
        let of = |target: &str| self.figure_of(&report.summary(self.row, target));
        let value = of(first)?;
        match self.other(first) {
            None => Some(value),
            Some(other) => of(other).filter(|other| *other > 0.0).map(|other| value / other),
        }
    }

    fn figure_of(&self, summary: &Summary) -> Option<f64> {
        match self.figure {
            Better | Longer => summary.value.map(|value| value.median),
            P50 => summary.p50,
            ClientCpu => Some(summary.client_cpu? / summary.bytes.filter(|bytes| *bytes > 0.0)?),
            ClientRss => summary.client_rss.filter(|rss| *rss > 0.0),
        }
    }

    fn what(&self) -> &'static str {
        match self.figure {
            Better => "rate",
            Longer => "time",
            P50 => "latency, p50",
            ClientCpu => "client CPU per GiB",
            ClientRss => "client RSS after all rows",
        }
    }
}

/// The aims of the rows in a report, as a table in markdown; empty when it has none of them.
pub(super) fn table(report: &Report) -> String {
    let Some(first) = report.targets.first().map(|target| target.name.as_str()) else { return String::new() };
    let mut lines = String::new();
    let (mut passed, mut short_of, mut open) = (0, 0, 0);
    for aim in AIMS {
        let Some(row) = report.rows.iter().find(|row| row.id == aim.row) else { continue };
        let unit = if aim.other(first).is_some() { "x" } else { " MiB" };
        let value = aim.measured(report, first);
        let verdict = aim.bound.judge(value);
        match verdict {
            Verdict::Pass => passed += 1,
            Verdict::Short => short_of += 1,
            Verdict::Open => open += 1,
        }
        lines.push_str(&format!(
            "| {} (x{}) | {} | {} | {} | {} | {} |\n",
            row.title,
            row.workers,
            aim.what(),
            aim.other(first).unwrap_or("-"),
            value.map_or_else(|| "-".to_owned(), |value| format!("{}{unit}", short(value))),
            aim.bound.text(unit),
            verdict.text(),
        ));
    }
    if lines.is_empty() {
        return lines;
    }
    format!(
        "\n### Targets: {passed} pass, {short_of} short, {open} not measured\n\nFigures of {first} against what issue 6 asks \
         for, of the medians.\n\n| work | figure | against | measured | wanted | verdict |\n|---|---|---|--:|--:|---|\n{lines}"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::report::summary::tests::sample;

    #[test]
    fn bounds_are_met_at_their_edge_or_beyond_it() {
        let judged = |bound: Bound, value| bound.judge(Some(value));
        assert_eq!(judged(AtLeast(2.0), 2.0), Verdict::Pass);
        assert_eq!(judged(AtLeast(2.0), 1.99), Verdict::Short);
        assert_eq!(judged(MoreThan(1.0), 1.0), Verdict::Short);
        assert_eq!(judged(MoreThan(1.0), 1.01), Verdict::Pass);
        assert_eq!(judged(AtMost(1.5), 1.5), Verdict::Pass);
        assert_eq!(judged(AtMost(1.5), 1.51), Verdict::Short);
        assert_eq!(AtMost(1.5).judge(None), Verdict::Open);
    }

    #[test]
    fn every_aim_is_of_a_row_there_is() {
        let chains = crate::run::plan();
        let rows: BTreeSet<&str> =
            chains.iter().flat_map(|chain| &chain.rows).map(|row| row.id.as_str()).collect();
        for aim in AIMS {
            assert!(rows.contains(aim.row), "{} is no row", aim.row);
        }
        assert_eq!(chains.last().and_then(|chain| chain.rows.last()).unwrap().id, "build");
    }

    #[test]
    fn figures_are_set_in_relation_the_right_way_round() {
        let mut report = sample();
        let of = |report: &Report, figure, against| {
            aim("untar", figure, against, AtLeast(0.0)).measured(report, "ours")
        };
        // 200 s against 400 s.
        assert_eq!(of(&report, Better, Juice), Some(2.0));
        assert_eq!(of(&report, Longer, Juice), Some(0.5));
        assert_eq!(of(&report, P50, Juice), Some(1.0));
        assert_eq!(of(&report, Better, Disk), None);
        assert_eq!(of(&report, ClientCpu, Juice), None, "nothing was moved");
        assert_eq!(of(&report, ClientRss, Number), None);
        for cell in &mut report.cells {
            (cell.bytes, cell.client_rss) = (if cell.target == "ours" { 1 << 30 } else { 1 << 29 }, 77.0);
        }
        assert_eq!(of(&report, ClientCpu, Juice), Some(0.5));
        assert_eq!(of(&report, ClientRss, Number), Some(77.0));
    }

    #[test]
    fn the_null_server_is_that_of_the_transport() {
        let one = aim("create-1", Better, Null, AtLeast(0.7));
        assert_eq!(one.other("ours"), Some("null-uring"));
        assert_eq!(one.other("ours-dev"), Some("null-dev"));
    }

    #[test]
    fn the_table_says_what_was_measured_and_what_is_missing() {
        let text = table(&sample());
        assert!(text.contains("### Targets: 0 pass, 2 short, 1 not measured"), "{text}");
        let line = "| title of create-1 (x1) | rate | juicefs | 4.00x | >= 15x | **short** |";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("| title of create-1 (x1) | rate | null-uring | - | >= 0.7x | not measured |"));
        let mut report = sample();
        report.rows.clear();
        assert_eq!(table(&report), "");
    }
}
