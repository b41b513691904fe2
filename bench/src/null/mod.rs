//! A FUSE server that does nothing: names and attributes in a map, data thrown away, reads answered with the pattern.
//! Nothing is kept by the kernel without asking (timeouts 0), as with a network file system without leases. What it
//! reaches is the ceiling of its transport.
//!
//! `abi` <- `tree` <- `answer` <- `device uring` <- `server`.

mod abi;
mod answer;
mod device;
mod server;
mod tree;
mod uring;

pub(crate) use server::{READY, Transport, serve};
