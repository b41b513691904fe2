//! Whole programs at work: unpacking a source tree, cloning a repository, building a crate.

mod build;
mod clone;
mod command;
mod sources;
mod untar;

pub(crate) use build::build;
pub(crate) use clone::clone;
pub(crate) use sources::{Sources, prepare};
pub(crate) use untar::untar;
