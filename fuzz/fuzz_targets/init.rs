//! See `flexfs_fuzz::target::init`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flexfs_fuzz::target::init::run(data));
