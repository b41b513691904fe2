//! FUSE over io_uring: one queue per possible CPU, each with entries that carry one request at a time.
//!
//! Life of an entry (Documentation/filesystems/fuse/fuse-io-uring.rst, fs/fuse/dev_uring.c): REGISTER gives the
//! kernel the entry's header and payload memory once; its completion is the first request. The answer is written
//! into the same memory and COMMIT_AND_FETCH hands it over; its completion is the next request. FORGET, INTERRUPT
//! and notices stay on /dev/fuse.
//!
//! Absent: the meaning of requests (opcodes, arguments), which is `mount`'s; INIT, which is always on /dev/fuse.

mod backing;
mod entry;
mod place;
mod queue;

pub use backing::Backing;
pub(crate) use entry::refuse;
pub use entry::{Entry, EntryEnd, Fetched};
pub(crate) use place::Place;
pub use place::ReqHeader;
pub use queue::{PAYLOAD_BYTES_MIN, Queue, QueueConfig, RegisterError};
