//! See `flexfs_fuzz::record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flexfs_fuzz::record(data));
