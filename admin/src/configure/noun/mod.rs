//! The nouns of the command line: what each looks like, and what creating and updating takes.

pub(crate) mod account;
pub(crate) mod block_store;
pub(crate) mod meta_store;
mod name;
pub(crate) mod provider;
pub(crate) mod region;
mod view;
pub(crate) mod volume;
pub(crate) mod volume_token;

pub(crate) use name::Name;
pub(crate) use view::{Fields, Noun, View, set};
