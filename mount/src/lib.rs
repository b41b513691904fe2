//! The mount client: FUSE and network on one io_uring per core.
#![forbid(unsafe_code)]

pub mod cancel;
pub mod link;
pub mod setup;
pub mod store;
// Until `link` and `data` stand: `pub mod fuse; pub mod vfs;` (and cli, config, daemon, shard, status) are not listed, so that each side compiles alone.
