//! The command line of meta.flexfs.

mod command;
mod init;
mod systemd;
mod verify;

pub use command::main;
