//! See `flexfs_fuzz::target::request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flexfs_fuzz::target::request::run(data));
