//! Measurements. Criterion benches are in `benches/`; this library is `compare`, which runs the same work on several
//! file systems in turn and sets the figures side by side.
//!
//! `args` -> `run` (the plan, and its loop over rounds, rows and targets) -> `target` (one file per preset: starting,
//! remounting, ending) and `work` (one file per kind of work, run by processes of their own) -> `report` (JSON, tables,
//! plots). `null` is the FUSE server that does nothing, the ceiling of a transport. `scale` is the program that measures how
//! cost grows.
#![forbid(unsafe_code)]

mod args;
pub mod entry;
mod null;
mod pattern;
mod process;
mod progress;
mod report;
mod run;
pub mod scale;
mod stats;
mod target;
mod work;
