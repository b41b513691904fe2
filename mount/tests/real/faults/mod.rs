//! Faults between and below the processes: whatever breaks, programs are told the truth or notice nothing.

mod blocks;
mod client;
mod clocks;
mod cut;
mod disk;
mod frozen;
mod restarts;
mod weather;
mod workload;

use std::time::Duration;

use crate::harness::{Cluster, Options, Transport};

/// Time for a server to come back, with all that clients replay, or for a client to find it again.
const RECOVERY: Duration = Duration::from_secs(60);
/// Life of a client that gives no sign of it.
const LEASE: Duration = Duration::from_secs(10);
/// What a wait for the lease may take longer: a tick of the server, the last sign of life underway, a busy machine.
const SLACK: Duration = Duration::from_secs(5);
/// Life of a cluster here: what hangs in these tests is freed soon.
const LIFE: Duration = Duration::from_secs(180);

fn cluster(transport: Transport) -> Cluster {
    Cluster::with_life(Options { transport, flags: Vec::new(), state: None }, LIFE)
}
