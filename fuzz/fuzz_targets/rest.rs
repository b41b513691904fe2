//! See `flexfs_fuzz::target::rest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flexfs_fuzz::target::rest::run(data));
