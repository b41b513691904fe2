//! See `flexfs_fuzz::target::session`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flexfs_fuzz::target::session::run(data));
