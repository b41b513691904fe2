//! See `flexfs_fuzz::creds`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flexfs_fuzz::creds(data));
