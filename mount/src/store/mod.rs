//! Where blocks live. One kind so far: the metadata server keeps them and serves them over the session's links.

mod hosted;
mod place;

pub(crate) use hosted::read as read_hosted;
pub use place::Place;
