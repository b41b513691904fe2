//! A client's session: what `link::Remote` is to a real mount, over simulated links.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use flexfs_mount::cancel::Cancel;
use flexfs_mount::data::Server;
use flexfs_mount::lease::Recalls;
use flexfs_mount::store::Place;
use flexfs_uring::{clock, timer};
use flexfs_wire::block::{Index, open_segment};
use flexfs_wire::errno::Errno;
use flexfs_wire::hello::Granted;
use flexfs_wire::id::{BlockId, Commit, Epoch, Ino, RequestId, SessionId};
use flexfs_wire::lease::{Leases, Recall};
use flexfs_wire::limits::HEARTBEAT_MS;
use flexfs_wire::message::{Answer, Call, Caller, Notice, Reply, Request};
use flexfs_wire::seal::Node;
use flexfs_wire::time::Time;

use super::client::Client;
use super::link::Slot;
use super::net::{Down, Net, Up};

pub(crate) const NOBODY: Caller = Caller { uid: 0, gid: 0 };
/// Links of a client.
pub(crate) const LANES: usize = 2;
/// A link on which something is waited for is given up after so long without a sign.
const DEAF: Duration = Duration::from_millis(2 * HEARTBEAT_MS);
/// Numbers asked for at once.
const GRANT: u64 = 64;

/// What is asked of the server.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Call(Call),
    Put(BlockId, Vec<u8>),
    Read(Ino, BlockId),
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) result: Result<Reply, Errno>,
    pub(crate) leases: Leases,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Pending {
    lane: usize,
    pub(crate) what: What,
    pub(crate) slot: Option<Arc<Slot<Outcome>>>,
}

impl Pending {
    /// Sent once, by whoever leads.
    pub(crate) fn of_no_lane(what: What, slot: Arc<Slot<Outcome>>) -> Self {
        Self { lane: LANES, what, slot: Some(slot) }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// The link that is up.
    pub(crate) link: Option<u32>,
    heard: Option<Instant>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) session: Option<SessionId>,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) lanes: Vec<Lane>,
    /// Links that are listened to.
    pub(crate) live: BTreeSet<u32>,
    pub(crate) greetings: BTreeMap<u32, Arc<Slot<Down>>>,
    pub(crate) pending: BTreeMap<RequestId, Pending>,
    last_request: u64,
    pub(crate) durable: Commit,
    pub(crate) last_commit: Commit,
    pub(crate) unstable: BTreeMap<(Commit, RequestId), (Time, Call)>,
    pub(crate) opens: BTreeMap<Ino, u32>,
    pub(crate) generation: u64,
    heard: Option<Instant>,
    inos: Vec<u64>,
    blocks: Vec<u64>,
    /// One lane leads a recovery.
    pub(crate) leading: bool,
    /// The machine lost its power.
    pub(crate) dead: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) net: Arc<Net>,
    pub(crate) number: usize,
    pub(crate) recalls: Recalls,
    state: Mutex<State>,
    client: OnceLock<Weak<Client>>,
}

impl Port {
    pub(crate) fn new(net: Arc<Net>, number: usize) -> Arc<Self> {
        let lanes = (0..LANES).map(|_| Lane::default()).collect();
        let state = Mutex::new(State { lanes, ..State::default() });
        Arc::new(Self { net, number, recalls: Recalls::default(), state, client: OnceLock::new() })
    }

    pub(crate) fn set_client(&self, client: &Arc<Client>) {
        drop(self.client.set(Arc::downgrade(client)));
    }

    pub(crate) fn client(&self) -> Option<Arc<Client>> {
        self.client.get().and_then(Weak::upgrade)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn session(&self) -> Option<SessionId> {
        self.state().session
    }

    pub(crate) fn quiet_for(&self) -> Duration {
        let heard = self.state().heard;
        heard.map_or(Duration::ZERO, |heard| clock::now().saturating_duration_since(heard))
    }

    /// What is waited for, in words.
    pub(crate) fn describe(&self) -> String {
        let kernel = self.client().map(|client| client.kernel.describe()).unwrap_or_default();
        let state = self.state();
        let links: Vec<Option<u32>> = state.lanes.iter().map(|lane| lane.link).collect();
        format!("client {}: links {links:?}, calls {:?}, kernel {kernel}", self.number, state.pending)
    }

    pub(crate) fn take_id(state: &mut State) -> RequestId {
        state.last_request += 1;
        RequestId(state.last_request)
    }

    /// Asks, whatever happens to links.
    pub(crate) async fn ask(&self, what: What) -> Outcome {
        let slot = Arc::new(Slot::default());
        self.begin(what, Some(Arc::clone(&slot)), None);
        slot.wait().await
    }

    fn begin(&self, what: What, slot: Option<Arc<Slot<Outcome>>>, lane: Option<usize>) {
        let lane = lane.unwrap_or_else(|| self.net.draw(|random| random.index(LANES)));
        let sent = {
            let mut state = self.state();
            let id = Self::take_id(&mut state);
            let finished = state.pending.keys().next().copied().unwrap_or(id);
            let up = up(id, finished, &what);
            state.pending.insert(id, Pending { lane, what, slot });
            state.lanes[lane].link.map(|link| (link, up))
        };
        if let Some((link, up)) = sent {
            self.net.send_up(link, up);
        }
    }

    /// A link is up: all that has no answer goes out (again).
    pub(crate) fn set_up(&self, lane: usize, link: u32) {
        let ups: Vec<Up> = {
            let mut state = self.state();
            state.lanes[lane].link = Some(link);
            state.lanes[lane].heard = Some(clock::now());
            state.live.insert(link);
            let finished = state.pending.keys().next().copied().unwrap_or(RequestId(0));
            let mine = state.pending.iter().filter(|(_, pending)| pending.lane == lane);
            mine.map(|(id, pending)| up(*id, finished, &pending.what)).collect()
        };
        for up in ups {
            self.net.send_up(link, up);
        }
    }

    /// Lets go of a link.
    pub(crate) fn drop_link(&self, link: u32) {
        {
            let mut state = self.state();
            state.live.remove(&link);
            state.greetings.remove(&link);
            for lane in &mut state.lanes {
                if lane.link == Some(link) {
                    lane.link = None;
                }
            }
        }
        self.net.let_go(link);
    }

    /// A message has come.
    pub(crate) fn receive(&self, link: u32, mark: Commit, down: Down) {
        let mut recalls: Vec<Recall> = Vec::new();
        let mut done = None;
        {
            let mut state = self.state();
            if state.dead || !state.live.contains(&link) {
                return;
            }
            let now = clock::now();
            state.heard = Some(now);
            for lane in state.lanes.iter_mut().filter(|lane| lane.link == Some(link)) {
                lane.heard = Some(now);
            }
            match down {
                Down::Opened(_) | Down::Attached(_) | Down::Later => {
                    if let Some(slot) = state.greetings.remove(&link) {
                        drop(state);
                        slot.fill(down);
                    }
                    return;
                }
                Down::Gone => {
                    let slot = state.greetings.remove(&link);
                    drop(state);
                    if let Some(slot) = slot {
                        slot.fill(Down::Gone);
                    }
                    return self.drop_link(link);
                }
                Down::Answer { id, answer, leases } => {
                    handle_mark(&mut state, mark);
                    if let Some(pending) = state.pending.remove(&id) {
                        note_answer(&mut state, id, &pending.what, &answer);
                        let result = answer.result;
                        done = Some((pending.slot, Outcome { result, leases, bytes: Vec::new() }));
                    }
                }
                Down::Block { id, bytes } => {
                    if let Some(pending) = state.pending.remove(&id) {
                        let (result, bytes) = match bytes {
                            Ok(bytes) => (Ok(Reply::Done), bytes),
                            Err(errno) => (Err(errno), Vec::new()),
                        };
                        done = Some((pending.slot, Outcome { result, leases: Leases::NONE, bytes }));
                    }
                }
                Down::Notice(notice) => {
                    handle_mark(&mut state, mark);
                    // While a link is only being made, nobody listens to notices.
                    if let Notice::Recall { recalls: new } = notice
                        && state.lanes.iter().any(|lane| lane.link == Some(link))
                    {
                        recalls = new;
                    }
                }
            }
        }
        if let Some((Some(slot), outcome)) = done {
            slot.fill(outcome);
        }
        if !recalls.is_empty()
            && let Some(client) = self.client()
        {
            client.handle_recalls(recalls);
        }
    }

    /// Asks for signs of life, and gives up links that give none, for ever.
    pub(crate) async fn beat(self: Arc<Self>) {
        loop {
            timer::sleep(Duration::from_millis(HEARTBEAT_MS / 3)).await;
            let now = clock::now();
            for lane in 0..LANES {
                let (link, quiet) = {
                    let state = self.state();
                    let found = &state.lanes[lane];
                    let quiet = found.heard.map(|heard| now.saturating_duration_since(heard));
                    (found.link, quiet.unwrap_or_default())
                };
                let Some(link) = link else { continue };
                if quiet > DEAF {
                    self.drop_link(link);
                } else if quiet >= Duration::from_millis(HEARTBEAT_MS) {
                    let call = Call::new(NOBODY, Request::Heartbeat);
                    self.begin(What::Call(call), None, Some(lane));
                }
            }
        }
    }

    pub(crate) async fn next_ino(&self) -> Result<Ino, Errno> {
        loop {
            if let Some(ino) = self.state().inos.pop() {
                return Ok(Ino(ino));
            }
            self.grant(true).await?;
        }
    }

    async fn grant(&self, ino: bool) -> Result<(), Errno> {
        let generation = self.generation();
        let request =
            if ino { Request::GrantInodes { count: GRANT } } else { Request::GrantBlocks { count: GRANT } };
        if let Reply::Granted(range) | Reply::Inodes { range, .. } = self.call(NOBODY, request, None).await? {
            let mut state = self.state();
            if state.generation == generation {
                let numbers = if ino { &mut state.inos } else { &mut state.blocks };
                numbers.extend((range.start..range.start + range.count).rev());
            }
        }
        Ok(())
    }

    /// A new session stands.
    pub(crate) fn take_granted(state: &mut State, granted: &Granted) {
        state.session = Some(granted.session);
        state.epoch = Some(granted.epoch);
        state.heard = Some(clock::now());
        state.durable = state.durable.max(granted.durable);
        state.last_commit = state.last_commit.max(granted.durable);
        state.inos.clear();
        state.blocks.clear();
    }
}

fn up(id: RequestId, finished: RequestId, what: &What) -> Up {
    match what.clone() {
        What::Call(call) => Up::Request { id, finished, call },
        What::Put(block, bytes) => Up::Put { id, block, bytes },
        What::Read(ino, block) => Up::Read { id, ino, block },
    }
}

pub(crate) fn handle_mark(state: &mut State, mark: Commit) {
    if state.durable < mark {
        state.durable = mark;
        state.unstable.retain(|(commit, _), _| *commit > mark);
    }
}

fn note_answer(state: &mut State, id: RequestId, what: &What, answer: &Answer) {
    let What::Call(call) = what else { return };
    if answer.commit.0 != 0 {
        state.last_commit = state.last_commit.max(answer.commit);
        if call.request.is_mutation() && answer.commit > state.durable {
            state.unstable.insert((answer.commit, id), (answer.at, call.clone()));
        }
    }
    let Ok(reply) = &answer.result else { return };
    match (&call.request, reply) {
        (Request::Open { node, .. }, _) => *state.opens.entry(node.ino).or_default() += 1,
        (Request::Make { make, .. }, Reply::Entry(entry)) if make.open => {
            *state.opens.entry(entry.node.ino).or_default() += 1;
        }
        (Request::Close { node, count }, _) => {
            if let Some(opens) = state.opens.get_mut(&node.ino) {
                *opens = opens.saturating_sub(*count);
                if *opens == 0 {
                    state.opens.remove(&node.ino);
                }
            }
        }
        _ => {}
    }
}

impl Server for Port {
    type Change = ();

    async fn call(&self, caller: Caller, request: Request, _: Option<&Cancel>) -> Result<Reply, Errno> {
        self.ask(What::Call(Call::new(caller, request))).await.result
    }

    async fn call_leased(
        &self,
        caller: Caller,
        request: Request,
        _: Option<&Cancel>,
    ) -> (Result<Reply, Errno>, Leases) {
        let outcome = self.ask(What::Call(Call::new(caller, request))).await;
        (outcome.result, outcome.leases)
    }

    fn recalls(&self) -> &Recalls {
        &self.recalls
    }

    fn call_later(&self, caller: Caller, request: Request) {
        self.begin(What::Call(Call::new(caller, request)), None, None);
    }

    async fn next_block(&self) -> Result<BlockId, Errno> {
        loop {
            if let Some(block) = self.state().blocks.pop() {
                return Ok(BlockId(block));
            }
            self.grant(false).await?;
        }
    }

    async fn put_block(&self, block: BlockId, encoded: Vec<u8>) -> Result<(), Errno> {
        self.ask(What::Put(block, encoded)).await.result.map(|_| ())
    }

    async fn read_block(
        &self,
        node: Node,
        block: BlockId,
        first: u32,
        places: &mut [Place<'_>],
        _: Option<&Cancel>,
    ) -> Result<(), Errno> {
        let outcome = self.ask(What::Read(node.ino, block)).await;
        outcome.result?;
        let index = Index::parse(&outcome.bytes).map_err(|_| Errno::EIO)?;
        for (place, number) in places.iter_mut().zip(first..) {
            let segment = index.select(number, 1).map_err(|_| Errno::EIO)?[0];
            let stored = &outcome.bytes[index.stored_range(number, 1).map_err(|_| Errno::EIO)?];
            let room: &mut [u8] = match place {
                Place::Slice(slice) => slice,
                Place::Buffer(buffer) => {
                    buffer.clear();
                    buffer.resize(segment.raw_bytes as usize, 0);
                    buffer
                }
            };
            open_segment(&segment, stored, room).map_err(|_| Errno::EIO)?;
        }
        Ok(())
    }

    fn last_commit(&self) -> Commit {
        self.state().last_commit
    }

    fn generation(&self) -> u64 {
        self.state().generation
    }

    fn is_lost(&self, _: Commit, _: u64) -> bool {
        false
    }

    async fn sync_to(&self, commit: Commit, _: Option<&Cancel>) -> Result<(), Errno> {
        let up_to = {
            let state = self.state();
            let up_to = commit.min(state.last_commit);
            if up_to <= state.durable {
                return Ok(());
            }
            up_to
        };
        self.call(NOBODY, Request::Sync { up_to }, None).await.map(|_| ())
    }
}
