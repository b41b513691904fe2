//! From credentials to a running client: the one place where authentication happens (design 5), and how the shards
//! take the session over.

mod admin;
mod connect;

pub use admin::{AdminError, for_token};
pub use connect::{Config, Error, connect};
