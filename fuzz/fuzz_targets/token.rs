//! See `flexfs_fuzz::token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flexfs_fuzz::token(data));
