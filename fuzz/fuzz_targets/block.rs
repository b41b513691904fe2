//! See `flexfs_fuzz::target::block`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flexfs_fuzz::target::block::run(data));
