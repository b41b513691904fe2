//! A run from its seed to its verdict.

use std::sync::Arc;
use std::time::Duration;

use flexfs_uring::clock::Virtual;
use flexfs_uring::{Shard, ShardConfig, clock, spawn, timer};

use super::check::Check;
use super::client::Client;
use super::net::Net;
use super::port::{LANES, Port};
use super::program::{self, PLACE, Program, SLOTS, World};
use super::random::Random;
use super::weather::Weather;

/// Bytes of a block: small, so that files have several.
const BLOCK: u32 = 256 << 10;
/// Bytes between the places of a client: files that are stored inline, and files of blocks.
const STRIDES: [u64; 3] = [4096, 2 * 4096, 128 << 10];
/// Faults of a run, at most.
const CUTS_MAX: u32 = 3;
const CRASHES_MAX: u32 = 2;
const KILLS_MAX: u32 = 1;

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What was wrong first.
    pub failure: Option<String>,
    /// Of all that happened: the same for the same seed.
    pub digest: u64,
    /// Things that happened.
    pub events: u64,
    /// All of them, if it was asked for.
    pub journal: Vec<String>,
    /// Virtual time.
    pub passed: Duration,
}

/// Runs one seed.
///
/// # Panics
/// When the simulation itself fails.
#[must_use]
pub fn run(seed: u64, verbose: bool) -> Outcome {
    let time = Virtual::begin();
    let check = Arc::new(Check::new(verbose));
    let config = ShardConfig { recv_buffers: 0, sq_entries: 8, ..ShardConfig::default() };
    let shard = Shard::new(&config).expect("a ring");
    shard.block_on(simulate(seed, Arc::clone(&check)));
    let (failure, digest, events, journal) = check.take();
    Outcome { failure, digest, events, journal, passed: time.passed() }
}

async fn simulate(seed: u64, check: Arc<Check>) {
    let mut random = Random::new(seed);
    let weather = Weather::new(&mut random);
    let count = 2 + random.index(2);
    let operations = u32::try_from(30 + random.below(60)).expect("a small number");
    let think = Duration::from_millis([0, 2, 20, 200][random.index(4)]);
    let net = Net::new(random, weather, BLOCK, Arc::clone(&check));
    check.note(|| format!("seed {seed}: {count} clients, {weather:?}"));
    let ports: Vec<Arc<Port>> = (0..count).map(|number| Port::new(Arc::clone(&net), number)).collect();
    net.set_ports(ports.iter().map(Arc::downgrade).collect());
    drop(spawn(Arc::clone(&net).serve()));
    let clients: Vec<Arc<Client>> = ports.iter().map(|port| Client::new(Arc::clone(port), BLOCK)).collect();
    for client in &clients {
        client.port.open().await;
        for lane in 0..LANES {
            drop(spawn(Arc::clone(&client.port).keep_up(lane)));
        }
        drop(spawn(Arc::clone(&client.port).beat()));
        drop(spawn(Arc::clone(client).run_leases()));
        let writer = Arc::clone(client);
        drop(spawn(async move { writer.files.write_back().await }));
    }
    let world = prepare(&clients[0], count, &check).await;
    let mut programs = Vec::new();
    for client in &clients {
        for number in 0..=weather.readers {
            let program = Program {
                client: Arc::clone(client),
                check: Arc::clone(&check),
                world: world.clone(),
                writes: number == 0,
                handle: None,
                think,
            };
            programs.push(spawn(program.run(operations)));
        }
    }
    let faults = spawn(fail(Arc::clone(&net), clients.clone()));
    for program in programs {
        program.await;
    }
    faults.abort();
    for client in &clients {
        net.cut(client.number, clock::now());
    }
    if check.has_failed() {
        return;
    }
    settle(&clients, &world, &check).await;
}

/// Makes the files.
async fn prepare(client: &Client, count: usize, check: &Check) -> World {
    let mut world = World { clients: count, files: Vec::new(), log: super::client::ROOT };
    let first = client.port.net.draw(|random| random.index(STRIDES.len()));
    let strides = STRIDES.into_iter().cycle().skip(first).take(client.port.net.weather.files);
    for (number, stride) in strides.enumerate() {
        let handle = client.create(&format!("f{number}")).await.expect("a file");
        let size = program::offset(stride, count, SLOTS);
        let zeros = vec![0; usize::try_from(size).expect("small")];
        client.write(&handle, 0, &zeros, false).await.expect("zeros");
        client.fsync(&handle).await.expect("zeros on disk");
        world.files.push((handle.node.ino, stride));
        client.close(handle).await.expect("closed");
        for owner in 0..count {
            for slot in 0..SLOTS {
                check.add(program::place(number, owner, slot), owner);
            }
        }
    }
    let handle = client.create("log").await.expect("a log");
    world.log = handle.node.ino;
    client.close(handle).await.expect("closed");
    for owner in 0..count {
        check.add(program::log_of(owner), owner);
        check.add(program::name_of(owner), owner);
    }
    const { assert!(PLACE == 16) };
    world
}

/// Everything is at rest: each client must see the last of all.
async fn settle(clients: &[Arc<Client>], world: &World, check: &Arc<Check>) {
    for client in clients.iter().filter(|client| !client.port.state().dead) {
        let mut program = Program {
            client: Arc::clone(client),
            check: Arc::clone(check),
            world: world.clone(),
            writes: false,
            handle: None,
            think: Duration::ZERO,
        };
        let work = async {
            for (at, (ino, stride)) in world.files.iter().enumerate() {
                program.handle = Some((at, client.open(*ino, false, false).await?));
                for owner in 0..world.clients {
                    for slot in 0..SLOTS {
                        program.read_place(at, *stride, slot, owner).await?;
                    }
                }
                if let Some((_, handle)) = program.handle.take() {
                    client.close(handle).await?;
                }
            }
            program.read_log().await
        };
        match timer::timeout(Duration::from_secs(200), work).await {
            Ok(Ok(())) => {}
            Ok(Err(errno)) => {
                check.fail(format!("client {}: the last look failed: {errno:?}", client.number))
            }
            Err(_) => {
                client.port.net.describe();
                check.fail(format!("client {}: the last look has not ended", client.number));
            }
        }
    }
}

/// Faults come, until this is aborted.
async fn fail(net: Arc<Net>, clients: Vec<Arc<Client>>) {
    let weather = net.weather;
    // The bound of operations is meant for some faults, not for any number.
    let (mut cuts, mut crashes, mut kills) = (CUTS_MAX, CRASHES_MAX, KILLS_MAX);
    loop {
        timer::sleep(Duration::from_millis(50)).await;
        // A minute has 1200 of these pauses.
        let strikes = |rate: u64| net.draw(|random| random.below(1200) < rate);
        for client in &clients {
            let number = client.number;
            if strikes(weather.breaks) {
                let lane = net.draw(|random| random.index(LANES));
                let link = client.port.state().lanes[lane].link;
                if let Some(link) = link {
                    net.check.note(|| format!("a link of client {number} breaks"));
                    net.break_link(link);
                }
            }
            if cuts > 0 && strikes(weather.cuts) {
                cuts -= 1;
                let time = net.draw(|random| random.time(weather.cut));
                net.check.note(|| format!("client {number} is cut off for {time:?}"));
                net.cut(number, clock::now() + time);
            }
            // One survives.
            if number > 0 && kills > 0 && strikes(weather.kills) {
                kills -= 1;
                net.check.note(|| format!("client {number} dies"));
                let links: Vec<u32> = {
                    let mut state = client.port.state();
                    state.dead = true;
                    state.lanes.iter().filter_map(|lane| lane.link).collect()
                };
                for link in links {
                    client.port.drop_link(link);
                }
            }
        }
        if crashes > 0 && strikes(weather.crashes) {
            crashes -= 1;
            let away = net.draw(|random| random.time(Duration::from_secs(3)));
            net.check.note(|| format!("the server dies for {away:?}"));
            // It comes back though faults have ended meanwhile.
            let net = Arc::clone(&net);
            spawn(async move { net.crash(away).await }).await;
        }
    }
}
