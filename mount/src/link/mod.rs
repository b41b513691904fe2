//! Links to the metadata server: one TCP+TLS connection per shard, one session over all of them.
//!
//! Layers, lower ones never import upward: `behind clock mark unstable held grant error race` <- `ledger rx tx incoming waiter` <-
//! `first conn session` <- `local` <- `serve recover` <- `task` <- `remote`.

pub mod behind;
mod blocks;
mod clock;
pub mod conn;
mod error;
mod figures;
mod first;
mod grant;
pub mod held;
mod incoming;
mod ledger;
mod local;
pub mod mark;
mod race;
mod recover;
mod remote;
pub mod rx;
mod serve;
mod session;
mod task;
mod tx;
pub mod unstable;
pub mod veil;
mod waiter;

pub(crate) use blocks::Part;
pub use error::LinkError;
pub use figures::Figures;
pub(crate) use incoming::Incoming;
pub use remote::{OpenError, Remote};
pub use session::{Listener, Locate, Target};
