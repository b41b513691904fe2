//! The nouns of `/v1/configure`, one table each.

mod account;
mod block_store;
mod meta_store;
mod provider;
mod region;
mod volume;
mod volume_token;

pub(crate) use account::{Account, create_account};
pub(crate) use block_store::BlockStore;
pub(crate) use meta_store::MetaStore;
pub(crate) use provider::Provider;
pub(crate) use region::Region;
pub(crate) use volume::Volume;
pub(crate) use volume_token::VolumeToken;
