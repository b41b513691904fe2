//! The work: one file per kind, run by worker processes that begin together. Every kind checks what it did, outside of
//! the measured time where that costs anything: a benchmark that measures errors is worth nothing.
//!
//! `spec meter` <- one file per kind <- `worker` (a process of the crew) <- `crew` (the parent's side).

mod append;
mod create;
mod crew;
mod folder;
mod list;
mod meter;
mod open;
mod project;
mod random;
mod rename;
mod sequential;
mod small;
mod spec;
mod stat;
mod unlink;
mod worker;

pub(crate) use crew::{Crew, CrewError};
pub(crate) use project::{Sources, prepare};
pub(crate) use spec::{Kind, Outcome, Spec, Unit};
pub(crate) use worker::run_as_worker;
