//! meta.flexfs: the metadata server.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    flexfs_meta::cli::main()
}
