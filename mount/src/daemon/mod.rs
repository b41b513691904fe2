//! The life of a mount: in the background or in the foreground, from the first check to the last flush.

mod attach;
mod run;
mod signal;
mod spawn;

pub use run::run;
pub use spawn::{Ready, start};
