//! Rules of the house that no compiler checks: who imports whom, where unsafe may stand, how long a file may be.
//! Reads files only: neither git nor a build is needed.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "helpers of tests: a failed step is a failed test")]

mod crates;
mod modules;
mod sources;
mod tree;
