//! The same work on several file systems, side by side. See `bench/README.md`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    flexfs_bench::entry::main()
}
