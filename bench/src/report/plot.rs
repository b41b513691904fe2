//! Bar charts in SVG: one per group, rows side by side, the axis logarithmic, since a row may hold 100 /s and 100 k/s.

use super::model::{Report, RowInfo};
use super::table::short;

const WIDTH: f64 = 960.0;
/// Room for the names of rows.
const LEFT: f64 = 250.0;
/// Room for figures behind the longest bar.
const RIGHT: f64 = 90.0;
const TOP: f64 = 64.0;
const BAR: f64 = 14.0;
/// Room between rows.
const GAP: f64 = 12.0;
/// Colours that people with any kind of colour vision can tell apart (Okabe and Ito).
const COLOURS: [&str; 8] =
    ["#0072b2", "#56b4e9", "#e69f00", "#009e73", "#999999", "#cccccc", "#cc79a7", "#d55e00"];

/// The charts: file name and content.
pub(crate) fn plots(report: &Report) -> Vec<(String, String)> {
    let groups = report.groups();
    groups.iter().map(|(group, rows)| (file_name(group), plot(report, group, rows))).collect()
}

/// `Metadata, 8 processes` becomes `metadata-8-processes.svg`.
fn file_name(group: &str) -> String {
    let words: Vec<String> = group
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    format!("{}.svg", words.join("-"))
}

/// The ends of the axis: powers of ten around all values.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    fn around(values: &[f64]) -> Self {
        let logs: Vec<f64> = values.iter().filter(|value| **value > 0.0).map(|value| value.log10()).collect();
        let low = logs.iter().copied().fold(f64::INFINITY, f64::min);
        let high = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if logs.is_empty() {
            return Self { low: 0.0, high: 1.0 };
        }
        // The shortest bar must still be seen.
        let low = (low - 0.2).floor();
        Self { low, high: high.ceil().max(low + 1.0) }
    }

    /// Length of a bar.
    fn length(&self, value: f64) -> f64 {
        let part = (value.max(f64::MIN_POSITIVE).log10() - self.low) / (self.high - self.low);
        part.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    /// The powers of ten, from the lower end.
    fn ticks(&self) -> Vec<f64> {
        let mut ticks = vec![self.low];
        while let Some(last) = ticks.last().filter(|last| **last + 0.5 < self.high) {
            ticks.push(last + 1.0);
        }
        ticks.into_iter().map(|exponent| 10f64.powf(exponent)).collect()
    }
}

fn plot(report: &Report, group: &str, rows: &[&RowInfo]) -> String {
    let values: Vec<f64> = rows
        .iter()
        .flat_map(|row| {
            report.targets.iter().filter_map(|target| report.summary(&row.id, &target.name).value)
        })
        .flat_map(|value| [value.min, value.median, value.max])
        .collect();
    let axis = Axis::around(&values);
    let row_height = report.targets.len() as f64 * BAR + GAP;
    let bottom = TOP + rows.len() as f64 * row_height;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {:.0}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"15\">{}</text>\n",
        bottom + 34.0,
        escape(group)
    );
    text.push_str(&legend(report));
    for tick in axis.ticks() {
        let x = LEFT + axis.length(tick);
        text.push_str(&format!(
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom:.1}\" stroke=\"#dddddd\"/>\n\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555555\">{}</text>\n",
            bottom + 14.0,
            short(tick)
        ));
    }
    for (index, row) in rows.iter().enumerate() {
        text.push_str(&bars(report, row, TOP + index as f64 * row_height + GAP / 2.0, &axis));
    }
    text.push_str(&format!(
        "<text x=\"10\" y=\"{:.1}\" fill=\"#555555\">median; the thin line is the least and largest round; \
         logarithmic</text>\n</svg>\n",
        bottom + 28.0
    ));
    text
}

fn legend(report: &Report) -> String {
    let mut text = String::new();
    let step = (WIDTH - 20.0) / report.targets.len().max(1) as f64;
    for (index, target) in report.targets.iter().enumerate() {
        let x = 10.0 + index as f64 * step.min(150.0);
        text.push_str(&format!(
            "<rect x=\"{x:.1}\" y=\"34\" width=\"12\" height=\"12\" fill=\"{}\"/>\
             <text x=\"{:.1}\" y=\"44\">{}</text>\n",
            colour(index),
            x + 16.0,
            escape(&target.name)
        ));
    }
    text
}

fn bars(report: &Report, row: &RowInfo, top: f64, axis: &Axis) -> String {
    let middle = top + report.targets.len() as f64 * BAR / 2.0;
    let mut text = format!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}, {}</text>\n",
        LEFT - 8.0,
        middle + 4.0,
        escape(&row.title),
        row.unit.text()
    );
    for (index, target) in report.targets.iter().enumerate() {
        let y = top + index as f64 * BAR;
        let summary = report.summary(&row.id, &target.name);
        let Some(value) = summary.value else {
            let why = if summary.not_applicable { "n/a" } else { "no figure" };
            text.push_str(&format!(
                "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"#999999\">{}: {why}</text>\n",
                LEFT + 4.0,
                y + 11.0,
                escape(&target.name)
            ));
            continue;
        };
        let (length, low, high) = (axis.length(value.median), axis.length(value.min), axis.length(value.max));
        text.push_str(&format!(
            "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"{:.1}\" fill=\"{}\"/>\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y2:.1}\" y2=\"{y2:.1}\" stroke=\"black\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
            y + 1.0,
            BAR - 2.0,
            colour(index),
            LEFT + low,
            LEFT + high,
            LEFT + high.max(length) + 4.0,
            y + 11.0,
            short(value.median),
            y2 = y + BAR / 2.0,
        ));
    }
    text
}

fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::summary::tests::sample;

    /// Tags are balanced, attributes quoted, and no bare `<` or `&` stands in a text.
    fn check_xml(text: &str) {
        let mut open = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('<') {
            let plain = &rest[..at];
            for (at, _) in plain.match_indices('&') {
                let end = plain[at..].find(';').unwrap_or(usize::MAX);
                assert!(end <= 6, "a bare & in {plain:?}");
            }
            let end = at + rest[at..].find('>').expect("a tag without an end");
            let tag = &rest[at + 1..end];
            assert!(tag.matches('"').count().is_multiple_of(2) && !tag.contains('<'), "{tag:?}");
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name), "in {text}"),
                None if tag.ends_with('/') => {}
                None => open.push(tag.split(' ').next().unwrap()),
            }
            rest = &rest[end + 1..];
        }
        assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest:?}");
    }

    #[test]
    fn plots_are_valid_and_name_everything() {
        let mut report = sample();
        report.rows[0].title = "<stat> & \"more\"".to_owned();
        let plots = plots(&report);
        assert_eq!(plots.len(), 2);
        for (name, text) in &plots {
            check_xml(text);
            assert!(name.ends_with(".svg") && text.contains("juicefs") && text.contains("ext4: no figure"));
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        }
        assert!(plots[0].1.contains(">200<") && plots[0].1.contains(">50.0<"));
    }

    #[test]
    fn nothing_measured_is_still_a_plot() {
        let mut report = sample();
        report.cells.clear();
        for (_, text) in plots(&report) {
            check_xml(&text);
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        }
    }

    #[test]
    fn longer_bars_are_larger_values() {
        let axis = Axis::around(&[3.0, 700.0]);
        assert_eq!(axis.ticks().len(), 4);
        assert!(axis.length(3.0) < axis.length(30.0) && axis.length(700.0) < axis.length(1000.0));
        assert!(axis.length(0.0) == 0.0 && axis.length(1e9) == WIDTH - LEFT - RIGHT);
        assert_eq!(file_name("Files of 4 KiB, 8 processes"), "files-of-4-kib-8-processes.svg");
    }
}
