//! See `flexfs_fuzz::target::token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flexfs_fuzz::target::token::run(data));
