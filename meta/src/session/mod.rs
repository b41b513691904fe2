//! How a link becomes part of a session: judged without I/O, one type per state.

pub mod handshake;
