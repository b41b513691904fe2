//! The metadata server. Layers, lower ones never import upward: `engine` <- `cache dedup lock orphan quota` <- `namespace`
//! <- `verify`, and, above them, `session` <- `net`.
#![forbid(unsafe_code)]

mod cache;
mod dedup;
pub mod engine;
mod held;
mod lock;
pub mod namespace;
mod orphan;
mod quota;
pub mod verify;
