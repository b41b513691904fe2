//! See `flexfs_fuzz::target::namespace`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flexfs_fuzz::target::namespace::run(data));
