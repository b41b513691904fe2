//! meta.flexfs: the metadata server.

fn main() -> std::process::ExitCode {
    flexfs_meta::cli::main()
}
