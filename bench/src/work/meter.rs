//! The measured loop.

use std::time::{Duration, Instant};

use flexfs_uring::clock;

use super::spec::{Outcome, Spec};
use crate::stats::Histogram;

/// Waits until all workers of a crew stand ready.
pub(crate) type Gate<'a> = &'a mut dyn FnMut() -> anyhow::Result<()>;

/// A measurement that goes on.
#[derive(Debug)]
pub(crate) struct Meter {
    began: Instant,
    histogram: Histogram,
    outcome: Outcome,
}

impl Meter {
    /// Runs `each` for 0, 1, 2.. up to the order's count, or until its time is over. `each` returns the bytes it moved.
    ///
    /// # Errors
    /// The first error of `each`, with the number of the operation.
    pub(crate) fn run(spec: &Spec, mut each: impl FnMut(u64) -> anyhow::Result<u64>) -> anyhow::Result<Self> {
        let mut outcome = Outcome::default();
        let mut histogram = Histogram::default();
        let began = clock::now();
        let deadline = began + Duration::from_millis(spec.soft_millis);
        let mut last = began;
        for number in 0..spec.count {
            if last >= deadline {
                outcome.cut = true;
                break;
            }
            outcome.bytes += each(number).map_err(|error| error.context(format!("operation {number}")))?;
            let now = clock::now();
            histogram.record(nanos(now - last));
            outcome.done += 1;
            last = now;
        }
        Ok(Self { began, histogram, outcome })
    }

    /// Ends the measurement.
    pub(crate) fn end(mut self) -> Outcome {
        self.outcome.nanos = nanos(clock::now() - self.began);
        self.outcome.latencies = self.histogram.pairs();
        self.outcome
    }
}

/// Measures one thing as a whole.
///
/// # Errors
/// Those of `all`.
pub(crate) fn whole(all: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Outcome> {
    let began = clock::now();
    all()?;
    Ok(Outcome { done: 1, nanos: nanos(clock::now() - began), ..Outcome::default() })
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
