//! What every flexfs process must agree on.
//!
//! No I/O, no clock, no unsafe. Layers, lower ones never import upward:
//! `limits id errno name time` <- `attr cipher extent seal` <- `frame message hello settings` <- machines (`record`, `block`, ...).
#![forbid(unsafe_code)]

pub mod attr;
pub mod block;
pub mod cipher;
pub mod creds;
pub mod creds_file;
pub mod errno;
pub mod extent;
pub mod frame;
pub mod hello;
pub mod id;
pub mod lease;
pub mod limits;
pub mod message;
pub mod name;
pub mod network;
pub mod record;
pub mod seal;
pub mod settings;
pub mod time;
pub mod tls;
pub mod token;
