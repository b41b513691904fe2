//! See `flexfs_fuzz::target::sealed`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flexfs_fuzz::target::sealed::run(data));
