//! Bounds of what all sessions of a token do together, without I/O and without a clock.

mod bucket;
mod limiter;

pub(crate) use limiter::{Limit, Limiter, Turn};
