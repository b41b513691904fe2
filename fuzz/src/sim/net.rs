//! The server, and the network between it and the clients.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use flexfs_meta::volume::stage::{Attached, Clocks, Sent, Stage};
use flexfs_uring::{clock, spawn, timer};
use flexfs_wire::errno::Errno;
use flexfs_wire::hello::Granted;
use flexfs_wire::id::{BlockId, Commit, Ino, RequestId, SessionId};
use flexfs_wire::lease::Leases;
use flexfs_wire::message::{Answer, Call, Notice, Replay, Reply};
use flexfs_wire::time::Time;

use super::check::Check;
use super::port::Port;
use super::random::Random;
use super::weather::Weather;

/// From a client.
#[derive(Debug)]
pub(crate) enum Up {
    Open,
    Claim { session: SessionId, resume: bool },
    Request { id: RequestId, finished: RequestId, call: Call },
    Put { id: RequestId, block: BlockId, bytes: Vec<u8> },
    Read { id: RequestId, ino: Ino, block: BlockId },
    Replay { id: RequestId, replay: Replay },
    EndReplay { id: RequestId, opens: Vec<(Ino, u32)>, exclusive: Vec<Ino> },
}

/// To a client.
#[derive(Debug)]
pub(crate) enum Down {
    Opened(Box<Granted>),
    Attached(Attached),
    /// The server cannot say yet.
    Later,
    Answer {
        id: RequestId,
        answer: Answer,
        leases: Leases,
    },
    Block {
        id: RequestId,
        bytes: Result<Vec<u8>, Errno>,
    },
    Notice(Notice),
    /// The link is gone.
    Gone,
}

/// A link, as the network sees it.
#[derive(Debug)]
struct Link {
    client: usize,
    session: Option<SessionId>,
    /// Nothing arrives before what was sent before.
    up_at: Instant,
    down_at: Instant,
    server_has_it: bool,
    client_has_it: bool,
}

#[derive(Debug)]
struct State {
    stage: Option<Stage>,
    random: Random,
    links: BTreeMap<u32, Link>,
    last_link: u32,
    /// Clients that nothing comes from or to before then.
    cuts: BTreeMap<usize, Instant>,
    syncing: bool,
    /// Times the server died.
    crashes: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Net {
    state: Mutex<State>,
    pub(crate) weather: Weather,
    pub(crate) check: Arc<Check>,
    ports: OnceLock<Vec<Weak<Port>>>,
}

impl Net {
    pub(crate) fn new(random: Random, weather: Weather, block_size: u32, check: Arc<Check>) -> Arc<Self> {
        let state = State {
            stage: Some(Stage::new(block_size, clocks())),
            random,
            links: BTreeMap::new(),
            last_link: 0,
            cuts: BTreeMap::new(),
            syncing: false,
            crashes: 0,
        };
        Arc::new(Self { state: Mutex::new(state), weather, check, ports: OnceLock::new() })
    }

    pub(crate) fn set_ports(&self, ports: Vec<Weak<Port>>) {
        drop(self.ports.set(ports));
    }

    pub(crate) fn port(&self, client: usize) -> Option<Arc<Port>> {
        self.ports.get()?.get(client)?.upgrade()
    }

    /// Draws.
    pub(crate) fn draw<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.state().random)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what is waited for.
    pub(crate) fn describe(&self) {
        for port in self.ports.get().into_iter().flatten().filter_map(Weak::upgrade) {
            self.check.note(|| port.describe());
        }
    }

    /// Looks after what is due by time, for ever.
    pub(crate) async fn serve(self: Arc<Self>) {
        loop {
            let idle = match &self.state().stage {
                Some(stage) => stage.idle_for(clock::now()),
                None => Duration::from_millis(100),
            };
            timer::sleep(idle.max(Duration::from_millis(1))).await;
            self.turn(&mut self.state());
        }
    }

    /// A new link of a client.
    pub(crate) fn connect(&self, client: usize) -> u32 {
        let mut state = self.state();
        state.last_link += 1;
        let id = state.last_link;
        let now = clock::now();
        let link = Link {
            client,
            session: None,
            up_at: now,
            down_at: now,
            server_has_it: state.stage.is_some(),
            client_has_it: true,
        };
        state.links.insert(id, link);
        id
    }

    /// The client lets go of a link; the server hears of it later.
    pub(crate) fn let_go(self: &Arc<Self>, id: u32) {
        let delay = {
            let mut state = self.state();
            let delay = self.weather.way(&mut state.random);
            let late = state.random.chance(100);
            let delay = if late { delay + state.random.time(Duration::from_secs(2)) } else { delay };
            let Some(link) = state.links.get_mut(&id) else { return };
            link.client_has_it = false;
            delay
        };
        let net = Arc::clone(self);
        drop(spawn(async move {
            timer::sleep(delay).await;
            net.forget(&mut net.state(), id);
        }));
    }

    /// The server's side of a link goes.
    fn forget(self: &Arc<Self>, state: &mut State, id: u32) {
        let Some(link) = state.links.get_mut(&id) else { return };
        let (had, session, client_has_it) = (link.server_has_it, link.session, link.client_has_it);
        link.server_has_it = false;
        if !client_has_it {
            state.links.remove(&id);
        }
        if had && let (Some(stage), Some(session)) = (&mut state.stage, session) {
            stage.link_gone(session, id, clocks());
            self.turn(state);
        }
    }

    /// A link breaks, at either end first.
    pub(crate) fn break_link(self: &Arc<Self>, id: u32) {
        if self.draw(|random| random.chance(500)) {
            self.tell_gone(&mut self.state(), id);
        } else {
            let mut state = self.state();
            self.forget(&mut state, id);
            self.tell_gone(&mut state, id);
        }
    }

    fn tell_gone(self: &Arc<Self>, state: &mut State, id: u32) {
        self.send_down(state, id, Down::Gone);
    }

    /// Nothing goes from or to a client until then.
    pub(crate) fn cut(&self, client: usize, until: Instant) {
        self.state().cuts.insert(client, until);
    }

    /// Sends a message of a client.
    pub(crate) fn send_up(self: &Arc<Self>, id: u32, up: Up) {
        let at = {
            let mut state = self.state();
            let way = self.weather.way(&mut state.random);
            let State { links, cuts, .. } = &mut *state;
            let Some(link) = links.get_mut(&id) else { return };
            let soonest = cuts.get(&link.client).map_or(link.up_at, |until| link.up_at.max(*until));
            link.up_at = (clock::now() + way).max(soonest + Duration::from_micros(1));
            link.up_at
        };
        let net = Arc::clone(self);
        drop(spawn(async move {
            timer::sleep_until(at).await;
            net.arrive(id, up);
        }));
    }

    /// A message reaches the server.
    fn arrive(self: &Arc<Self>, id: u32, up: Up) {
        let mut state = self.state();
        let now = clocks();
        let State { stage, links, .. } = &mut *state;
        let Some(link) = links.get_mut(&id) else { return };
        let Some(stage) = stage.as_mut().filter(|_| link.server_has_it) else {
            return self.tell_gone(&mut state, id);
        };
        let at = link.session.map(|session| (session, id));
        let down = match (up, at) {
            (Up::Open, _) => match stage.open(id, &format!("client {}", link.client), now) {
                Some(granted) => {
                    link.session = Some(granted.session);
                    Some(Down::Opened(granted))
                }
                None => Some(Down::Later),
            },
            (Up::Claim { session, resume }, _) => {
                let attached = stage.claim(session, id, resume, now);
                if matches!(attached, Attached::Yes(_) | Attached::Recovering(..)) {
                    link.session = Some(session);
                }
                Some(Down::Attached(attached))
            }
            (Up::Request { id, finished, call }, Some(at)) => {
                stage.request(at, id, finished, call, now);
                None
            }
            (Up::Put { id, block, bytes }, Some((session, _))) => {
                let result = stage.put_block(session, block, bytes, now).map(|()| Reply::Done);
                let answer = Answer { commit: Commit(0), at: Time::default(), result };
                Some(Down::Answer { id, answer, leases: Leases::NONE })
            }
            (Up::Read { id, ino, block }, Some((session, _))) => {
                Some(Down::Block { id, bytes: stage.read_block(session, ino, block, now) })
            }
            (Up::Replay { id, replay }, Some(at)) => {
                stage.replay(at, id, replay, now);
                None
            }
            (Up::EndReplay { id, opens, exclusive }, Some(at)) => {
                stage.end_replay(at, id, opens, Vec::new(), exclusive, now);
                None
            }
            _ => None,
        };
        if let Some(down) = down {
            self.send_down(&mut state, id, down);
        }
        self.turn(&mut state);
    }

    /// Lets the server finish what it did, and sends what comes of it.
    fn turn(self: &Arc<Self>, state: &mut State) {
        let Some(stage) = &mut state.stage else { return };
        stage.tick(clocks());
        let sent = stage.take_sent();
        let pending = stage.pending() > 0;
        for port in self.ports.get().into_iter().flatten().filter_map(Weak::upgrade) {
            if port.session().is_some_and(|session| !stage.has_session(session)) {
                self.check.lose(port.number);
            }
        }
        if !pending && stage.is_open() {
            self.check.settle();
        }
        for (id, sent) in sent {
            match sent {
                Sent::Answer { request, answer, leases } => {
                    self.send_down(state, id, Down::Answer { id: request, answer, leases });
                }
                Sent::Notice(notice) => self.send_down(state, id, Down::Notice(notice)),
                Sent::Close => {
                    self.tell_gone(state, id);
                    if let Some(link) = state.links.get_mut(&id) {
                        link.server_has_it = false;
                    }
                }
            }
        }
        if pending && !state.syncing {
            state.syncing = true;
            let wait = state.random.time(self.weather.sync);
            let (net, crashes) = (Arc::clone(self), state.crashes);
            drop(spawn(async move {
                timer::sleep(wait).await;
                net.sync(crashes);
            }));
        }
    }

    fn sync(self: &Arc<Self>, crashes: u64) {
        let mut state = self.state();
        if state.crashes != crashes {
            return;
        }
        state.syncing = false;
        let State { stage, random, .. } = &mut *state;
        if let Some(stage) = stage {
            let all = random.chance(500);
            let count = if all { usize::MAX } else { 1 + random.index(4) };
            stage.sync(count, clocks());
        }
        self.turn(&mut state);
    }

    fn send_down(self: &Arc<Self>, state: &mut State, id: u32, down: Down) {
        let mark = state.stage.as_ref().map_or(Commit(0), Stage::durable);
        let way = self.weather.way(&mut state.random);
        let State { links, cuts, .. } = state;
        let Some(link) = links.get_mut(&id) else { return };
        let soonest = cuts.get(&link.client).map_or(link.down_at, |until| link.down_at.max(*until));
        link.down_at = (clock::now() + way).max(soonest + Duration::from_micros(1));
        let (at, client) = (link.down_at, link.client);
        let net = Arc::clone(self);
        drop(spawn(async move {
            timer::sleep_until(at).await;
            let here = net.state().links.get(&id).is_some_and(|link| link.client_has_it);
            if here && let Some(port) = net.port(client) {
                port.receive(id, mark, down);
            }
        }));
    }

    /// The server dies, and is back after a while.
    pub(crate) async fn crash(self: &Arc<Self>, away: Duration) {
        let Some(stage) = self.state().stage.take() else { return };
        self.check.crash();
        {
            let mut state = self.state();
            state.crashes += 1;
            state.syncing = false;
            for link in state.links.values_mut() {
                link.server_has_it = false;
            }
            let ids: Vec<u32> = state.links.keys().copied().collect();
            for id in ids {
                if state.random.chance(700) {
                    self.tell_gone(&mut state, id);
                }
            }
        }
        timer::sleep(away).await;
        let mut state = self.state();
        let kept = state.random.index(4);
        state.stage = Some(stage.crash(kept, clocks()));
        self.turn(&mut state);
    }
}

pub(crate) fn clocks() -> Clocks {
    let (secs, nanos) = clock::wall_parts();
    Clocks { mono: clock::now(), wall: Time { secs, nanos } }
}
