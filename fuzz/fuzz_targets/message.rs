//! See `flexfs_fuzz::message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flexfs_fuzz::message(data));
