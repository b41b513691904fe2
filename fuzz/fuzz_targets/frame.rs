//! See `flexfs_fuzz::target::frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flexfs_fuzz::target::frame::run(data));
