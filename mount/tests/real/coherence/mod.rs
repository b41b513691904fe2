//! Two mounts of one volume: what a completed call did on one is there for the next call on the other.
//!
//! `FLEXFS_SEED=n` repeats a run, `FLEXFS_STEPS=n` makes it longer or shorter. Two settings are for work on this test:
//! `FLEXFS_COHERENCE_PAUSE=1100` (milliseconds) closes all files and waits before the other mount is asked, as a build
//! without leases needs it; `FLEXFS_COHERENCE_DIR=/some/folder` takes a local file system for both mounts, which
//! shows that the model is right.

mod act;
mod hammer;
mod look;
mod model;
mod random;
mod step;
mod user;
mod world;

use std::path::Path;
use std::time::Duration;

use self::world::World;
use crate::harness::{Cluster, Transport, now};

both!(
    two_mounts,
    one_mount,
    one_mount_counts,
    one_mount_hammered,
    counters_go_up,
    names_take_turns,
    appends_are_whole,
    one_creates,
    versions_go_up,
    locks_make_turns,
    names_are_seen
);

/// Steps of the random test: some 90 seconds. Each run has a seed of its own, so they add up; `FLEXFS_STEPS=100000` is a long
/// one.
const STEPS: usize = 25_000;

fn number(name: &str) -> Option<usize> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn run(mounts: [&Path; 2], steps: usize) {
    let pause = number("FLEXFS_COHERENCE_PAUSE").map(|millis| Duration::from_millis(millis as u64));
    let steps = number("FLEXFS_STEPS").unwrap_or(steps);
    let start = now();
    let mut world = World::new(mounts, world::seed(), pause);
    world.run(steps);
    world.end();
    eprintln!("{steps} steps in {:?}", start.elapsed());
}

/// Random steps on either mount, the other one looks.
fn two_mounts(transport: Transport) {
    let steps = transport.scale(STEPS, STEPS / 4);
    if let Some(folder) = world::local() {
        return run([&folder, &folder], steps);
    }
    let cluster = Cluster::start(transport);
    let other = cluster.second_mount();
    run([cluster.mnt(), &other], steps);
    cluster.finish();
}

/// The same where both are one mount: what any file system promises.
fn one_mount(transport: Transport) {
    let cluster = Cluster::start(transport);
    run([cluster.mnt(), cluster.mnt()], transport.scale(STEPS / 5, STEPS / 20));
    cluster.finish();
}

/// Counters that go up, where writer and reader share a page cache.
fn one_mount_counts(transport: Transport) {
    let cluster = Cluster::start(transport);
    hammer::counters(cluster.mnt(), cluster.mnt());
    cluster.finish();
}

/// What else threads do on two mounts, on one.
fn one_mount_hammered(transport: Transport) {
    let cluster = Cluster::start(transport);
    let works: [fn(&Path, &Path); 6] =
        [hammer::turns, hammer::appends, hammer::exclusive, hammer::versions, hammer::locked, hammer::relay];
    for work in works {
        work(cluster.mnt(), cluster.mnt());
    }
    cluster.finish();
}

fn with_two(transport: Transport, work: impl FnOnce(&Path, &Path)) {
    if let Some(folder) = world::local() {
        return work(&folder, &folder);
    }
    let cluster = Cluster::start(transport);
    let other = cluster.second_mount();
    work(cluster.mnt(), &other);
    cluster.finish();
}

fn counters_go_up(transport: Transport) {
    with_two(transport, hammer::counters);
}

fn names_take_turns(transport: Transport) {
    with_two(transport, hammer::turns);
}

fn appends_are_whole(transport: Transport) {
    with_two(transport, hammer::appends);
}

fn one_creates(transport: Transport) {
    with_two(transport, hammer::exclusive);
}

fn versions_go_up(transport: Transport) {
    with_two(transport, hammer::versions);
}

fn locks_make_turns(transport: Transport) {
    with_two(transport, hammer::locked);
}

fn names_are_seen(transport: Transport) {
    with_two(transport, hammer::relay);
}
