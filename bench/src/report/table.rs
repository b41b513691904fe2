//! Tables in markdown.

use std::collections::BTreeMap;

use super::aim;
use super::model::{Report, RowInfo};
use super::summary::Summary;
use crate::work::Unit;

/// Local disk, shown as a ratio beside the base.
const DISK: &str = "ext4";

/// All tables: figures with ratios, targets, spread, latencies, CPU and memory, failures.
pub(crate) fn tables(report: &Report) -> String {
    let mut text = head(report);
    for (group, rows) in report.groups() {
        text.push_str(&format!("\n### {group}\n\n{}", figures(report, &rows)));
    }
    text.push_str(&aim::table(report));
    let rows: Vec<&RowInfo> = report.rows.iter().collect();
    let with_latency: Vec<&RowInfo> = rows
        .iter()
        .copied()
        .filter(|row| report.targets.iter().any(|one| of(report, row, &one.name).p50.is_some()))
        .collect();
    if report.rounds > 1 {
        let cell = |summary: &Summary| {
            summary.value.map(|value| format!("{} .. {}", short(value.min), short(value.max)))
        };
        text.push_str("\n### Spread: least and largest of the rounds\n\n");
        text.push_str(&table(report, &rows, cell));
    }
    text.push_str("\n### Latency of one operation, p50 / p99 in microseconds\n\n");
    text.push_str(&table(report, &with_latency, |summary| {
        Some(format!("{} / {}", short(summary.p50?), short(summary.p99?)))
    }));
    text.push_str(
        "\n### CPU and memory: client s / server s / client RSS MiB\n\nCPU seconds per 10 000 operations, or per GiB where \
         data moves, or for the whole program; a tick of the kernel is 10 ms, so short cells are coarse.\n\n",
    );
    text.push_str(&costs(report, &rows));
    text.push_str(&failures(report));
    text
}

fn of(report: &Report, row: &RowInfo, target: &str) -> Summary {
    report.summary(&row.id, target)
}

fn head(report: &Report) -> String {
    let mut text = format!(
        "{} run of {}, {} rounds in {:.0} minutes, {}; \
         load average before a cell {}.\n\n",
        report.scale,
        report.date,
        report.rounds,
        report.seconds / 60.0,
        report.machine,
        loads(report),
    );
    for target in &report.targets {
        let cold = if target.cold.is_empty() { String::new() } else { format!(". Cold: {}", target.cold) };
        text.push_str(&format!("* **{}**: {}{cold}\n", target.name, target.about));
    }
    if !report.tree.is_empty() {
        text.push_str(&format!("\nThe source tree is {}.\n", report.tree));
    }
    text
}

fn loads(report: &Report) -> String {
    let loads: Vec<f64> = report.cells.iter().map(|cell| cell.load_before).collect();
    crate::stats::Spread::of(&loads).map_or_else(
        || "unknown".to_owned(),
        |load| format!("{:.1} (median), {:.1} (most)", load.median, load.max),
    )
}

/// The figures of a group, with what "ours" is in relation to the base and the disk.
fn figures(report: &Report, rows: &[&RowInfo]) -> String {
    let first = report.targets.first().map(|target| target.name.clone()).unwrap_or_default();
    let bases: Vec<&str> = [report.base.as_str(), DISK]
        .into_iter()
        .filter(|base| *base != first && report.targets.iter().any(|target| target.name == *base))
        .collect();
    let mut text = String::from("| work |");
    report.targets.iter().for_each(|target| text.push_str(&format!(" {} |", target.name)));
    bases.iter().for_each(|base| text.push_str(&format!(" {first} : {base} |")));
    text.push_str(&format!("\n|---|{}\n", "--:|".repeat(report.targets.len() + bases.len())));
    for row in rows {
        text.push_str(&format!("| {}, {} |", row.title, row.unit.text()));
        for target in &report.targets {
            text.push_str(&format!(" {} |", figure(&of(report, row, &target.name))));
        }
        for base in &bases {
            let ratio = report
                .ratio(row, &first, base)
                .map_or_else(|| "-".to_owned(), |ratio| format!("{}x", short(ratio)));
            text.push_str(&format!(" {ratio} |"));
        }
        text.push('\n');
    }
    text
}

fn figure(summary: &Summary) -> String {
    match summary.value {
        Some(value) => format!("{}{}", short(value.median), if summary.cut { "*" } else { "" }),
        None if summary.not_applicable => "n/a".to_owned(),
        None if summary.errors.is_empty() => "-".to_owned(),
        None => "failed".to_owned(),
    }
}

/// A table of something else than the figures; rows that have nothing to show are left out.
fn table(report: &Report, rows: &[&RowInfo], cell: impl Fn(&Summary) -> Option<String>) -> String {
    let mut text = String::from("| work |");
    report.targets.iter().for_each(|target| text.push_str(&format!(" {} |", target.name)));
    text.push_str(&format!("\n|---|{}\n", "--:|".repeat(report.targets.len())));
    for row in rows {
        let cells: Vec<Option<String>> =
            report.targets.iter().map(|target| cell(&of(report, row, &target.name))).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let cells: Vec<String> =
            cells.into_iter().map(|cell| cell.unwrap_or_else(|| "-".to_owned())).collect();
        text.push_str(&format!("| {} ({}) | {} |\n", row.title, processes(row.workers), cells.join(" | ")));
    }
    text
}

fn processes(workers: u64) -> String {
    format!("x{workers}")
}

fn costs(report: &Report, rows: &[&RowInfo]) -> String {
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let part = table(report, &[row], |summary| cost(row, summary));
        // One heading for all.
        let lines = if index == 0 { &part } else { part.splitn(3, '\n').nth(2).unwrap_or_default() };
        text.push_str(lines);
    }
    text
}

fn cost(row: &RowInfo, summary: &Summary) -> Option<String> {
    let rss = summary.client_rss.filter(|rss| *rss > 0.0)?;
    let parts = match row.unit {
        Unit::OpsPerSecond => summary.operations? / 10_000.0,
        Unit::MibPerSecond => summary.bytes? / (1u64 << 30) as f64,
        Unit::Seconds => 1.0,
    };
    let per = |seconds: Option<f64>| seconds.filter(|_| parts > 0.0).map(|seconds| short(seconds / parts));
    Some(format!("{} / {} / {}", per(summary.client_cpu)?, per(summary.server_cpu)?, short(rss)))
}

fn failures(report: &Report) -> String {
    let mut texts: BTreeMap<(String, String), Vec<&str>> = BTreeMap::new();
    for row in &report.rows {
        for target in &report.targets {
            for error in of(report, row, &target.name).errors {
                texts.entry((target.name.clone(), error)).or_default().push(&row.id);
            }
        }
    }
    let mut text = String::new();
    if report.cells.iter().any(|cell| cell.cut) {
        text.push_str("\n\\* a time limit ended the row: the rate is of what was done until then.\n");
    }
    if !texts.is_empty() {
        text.push_str("\n### What failed\n\n");
    }
    for ((target, error), rows) in texts {
        text.push_str(&format!("* **{target}**, {}: {}\n", rows.join(", "), error.replace('|', "\\|")));
    }
    text
}

/// Three figures, thousands with k.
pub(crate) fn short(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 100_000.0 {
        format!("{:.0} k", value / 1000.0)
    } else if magnitude >= 10_000.0 {
        format!("{:.1} k", value / 1000.0)
    } else if magnitude >= 100.0 {
        format!("{value:.0}")
    } else if magnitude >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::summary::tests::sample;

    #[test]
    fn figures_have_three_digits() {
        let texts: Vec<String> = [0.0, 1.234, 12.34, 123.4, 9999.0, 12_345.0, 123_456.0].map(short).into();
        assert_eq!(texts, ["0.00", "1.23", "12.3", "123", "9999", "12.3 k", "123 k"]);
    }

    #[test]
    fn every_row_and_failure_is_in_the_tables() {
        let text = tables(&sample());
        assert!(text.contains("| title of create-1, /s | 200 | 50.0* | failed | 4.00x | - |"), "{text}");
        assert!(text.contains("| title of untar, s | 200 | 400* | failed | 2.00x | - |"), "{text}");
        assert!(text.contains("* **ext4**, create-1, untar: it \\| hung"), "{text}");
        assert!(text.contains("| title of create-1 (x1) | 100 .. 300 |"), "{text}");
        assert!(text.contains("10.0 / 99.0"), "{text}");
        let widths: Vec<usize> = text
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| line.replace("\\|", "").matches('|').count())
            .collect();
        assert!(widths.iter().all(|width| [5, 7].contains(width)), "{text}");
    }
}
