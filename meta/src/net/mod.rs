//! Links: sockets, TLS, frames. Everything that knows tokio-uring is in `front`.

mod core;
mod dispatch;
pub(crate) mod front;
mod greet;
mod guard;
mod inbound;
mod link;
mod outbound;

pub(crate) use core::{Common, Core, run};
pub(crate) use guard::{Guard, Permit};
pub(crate) use link::Link;
