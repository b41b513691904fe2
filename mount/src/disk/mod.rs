//! The second cache of a mount: segments of blocks in a folder of this machine's own disk, as they came from the server.
//!
//! Blocks are immutable and their ids are never used twice, so nothing here can be old: which block holds which bytes of a
//! file is asked of the layout, which is under a lease as ever. What is kept is what came, compressed or not, encrypted
//! where the volume is, each segment with its checksum: it is verified when it is read like what comes from the network,
//! and what does not hold is dropped and fetched again. So nothing is ever synced, and a torn file costs a fetch.
//!
//! Reading happens on the ring of the shard that wants the bytes, against a deadline. Filling, evicting and the scan of what
//! an earlier mount left happen on one thread behind a bounded queue (`filler`): a slow disk keeps nobody waiting, what
//! does not fit the queue is not cached.
//!
//! ```text
//! DISK_FOLDER/VOLUME_UUID/          0700, one mount at a time
//!     lock                          flock(2) of that mount
//!     00000000000001a7              block 0x1a7, a sparse file of slots (`slot`), 0600
//! ```
//!
//! Layers: `slot figures` <- `index folder` <- `shared` <- `filler` <- `cache`.

mod cache;
mod figures;
mod filler;
mod folder;
mod index;
mod shared;
mod slot;
#[cfg(test)]
mod tests;

pub use cache::{Disk, Settings};
pub use figures::Figures;
pub use folder::OpenError;
