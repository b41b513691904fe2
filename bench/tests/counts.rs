//! The gate on instruction counts says what is wrong, and what to do.
#![forbid(unsafe_code)]

#[path = "../examples/counts/baseline.rs"]
mod baseline;

use baseline::{Baseline, Counts, RENEW};

fn counts(counts: &[(&str, u64)]) -> Counts {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

fn problems(before: &[(&str, u64)], now: &[(&str, u64)]) -> Vec<String> {
    let baseline = Baseline { circumstances: "tools 1".to_owned(), counts: counts(before) };
    baseline.compare(&counts(now), "tools 1").problems
}

#[test]
fn what_is_written_is_read() {
    let baseline =
        Baseline { circumstances: "rustc 1, valgrind 2".to_owned(), counts: counts(&[("a/b", 7), ("c", 8)]) };
    assert_eq!(Baseline::parse(&baseline.to_text()), Ok(baseline));
    assert!(Baseline::parse("a 7").unwrap_err().contains("line 1"));
    assert!(Baseline::parse("a\t7\na\t8\n").unwrap_err().contains("twice"));
}

#[test]
fn three_per_cent_are_allowed_and_no_more() {
    assert!(problems(&[("a", 1000)], &[("a", 1030)]).is_empty());
    assert!(problems(&[("a", 1000)], &[("a", 500)]).is_empty());
    let problems = problems(&[("token/parse", 1000), ("a", 10)], &[("token/parse", 1031), ("a", 10)]);
    let [problem] = &problems[..] else { panic!("{problems:?}") };
    for part in ["token/parse", "1031", "1000", "+3.1 %", RENEW] {
        assert!(problem.contains(part), "{part}: {problem}");
    }
}

#[test]
fn cases_and_baseline_must_be_the_same() {
    let [missing] = &problems(&[], &[("new", 5)])[..] else { panic!() };
    assert!(missing.contains("new") && missing.contains(RENEW));
    let [left] = &problems(&[("old", 5)], &[])[..] else { panic!() };
    assert!(left.contains("old") && left.contains(RENEW));
}

#[test]
fn other_tools_are_named_when_it_fails() {
    let baseline = Baseline { circumstances: "valgrind 1".to_owned(), counts: counts(&[("a", 100)]) };
    let now = counts(&[("a", 200)]);
    let report = baseline.compare(&now, "valgrind 2");
    assert!(report.problems.iter().any(|problem| problem.contains("valgrind 1 then, valgrind 2 now")));
    assert!(report.table.contains("+100.0 %"));
}

/// The committed file is whole.
#[test]
fn the_committed_baseline_is_read() {
    let baseline = Baseline::parse(include_str!("../baseline/counts.tsv")).unwrap();
    assert!(baseline.counts.len() > 30 && !baseline.circumstances.is_empty());
}
