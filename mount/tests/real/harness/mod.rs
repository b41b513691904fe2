//! What the tests stand on: binaries, processes under a time limit, clusters that never stay behind.

mod clock;
mod cluster;
mod command;
mod ext4;
mod host;
mod machine;
mod process;
mod proxy;
mod random;
mod shell;

pub(crate) use clock::{now, soon, wall, within};
pub(crate) use cluster::{Cluster, Options, Transport, VOLUME, write_secret};
pub(crate) use command::{Run, Running};
pub(crate) use ext4::Ext4;
pub(crate) use host::Network;
pub(crate) use machine::{binary, cargo_sources, free_ports, repository, scratch};
pub(crate) use process::Process;
pub(crate) use proxy::{Proxy, Weather};
pub(crate) use random::Random;
