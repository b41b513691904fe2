//! See `flexfs_fuzz::target::extents`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flexfs_fuzz::target::extents::run(data));
