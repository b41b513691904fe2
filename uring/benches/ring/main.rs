//! What the runtime of a core costs: the kernel's share (`raw`), and operations through a shard (`shard`).
#![expect(clippy::unwrap_used, reason = "a measurement: a step that fails ends it")]

mod raw;
mod shard;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

fn config() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .sample_size(20)
        .without_plots()
}

criterion_group! {
    name = benches;
    config = config();
    targets = raw::benches, shard::benches
}
criterion_main!(benches);
