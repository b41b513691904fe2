//! Volumes: each volume's namespace, its sessions' state and its recovery are a host, which one thread works at, at any time: the
//! core that has received a short call, when nobody else does, or the volume's own (`inbox`). Cores send it requests in batches
//! and get answers in batches.

mod deferred;
mod handle;
mod host;
mod inbox;
mod limiters;
mod message;
mod outs;
mod parked;
mod record;
mod recovery;
mod registry;
mod requests;
mod restart;
mod scoped;
mod sessions;
mod shared;
pub mod stage;
mod thread;
mod trust;
mod volumes;

pub(crate) use handle::Volume;
pub(crate) use message::{
    Claim, Claimed, EndOfReplay, Item, Job, LinkKey, OpenSession, Place, PutRight, Stamp, ToCore, ToVolume,
    ValidTokens,
};
pub(crate) use outs::{CoreHandle, Cores};
pub(crate) use registry::Registry;
pub(crate) use shared::{Rules, Shared};
pub(crate) use thread::Shop;
pub(crate) use volumes::{Volumes, database_folder, found_volumes};
