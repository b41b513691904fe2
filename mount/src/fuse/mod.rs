//! The kernel border: ABI, requests and replies, negotiation, both transports, mounting.
//!
//! `abi` <- `request reply init` <- `dispatch` <- `queue device fallback attach`. What an operation does is `vfs`'s.

pub(crate) mod abi;
pub mod attach;
pub mod device;
pub(crate) mod dispatch;
pub mod fallback;
pub mod init;
mod process;
pub mod queue;
pub mod reply;
pub mod request;
pub mod seat;
