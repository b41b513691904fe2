//! What the tests stand on: binaries, processes under a time limit, clusters that never stay behind.

mod clock;
mod cluster;
mod command;
mod ext4;
mod machine;
mod process;

pub(crate) use clock::{now, soon, within};
pub(crate) use cluster::{Cluster, Options, Transport, VOLUME};
pub(crate) use command::{Run, Running};
pub(crate) use ext4::Ext4;
pub(crate) use machine::{binary, cargo_sources, free_ports, repository, scratch};
