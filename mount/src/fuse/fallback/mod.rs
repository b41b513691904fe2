//! `--transport dev`: kernels without FUSE over io_uring, through the crate `fuser`.
//!
//! fuser's threads read `/dev/fuse`; each request is posted to the shard of the CPU it came in on and answered from
//! there by the same `vfs`. What fuser 0.18 cannot pass on, and what follows for this transport:
//! - INTERRUPT (it answers ENOSYS): callers of long operations are looked at instead (`seat`), so a killed process
//!   goes away within a second.
//! - the family of a lock: `flock(2)` is left to this machine's kernel, `fcntl(2)` locks hold across machines.
//! - `O_TMPFILE` and STATX: the first answers EOPNOTSUPP, birth times are not shown.
//! - `FUSE_HANDLE_KILLPRIV_V2`: the kernel clears set-uid bits by a SETATTR of its own.

mod convert;
mod filesystem;
mod post;

pub use post::run;
