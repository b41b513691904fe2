//! See `flexfs_fuzz::target::pin`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flexfs_fuzz::target::pin::run(data));
