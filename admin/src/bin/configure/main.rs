//! configure.flexfs: the operator's command line.
#![forbid(unsafe_code)]

mod ask;
mod cli;
mod creds;
mod noun;
mod print;
mod rest;
mod text;
mod up;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("configure.flexfs: {error:#}");
            ExitCode::FAILURE
        }
    }
}
