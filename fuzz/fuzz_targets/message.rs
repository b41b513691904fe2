//! See `flexfs_fuzz::target::message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flexfs_fuzz::target::message::run(data));
