//! How cost grows with size, on our own system. See `bench/README.md`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    flexfs_bench::scale::main()
}
