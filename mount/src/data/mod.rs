//! The bytes of files: what was written here and is on its way, what was read and may be wanted again.
//!
//! Layers, lower ones never import upward: `server alone spread dirty budget memory figures pending promise` <- `layout pack cache
//! readahead` <- `file` <- `ready core` <- `put commit fetch` <- `flush` <- `read write change attr seek writeback` <- `files`.

mod alone;
mod attr;
mod budget;
mod cache;
mod change;
mod commit;
mod core;
pub mod dirty;
mod fetch;
mod figures;
mod file;
mod files;
mod flush;
mod identity;
pub mod layout;
mod lease;
mod memory;
#[cfg(test)]
mod model;
mod pack;
mod pending;
mod promise;
mod put;
mod read;
mod readahead;
mod ready;
mod seek;
mod server;
mod spare;
mod spread;
#[cfg(test)]
mod tests;
mod write;
mod writeback;

pub use figures::Figures;
pub use files::{Config, Files, Got, OpenInfo, OpenMode, ReadMode, Recalled, WriteMode};
pub(crate) use pending::{after, apply};
pub use server::Server;
