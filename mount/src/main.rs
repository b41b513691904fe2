//! `mount.flexfs`: mounts a volume, and says how it is.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    flexfs_mount::cli::main(&args)
}
