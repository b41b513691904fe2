//! A run: what is done on whom in which order, and what is left behind when it was cut.
//!
//! `plan` (rows in chains, sizes), `leftover` <- `cell` (one row on one target) <- `runner` (the loop).

mod cell;
pub(crate) mod leftover;
mod plan;
mod runner;

pub(crate) use plan::plan;
pub(crate) use runner::run;
