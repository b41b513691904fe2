//! The protocol's encoding: bytes pinned by a table, round trips of anything, and what hostile bytes may do.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "helpers of tests: a failed step is a failed test")]

mod frames;
mod golden;
mod roundtrip;
mod samples;
mod secrets;
mod strategy;
