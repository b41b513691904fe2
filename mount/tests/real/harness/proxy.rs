//! A proxy between clients and the metadata server, for weather that this kernel cannot make: delays, lost connections, frames
//! cut in two, peers that are there and say nothing, links of one client that are not equally quick.
//!
//! Clients come to it because admin names its address as the metadata server's, which is all a user would have to do to put
//! a load balancer there.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;

use super::random::Random;

/// Most bytes passed on at once: some frames come in one piece, larger ones in several.
const CHUNK_BYTES: usize = 16 << 10;
/// How often a connection that must stay silent looks whether it may speak again.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What connections meet. The default is fair weather.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weather {
    /// Longest wait of a chunk. Each connection has a part of it as its own, so links overtake each other.
    pub(crate) delay: Duration,
    /// One of so many chunks is cut in two, the first part passed on, the connection lost; 0 for none.
    pub(crate) torn: u64,
    /// One of so many chunks is the last before silence: the connection stands, nothing goes through; 0 for none.
    pub(crate) half_open: u64,
    /// Nothing goes through at all; what was sent waits.
    pub(crate) hold: bool,
}

/// See the module. Dropped, it ends its connections.
pub(crate) struct Proxy {
    state: Arc<State>,
    port: u16,
}

#[derive(Default)]
struct State {
    weather: Mutex<Weather>,
    connections: Mutex<Vec<TcpStream>>,
    ended: AtomicBool,
    counts: Counts,
}

/// What happened so far.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) connections: AtomicU64,
    pub(crate) torn: AtomicU64,
    pub(crate) half_open: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

impl Proxy {
    /// A proxy before `server`.
    pub(crate) fn start(server: SocketAddr, seed: u64) -> Self {
        let [port] = super::machine::free_ports();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if shared.ended.load(Ordering::Relaxed) {
                    return;
                }
                let number = shared.counts.connections.fetch_add(1, Ordering::Relaxed);
                // A server that is away: the client sees its connection end.
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(server)) else { continue };
                for (way, from, to) in [(0, &client, &server), (1, &server, &client)] {
                    from.set_nodelay(true).unwrap();
                    let random = Random::new(seed ^ (number * 2 + way).wrapping_mul(0x1234_5678_9abc_def1));
                    let pump = Pump {
                        state: shared.clone(),
                        from: from.try_clone().unwrap(),
                        to: to.try_clone().unwrap(),
                        random,
                    };
                    std::thread::spawn(move || pump.run());
                }
                let mut connections = shared.connections.lock().unwrap();
                connections.retain(|connection| connection.peer_addr().is_ok());
                connections.extend([client, server]);
            }
        });
        Self { state, port }
    }

    /// Where clients find it.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn set(&self, weather: Weather) {
        *self.state.weather.lock().unwrap() = weather;
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.state.counts
    }

    /// Ends all connections at once.
    pub(crate) fn drop_all(&self) {
        for connection in self.state.connections.lock().unwrap().drain(..) {
            // Gone already: all the same.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
        self.drop_all();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// One direction of one connection.
struct Pump {
    state: Arc<State>,
    from: TcpStream,
    to: TcpStream,
    random: Random,
}

impl Pump {
    fn run(mut self) {
        let mut bytes = vec![0; CHUNK_BYTES];
        // Of eight parts; a slow link stays slow.
        let slowness = u32::try_from(self.random.below(9)).unwrap();
        while let Ok(count @ 1..) = self.from.read(&mut bytes) {
            let weather = self.weather();
            sleep(weather.delay / 8 * slowness);
            if !weather.delay.is_zero() && self.random.chance(1, 16) {
                sleep(weather.delay);
            }
            if weather.half_open > 0 && self.random.chance(1, weather.half_open) {
                self.state.counts.half_open.fetch_add(1, Ordering::Relaxed);
                // What comes is read, so that the sender notices nothing, and goes nowhere, until he gives up.
                while matches!(self.from.read(&mut bytes), Ok(1..)) {}
                break;
            }
            if weather.torn > 0 && self.random.chance(1, weather.torn) {
                self.state.counts.torn.fetch_add(1, Ordering::Relaxed);
                // Both may be gone by now, and the connection is to end in any case.
                let _ = self.to.write_all(&bytes[..self.random.index(count)]);
                break;
            }
            if self.to.write_all(&bytes[..count]).is_err() {
                break;
            }
            self.state.counts.bytes.fetch_add(count as u64, Ordering::Relaxed);
        }
        for end in [&self.from, &self.to] {
            // Ended by the peer or by the other direction: all the same.
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    /// The weather, when it lets anything through.
    fn weather(&self) -> Weather {
        loop {
            let weather = self.state.weather.lock().unwrap().clone();
            if !weather.hold || self.state.ended.load(Ordering::Relaxed) {
                return weather;
            }
            sleep(LOOK_EVERY);
        }
    }
}
