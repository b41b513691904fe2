//! The runtime of one core: one thread, one io_uring, one executor of local tasks.
//!
//! A [`Shard`] is a pinned thread that owns a ring. Inside [`Shard::block_on`] every operation of this crate
//! (sockets, files, timers, FUSE entries) goes through that ring, and one pass of its loop, a *turn*, takes all
//! completions, runs all ready tasks and hands all new submissions to the kernel with one system call.
//!
//! Ownership: memory the kernel may touch belongs to a slot of the ring's table, never to a future. Dropping a
//! future orphans its slot and asks the kernel to cancel; the memory is freed when the kernel has let go of it.
//!
//! [`harden`] is what a process of this house gives up at its start; it has nothing to do with rings but their threads.
//!
//! Absent on purpose: work stealing (a task stays on its core), blocking pools, signals, UDP, TLS (see `wire`).
//! This is the only crate of the workspace with unsafe code.

mod buffer;
mod call;
pub mod clock;
pub mod cpu;
mod executor;
pub mod file;
pub mod fuse;
pub mod harden;
mod mailbox;
pub mod memory;
mod op;
mod ring;
mod shard;
mod slot;
pub mod socket;
mod sys;
pub mod timer;
pub mod wakeful;

pub use buffer::Lease;
pub use executor::{JoinHandle, yield_now};
pub use ring::StartError;
pub use shard::{Shard, ShardConfig, ShardHandle, handle, spawn};
