//! `up` and `down`: a whole cluster on one machine, in one command.

mod command;
mod daemon;
mod entity;
mod place;
mod program;
mod report;
mod state;
mod wait;

pub(crate) use command::{Down, Up};
