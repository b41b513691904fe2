//! See `flexfs_fuzz::target::dedup`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flexfs_fuzz::target::dedup::run(data));
