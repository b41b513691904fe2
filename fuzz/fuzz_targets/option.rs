//! See `flexfs_fuzz::target::option`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flexfs_fuzz::target::option::run(data));
