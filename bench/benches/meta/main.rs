//! What a metadata server pays for a call besides the network: the namespace machine and its engine.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a measurement: a step that fails ends it")]

mod engine;
#[path = "../support/mode.rs"]
mod mode;
mod namespace;
mod operation;
#[path = "../support/plan.rs"]
mod plan;
#[path = "../support/volume.rs"]
mod volume;

use criterion::{criterion_group, criterion_main};

criterion_group! {
    name = benches;
    config = plan::criterion();
    targets = engine::benches, namespace::benches
}
criterion_main!(benches);
