//! What a running mount says about itself: figures, the socket that gives them, the lock that keeps it alone.

mod place;
mod report;
mod server;

pub use place::{Claim, ClaimError, Place};
pub use report::{CpuLatency, Report, Throughput, text};
pub use server::{Source, ask, serve};
