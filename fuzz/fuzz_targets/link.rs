//! See `flexfs_fuzz::target::link`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flexfs_fuzz::target::link::run(data));
