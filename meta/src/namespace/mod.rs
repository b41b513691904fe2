//! The namespace of a volume: a deterministic machine. It takes a time, a caller and a request and gives an answer; it
//! reads no clock, draws no random number and does no I/O but through its [`Store`](crate::engine::Store).
//!
//! One operation, one file. Absent on purpose: connections, seals (nodes come checked and leave unsealed), tokens,
//! mode-bit checks of ordinary callers (the mount runs with `default_permissions`), the bytes of blocks.

mod access;
pub(crate) mod acl;
mod background;
mod block;
mod context;
mod copy;
mod create;
mod data;
mod extent;
mod fallocate;
#[cfg(test)]
pub(crate) mod fixture;
mod guard;
mod idle;
mod layout;
mod link;
mod locking;
mod lookup;
mod machine;
mod maps;
mod open;
mod read;
pub(crate) mod record;
mod rename;
mod roster;
mod runs;
mod scope;
mod setattr;
mod start;
mod tables;
mod txn;
mod unlink;
mod write;
mod xattr;

pub use context::{BlockState, Bounds, Context, Figures, Limits, Outcome, Rights, SessionRecord, Wakeup};
pub use machine::Namespace;
pub use scope::Place;
pub use start::OpenError;
