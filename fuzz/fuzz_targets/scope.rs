//! See `flexfs_fuzz::target::scope`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flexfs_fuzz::target::scope::run(data));
