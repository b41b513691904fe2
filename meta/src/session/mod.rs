//! Sessions: how one comes to be, what its links share, where it is found.

pub(crate) mod clock;
pub(crate) mod handshake;
mod registry;
mod shared;

pub(crate) use registry::Registry;
pub(crate) use shared::{Rules, SessionInfo, Shared};
