//! See `flexfs_fuzz::target::creds`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flexfs_fuzz::target::creds::run(data));
