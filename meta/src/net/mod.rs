//! Links: handshakes, records, frames, and where each frame is served.

mod block;
mod core;
mod dispatch;
mod greet;
pub mod inbound;
mod link;
mod outbound;
mod pace;
mod perch;
mod placing;
mod veil;

pub(crate) use core::{Common, run};
pub(crate) use placing::homes;
