//! See `flexfs_fuzz::target::configure`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flexfs_fuzz::target::configure::run(data));
