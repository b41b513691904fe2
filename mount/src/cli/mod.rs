//! The command line.

mod creds;
mod fstab;
mod mount8;
mod run;

pub use run::main;
