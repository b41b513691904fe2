//! Links of a client come up: attached, after a restart with a replay, or with a new session.

use std::sync::Arc;
use std::time::Duration;

use flexfs_meta::volume::stage::Attached;
use flexfs_uring::{clock, timer};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::{Ino, RequestId};
use flexfs_wire::lease::Leases;
use flexfs_wire::message::{Call, Replay, Reply, Request};
use flexfs_wire::seal::Node;

use super::link::Slot;
use super::net::{Down, Up};
use super::port::{NOBODY, Outcome, Pending, Port, What, handle_mark};

/// Time for one answer of a handshake.
const GREET_MAX: Duration = Duration::from_secs(3);
/// Time for the recovery of all sessions.
const RECOVERY_MAX: Duration = Duration::from_secs(90);

impl Port {
    /// The first session.
    pub(crate) async fn open(&self) {
        let link = self.net.connect(self.number);
        match self.greet(link, Up::Open).await {
            Some(Down::Opened(granted)) => Self::take_granted(&mut self.state(), &granted),
            other => panic!("no first session: {other:?}"),
        }
        self.set_up(0, link);
    }

    /// Keeps a lane up, for ever.
    pub(crate) async fn keep_up(self: Arc<Self>, lane: usize) {
        loop {
            let pause = self.net.draw(|random| random.time(Duration::from_millis(100)));
            timer::sleep(Duration::from_millis(1) + pause).await;
            let session = {
                let state = self.state();
                if state.dead {
                    return;
                }
                if state.leading || state.lanes[lane].link.is_some() {
                    continue;
                }
                state.session
            };
            let Some(session) = session else { continue };
            let link = self.net.connect(self.number);
            let attached = self.greet(link, Up::Claim { session, resume: false }).await;
            let stands = {
                let state = self.state();
                !state.leading && state.session == Some(session)
            };
            match attached {
                Some(Down::Attached(Attached::Yes(epoch))) if stands && self.state().epoch == Some(epoch) => {
                    self.set_up(lane, link);
                    continue;
                }
                Some(Down::Attached(Attached::Yes(_) | Attached::MustRecover)) if stands => {
                    self.lead(lane, true).await;
                }
                Some(Down::Attached(Attached::Unknown)) if stands => self.lead(lane, false).await,
                _ => {}
            }
            self.drop_link(link);
        }
    }

    async fn greet(&self, link: u32, hello: Up) -> Option<Down> {
        let slot = Arc::new(Slot::default());
        {
            let mut state = self.state();
            state.live.insert(link);
            state.greetings.insert(link, Arc::clone(&slot));
        }
        self.net.send_up(link, hello);
        timer::timeout(GREET_MAX, slot.wait()).await.ok()
    }

    async fn lead(&self, lane: usize, resume: bool) {
        let links: Vec<u32> = {
            let mut state = self.state();
            state.leading = true;
            state.lanes.iter().filter_map(|lane| lane.link).collect()
        };
        for link in links {
            self.drop_link(link);
        }
        let link = self.net.connect(self.number);
        let done = if resume { self.resume(link).await } else { self.reopen(link).await };
        self.state().leading = false;
        if done {
            self.set_up(lane, link);
        } else {
            self.drop_link(link);
        }
    }

    async fn resume(&self, link: u32) -> bool {
        let Some(session) = self.session() else { return false };
        let epoch = match self.greet(link, Up::Claim { session, resume: true }).await {
            Some(Down::Attached(Attached::Yes(epoch))) => {
                self.recovered(epoch);
                return true;
            }
            Some(Down::Attached(Attached::Recovering(epoch, durable))) => {
                // What survived is not to be done again.
                handle_mark(&mut self.state(), durable);
                epoch
            }
            Some(Down::Attached(Attached::Unknown)) => {
                self.drop_link(link);
                return false;
            }
            _ => return false,
        };
        let replays: Vec<(RequestId, Replay)> = {
            let state = self.state();
            let unstable = state.unstable.iter();
            unstable
                .map(|((commit, id), (at, call))| {
                    (*id, Replay { commit: *commit, at: *at, call: call.clone() })
                })
                .collect()
        };
        for (id, replay) in replays {
            self.net.send_up(link, Up::Replay { id, replay });
        }
        let exclusive: Vec<Ino> = self.client().map(|client| client.exclusive()).unwrap_or_default();
        let opens: Vec<(Ino, u32)> = self.state().opens.iter().map(|(ino, count)| (*ino, *count)).collect();
        let (id, slot) = self.expect(Request::Heartbeat);
        self.net.send_up(link, Up::EndReplay { id, opens, exclusive });
        if self.answered(link, id, &slot, RECOVERY_MAX).await.is_none() {
            return false;
        }
        self.recovered(epoch);
        true
    }

    fn recovered(&self, epoch: flexfs_wire::id::Epoch) {
        let ended = {
            let mut state = self.state();
            state.epoch = Some(epoch);
            state.unstable.clear();
            state.last_commit = state.durable;
            let syncs = |pending: &Pending| {
                matches!(&pending.what, What::Call(Call { request: Request::Sync { .. }, .. }))
            };
            let ids: Vec<RequestId> =
                state.pending.iter().filter(|(_, pending)| syncs(pending)).map(|(id, _)| *id).collect();
            ids.into_iter().filter_map(|id| state.pending.remove(&id)).collect::<Vec<_>>()
        };
        for pending in ended {
            finish(pending, Ok(Reply::Done));
        }
        if let Some(client) = self.client() {
            client.handle_recovered(epoch);
        }
    }

    async fn reopen(&self, link: u32) -> bool {
        let Some(Down::Opened(granted)) = self.greet(link, Up::Open).await else { return false };
        let opens: Vec<(Ino, u32)> = self.state().opens.iter().map(|(ino, count)| (*ino, *count)).collect();
        for (ino, count) in opens {
            for _ in 0..count {
                let node = Node::unsealed(ino);
                let request = Request::Open { node, write: false, truncate: false, kill_privileges: false };
                let (id, slot) = self.expect(Request::Heartbeat);
                let call = Call::new(NOBODY, request);
                self.net.send_up(link, Up::Request { id, finished: RequestId(0), call });
                match self.answered(link, id, &slot, GREET_MAX).await {
                    Some(Ok(_)) => {}
                    Some(Err(_)) => drop(self.state().opens.remove(&ino)),
                    None => return false,
                }
            }
        }
        let ended = {
            let mut state = self.state();
            let restarted = state.epoch != Some(granted.epoch);
            if restarted {
                state.unstable.clear();
                state.last_commit = granted.durable;
            }
            Self::take_granted(&mut state, &granted);
            state.generation += 1;
            self.recalls.void();
            let mut ended = Vec::new();
            let ids: Vec<RequestId> = state.pending.keys().copied().collect();
            for id in ids {
                let end = state.pending.get(&id).and_then(|pending| fate(&pending.what));
                if let Some(result) = end
                    && let Some(pending) = state.pending.remove(&id)
                {
                    ended.push((pending, result));
                }
            }
            ended
        };
        if let Some(client) = self.client() {
            client.handle_lost();
        }
        for (pending, result) in ended {
            finish(pending, result);
        }
        true
    }

    /// A place for the answer to something that is sent on one link only.
    fn expect(&self, request: Request) -> (RequestId, Arc<Slot<Outcome>>) {
        let slot = Arc::new(Slot::default());
        let mut state = self.state();
        let id = Self::take_id(&mut state);
        let what = What::Call(Call::new(NOBODY, request));
        state.pending.insert(id, Pending::of_no_lane(what, Arc::clone(&slot)));
        (id, slot)
    }

    async fn answered(
        &self,
        link: u32,
        id: RequestId,
        slot: &Slot<Outcome>,
        within: Duration,
    ) -> Option<Result<Reply, Errno>> {
        let deadline = clock::now() + within;
        let mut wait = std::pin::pin!(slot.wait());
        loop {
            if let Ok(outcome) = timer::timeout(Duration::from_millis(50), wait.as_mut()).await {
                return Some(outcome.result);
            }
            if clock::now() >= deadline || !self.state().live.contains(&link) {
                self.state().pending.remove(&id);
                return None;
            }
        }
    }
}

/// What becomes of a call whose session is lost; `None`: it is sent anew.
fn fate(what: &What) -> Option<Result<Reply, Errno>> {
    match what {
        What::Put(..) => Some(Err(Errno::ESTALE)),
        What::Read(..) => None,
        What::Call(call) => match &call.request {
            Request::Close { .. }
            | Request::Unlock { .. }
            | Request::Heartbeat
            | Request::Recalled { .. }
            | Request::GiveBack { .. }
            | Request::DropLeases { .. } => Some(Ok(Reply::Done)),
            request if request.is_mutation() => Some(Err(Errno::ESTALE)),
            _ => None,
        },
    }
}

fn finish(pending: Pending, result: Result<Reply, Errno>) {
    if let Some(slot) = pending.slot {
        slot.fill(Outcome { result, leases: Leases::NONE, bytes: Vec::new() });
    }
}
