//! configure.flexfs: see `flexfs_admin::configure`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;
use flexfs_admin::cli::{refuse, report};
use flexfs_admin::configure::cli;

fn main() -> ExitCode {
    flexfs_uring::harden::forbid_dumps();
    match cli::Cli::try_parse() {
        Ok(cli) => report("configure.flexfs", cli::run(cli)),
        Err(error) => refuse(&error),
    }
}
