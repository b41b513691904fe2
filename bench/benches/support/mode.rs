//! Whether benches are measured or only run.

/// Whether this is a measurement (`cargo bench`) and not a single run of each bench (`cargo test --bench`).
pub(crate) fn is_measured() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}
