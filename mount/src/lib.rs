//! The mount client: FUSE and network on one io_uring per core.
#![forbid(unsafe_code)]

pub mod cancel;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod data;
pub mod disk;
pub mod fuse;
pub mod lease;
pub mod link;
mod lru;
pub mod plain;
pub mod setup;
pub mod shard;
pub mod status;
pub mod store;
pub mod vfs;
mod wait;
