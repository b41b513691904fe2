//! The command line.

mod creds;
pub mod fstab;
pub mod mount8;
mod run;
mod scope;

pub use run::main;
