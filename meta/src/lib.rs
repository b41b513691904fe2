//! The metadata server. Layers, lower ones never import upward: `engine` <- `cache dedup lock orphan quota` <- `namespace`
//! <- `verify`, and, above them, `session` <- `net`.
#![forbid(unsafe_code)]

mod auth;
mod blocks;
mod cache;
pub mod cli;
mod clock;
mod config;
mod control;
mod dedup;
pub mod engine;
mod events;
mod front;
mod guard;
mod held;
mod lock;
mod metrics;
pub mod namespace;
mod net;
mod orphan;
mod quota;
mod server;
mod session;
pub mod verify;
mod volume;
