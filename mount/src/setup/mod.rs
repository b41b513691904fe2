//! From credentials to a running client: the one place where authentication happens (design 5), and how the shards
//! take the session over.

mod admin;
mod bridge;
mod connect;
mod encryption;
mod session;

pub use admin::{AdminError, for_token};
pub use connect::{Config, SetupError, connect};
pub use encryption::{EncryptionError, cipher};
pub use session::{Session, open};
