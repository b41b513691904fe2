//! The metadata server. Layers, lower ones never import upward:
//!
//! `engine` <- `cache dedup held lease lock orphan quota` <- `namespace` <- `verify`: the machine, without I/O but its store.
//! `clock control front guard limit` <- `auth` <- `session` <- `metrics` <- `volume` <- `blocks` <- `net`: the server around it.
//! `events server cli` put it together.
#![forbid(unsafe_code)]

mod alone;
pub mod auth;
mod blocks;
mod cache;
pub mod cli;
mod clock;
mod config;
mod control;
pub mod dedup;
pub mod engine;
mod events;
mod few;
mod front;
mod guard;
mod held;
mod lease;
mod limit;
mod lock;
mod metrics;
pub mod namespace;
pub mod net;
mod orphan;
pub mod payload;
mod quota;
mod server;
pub mod session;
pub mod verify;
#[doc(hidden)]
pub mod volume;
