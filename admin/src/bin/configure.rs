//! configure.flexfs: see `flexfs_admin::configure`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;
use flexfs_admin::configure::cli;

fn main() -> ExitCode {
    flexfs_uring::harden::forbid_dumps();
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("configure.flexfs: {error:#}");
            ExitCode::FAILURE
        }
    }
}
