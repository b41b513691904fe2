//! Hosted blocks: files in the volume's folder, written and read on the connection's core through its ring.
//!
//! ```text
//! VOLUME/blocks/<bits 8..16 of the id, 2 hex>/<id, 16 hex>        a stored block, complete and on stable storage
//! VOLUME/blocks/<..>/<id, 16 hex>.new                             being written; swept when old
//! ```
//! Large blocks end with zeros up to the end of a page: they are written past the page cache.
//! The 256 ids of a usual grant share a folder, so that one sync of the folder serves many of them.

mod collector;
mod folder;
mod path;
mod put;
mod read;
mod store;
mod unserved;

pub(crate) use collector::start as start_collector;
pub(crate) use put::put;
pub(crate) use read::{Found, Part, Wanted, locate};
pub(crate) use store::Store;
pub(crate) use unserved::Unserved;
