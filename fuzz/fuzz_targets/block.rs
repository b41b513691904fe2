//! See `flexfs_fuzz::block`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flexfs_fuzz::block(data));
