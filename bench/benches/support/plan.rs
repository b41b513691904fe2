//! How long each bench is measured.

use std::time::Duration;

use criterion::Criterion;

/// Short runs: there are some three hundred benches, and what a change must not make worse is gated by `counts`.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .sample_size(20)
        .without_plots()
}
