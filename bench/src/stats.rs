//! Medians, spread, and latencies counted in buckets.

use serde::{Deserialize, Serialize};

/// Steps a power of two is divided into: a bucket is at most 1/32 wide.
const STEPS: u64 = 32;
/// log2 of [`STEPS`].
const STEPS_LOG2: u32 = 5;
/// Buckets that hold every `u64`.
const BUCKETS: usize = 60 * 32;

/// The middle one of some values; the mean of the middle two when their number is even. None of none.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(sorted[middle - 1], upper))
}

/// Median, least and largest of a row's rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// None of no values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let median = median(values)?;
        let min = values.iter().copied().fold(f64::INFINITY, f64::min);
        let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Some(Self { median, min, max })
    }
}

/// Latencies in nanoseconds, in buckets whose width grows with the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS] }
    }
}

impl Histogram {
    /// Counts one.
    pub(crate) fn record(&mut self, nanos: u64) {
        self.counts[bucket(nanos)] += 1;
    }

    /// Adds what another process has counted.
    pub(crate) fn add(&mut self, pairs: &[(usize, u64)]) {
        for &(index, count) in pairs {
            if let Some(place) = self.counts.get_mut(index) {
                *place += count;
            }
        }
    }

    /// The buckets that are not empty.
    pub(crate) fn pairs(&self) -> Vec<(usize, u64)> {
        self.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0).collect()
    }

    /// The value below which `part` of 1000 of all lie, in microseconds; none when nothing was counted.
    pub(crate) fn permille(&self, part: u64) -> Option<f64> {
        let all: u64 = self.counts.iter().sum();
        let wanted = (all * part).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Some(middle(index) / 1000.0);
            }
        }
        None
    }
}

fn bucket(nanos: u64) -> usize {
    let index = if nanos < STEPS {
        nanos
    } else {
        let exponent = nanos.ilog2();
        let step = (nanos >> (exponent - STEPS_LOG2)) & (STEPS - 1);
        u64::from(exponent - STEPS_LOG2 + 1) * STEPS + step
    };
    usize::try_from(index).unwrap_or(BUCKETS - 1)
}

/// The middle of a bucket, in nanoseconds.
fn middle(index: usize) -> f64 {
    let index = index as u64;
    let (power, step) = (index / STEPS, index % STEPS);
    if power == 0 {
        return step as f64;
    }
    let width = 2f64.powi(i32::try_from(power - 1).unwrap_or(0));
    ((STEPS + step) as f64 + 0.5) * width
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_even_and_nothing() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(Spread::of(&[5.0, 1.0, 9.0]), Some(Spread { median: 5.0, min: 1.0, max: 9.0 }));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn buckets_are_within_a_thirtysecond() {
        for nanos in [1, 31, 32, 33, 1_000, 123_456, 987_654_321, u64::MAX / 3, u64::MAX] {
            let shown = middle(bucket(nanos));
            let error = (shown - nanos as f64).abs() / nanos as f64;
            assert!(error <= 1.0 / 32.0, "{nanos} is shown as {shown}");
        }
        let mut last = 0;
        for nanos in (0..2_000_000).step_by(37) {
            assert!(bucket(nanos) >= last);
            last = bucket(nanos);
        }
    }

    #[test]
    fn parts_of_a_thousand_and_sums() {
        let mut one = Histogram::default();
        assert_eq!(one.permille(500), None);
        for micros in 1..=100 {
            one.record(micros * 1000);
        }
        let mut sum = Histogram::default();
        sum.add(&one.pairs());
        sum.add(&[(usize::MAX, 1)]);
        assert_eq!(sum, one);
        let near = |part: u64, wanted: f64| (one.permille(part).unwrap() - wanted).abs() / wanted < 0.04;
        assert!(near(500, 50.0) && near(990, 99.0) && near(1000, 100.0));
    }
}
