//! The committed counts, and the comparison with them.
//!
//! Text: comment lines with `#`, one `# made with TOOLS` among them, and one line `case TAB instructions` for each case.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What renews the baseline.
pub(crate) const RENEW: &str = "cargo run --release --locked -p flexfs-bench --example counts -- --renew";

/// How much dearer a case may be, in thousandths. Repeated runs differ by less than a thousandth, but for the namespace's:
/// its hash maps take other seeds each time. A compiler's other choice of what to inline moves a few instructions in a
/// hundred without anybody being at fault; what is meant to be caught, a copy or an allocation, is more than that.
const TOLERANCE: u64 = 30;

/// Instructions per call, by case.
pub(crate) type Counts = BTreeMap<String, u64>;

/// See the module.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Baseline {
    /// Compiler and tools it was made with.
    pub(crate) circumstances: String,
    /// The counts.
    pub(crate) counts: Counts,
}

/// What a comparison found.
#[derive(Debug)]
pub(crate) struct Report {
    /// One line for each case.
    pub(crate) table: String,
    /// Why it fails.
    pub(crate) problems: Vec<String>,
}

const MADE_WITH: &str = "# made with ";

impl Baseline {
    /// Reads a baseline.
    ///
    /// # Errors
    /// The line that is none.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut baseline = Self { circumstances: String::new(), counts: Counts::new() };
        for (number, line) in (1..).zip(text.lines()) {
            if let Some(tools) = line.strip_prefix(MADE_WITH) {
                tools.clone_into(&mut baseline.circumstances);
            } else if !line.starts_with('#') && !line.is_empty() {
                let count = line.split_once('\t').and_then(|(name, count)| Some((name, count.parse().ok()?)));
                let Some((name, count)) = count else {
                    return Err(format!("line {number} is not `case TAB instructions`: {line:?}"));
                };
                if baseline.counts.insert(name.to_owned(), count).is_some() {
                    return Err(format!("line {number}: {name} is there twice"));
                }
            }
        }
        Ok(baseline)
    }

    /// The inverse of [`Baseline::parse`].
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!(
            "# Instructions per call of the hot paths, counted by callgrind; ./test bench compares with them.\n\
             # Renew with: {RENEW}\n{MADE_WITH}{}\n",
            self.circumstances
        );
        for (name, count) in &self.counts {
            let _ = writeln!(text, "{name}\t{count}");
        }
        text
    }

    /// Compares what was counted now.
    pub(crate) fn compare(&self, now: &Counts, circumstances: &str) -> Report {
        let mut report = Report { table: String::new(), problems: Vec::new() };
        let _ = writeln!(report.table, "{:<44} {:>12} {:>12} {:>8}", "case", "baseline", "now", "change");
        for (name, count) in now {
            let Some(before) = self.counts.get(name) else {
                report.problems.push(format!("{name}: not in the baseline; add it with: {RENEW}"));
                continue;
            };
            let change = change(*before, *count);
            let _ = writeln!(report.table, "{name:<44} {before:>12} {count:>12} {change:>8}");
            if u128::from(*count) * 1000 > u128::from(*before) * u128::from(1000 + TOLERANCE) {
                report.problems.push(format!(
                    "{name}: {count} instructions per call where the baseline has {before} ({change}, {} % are \
                     allowed); make it cheaper again, or, when it is worth its price, renew the baseline and commit \
                     it with the reason: {RENEW}",
                    TOLERANCE / 10
                ));
            } else if u128::from(*count) * u128::from(1000 + TOLERANCE) < u128::from(*before) * 1000 {
                let _ = writeln!(
                    report.table,
                    "  cheaper than the baseline: renew it, so that it stays so: {RENEW}"
                );
            }
        }
        for name in self.counts.keys().filter(|name| !now.contains_key(*name)) {
            report.problems.push(format!("{name}: in the baseline, but no case; renew it with: {RENEW}"));
        }
        if !report.problems.is_empty() && self.circumstances != circumstances {
            report.problems.push(format!(
                "the baseline was made with other tools, which alone may explain it: {} then, {circumstances} now",
                self.circumstances
            ));
        }
        report
    }
}

/// The change in per cent, with its sign.
fn change(before: u64, now: u64) -> String {
    let thousandths = (i128::from(now) - i128::from(before)) * 1000 / i128::from(before.max(1));
    let sign = if thousandths < 0 { '-' } else { '+' };
    format!("{sign}{}.{} %", thousandths.abs() / 10, thousandths.abs() % 10)
}
