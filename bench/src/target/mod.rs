//! Where work is done: one file per preset, each of which starts and ends everything it needs by itself.
//!
//! `contract` (what a target can do) <- `place daemon` <- `flexfs juicefs local null` <- `choice` (names to presets).

mod choice;
mod contract;
mod daemon;
mod flexfs;
mod juicefs;
mod local;
mod null;
pub(crate) mod pids;
mod place;

pub(crate) use choice::{Choice, PRESETS};
pub(crate) use contract::{Context, Target};
pub(crate) use daemon::Daemon;
pub(crate) use flexfs::FlexFs;
pub(crate) use local::fs_type;
pub(crate) use place::{break_off, is_mounted, mounts_below};
