//! The kernel border: ABI, requests and replies, negotiation, both transports, mounting.
//!
//! `abi` <- `request reply init` <- `dispatch` <- `queue device fallback attach`. What an operation does is `vfs`'s.

pub(crate) mod abi;
pub mod init;
pub mod request;
