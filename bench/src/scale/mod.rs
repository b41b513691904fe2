//! `scale`: how cost grows with size, on real servers and real mounts of our own system.
//!
//! `study` (figures and their judgement) <- `report` (JSON, tables, README), `chart` (SVG); `cluster` (servers and mount)
//! and `work` (measured loops) <- one file per study: `directory volume file extents mounts` <- `run` (the program).

mod chart;
mod cluster;
mod directory;
mod extents;
mod file;
mod mounts;
mod network;
mod report;
mod run;
mod study;
mod volume;
mod work;

pub use run::main;
