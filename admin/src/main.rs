//! admin.flexfs.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    flexfs_admin::cli::main()
}
