//! The engine under a volume: ordered keys, atomic batches, a sequence that says what is durable. Five calls.
//!
//! Absent on purpose: transactions, snapshots, reverse scans, concurrent writers. One thread owns a store.

mod creation;
mod durable;
pub mod fjall;
mod journal;
pub(crate) mod key;
pub mod memory;
mod room;
mod store;

pub use durable::{Durable, Publisher};
pub use journal::Damage;
pub use room::Room;
pub use store::{Batch, Store, Visit};
