//! What every process pays in the protocol: tokens, credentials, messages, frames, handshakes, TLS, blocks.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a measurement: a step that fails ends it")]

#[path = "../support/attr.rs"]
mod attr;
mod block;
mod frame;
mod greeting;
#[path = "../support/keys.rs"]
mod keys;
mod message;
#[path = "../support/mode.rs"]
mod mode;
#[path = "../support/plan.rs"]
mod plan;
#[path = "../support/sample.rs"]
mod sample;
mod session;
mod tls;
mod token;

use criterion::{criterion_group, criterion_main};

criterion_group! {
    name = benches;
    config = plan::criterion();
    targets = token::benches, message::benches, frame::benches, session::benches, tls::benches, block::benches
}
criterion_main!(benches);
