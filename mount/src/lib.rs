//! The mount client: FUSE and network on one io_uring per core.
#![forbid(unsafe_code)]

pub mod cancel;
pub mod fuse;
