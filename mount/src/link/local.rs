//! One shard's link as its tasks see it: calls in, outcomes out. The connection itself comes and goes (`task`).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Instant;

use event_listener::Event;
use flexfs_wire::errno::Errno;
use flexfs_wire::frame::Header;
use flexfs_wire::id::RequestId;
use flexfs_wire::lease::Leases;
use flexfs_wire::message::{Answer, Call, Caller, Reply, Request};

use super::grant::Grant;
use super::incoming::Incoming;
use super::ledger::{Ended, Ledger, Pending};
use super::session::{Lane, Session, Turn, add};
use super::unstable::encode_call;
use super::waiter::{Outcome, Waiter};

/// The client itself, for calls nobody made: grants, closes, heartbeats.
pub(crate) const NOBODY: Caller = Caller { uid: 0, gid: 0 };
/// Calls whose round trip is measured: one in this many.
const MEASURE_EVERY: u64 = 16;

/// See the module.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) session: Arc<Session>,
    /// Its row in what the session has of each link: the shard's number, and for its bulk link as many more as there are shards.
    pub(crate) row: usize,
    pub(crate) ledger: RefCell<Ledger<Rc<Waiter>>>,
    pub(crate) inos: Grant,
    pub(crate) blocks: Grant,
    /// Room for more calls.
    pub(crate) room: Event,
    /// Turns of the session that this link's calls have been taken through.
    era: Cell<u64>,
    /// The session's generation that the granted numbers belong to.
    generation: Cell<u64>,
    up: Cell<bool>,
    /// Set while a soft mount's server has been away for too long.
    failing: Cell<bool>,
    /// Wakes the sending half.
    sender: RefCell<Option<Waker>>,
    /// It holds calls back that nobody waits for.
    held: Cell<Option<Hold>>,
}

/// Calls that nobody waits for are held back until then, or until there are so many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hold {
    pub(crate) until: Instant,
    pub(crate) most: usize,
}

/// Ends a [`Hold`].
pub(crate) struct Held<'a>(&'a Link);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.set(None);
    }
}

impl Link {
    /// A link that is not up yet.
    pub(crate) fn new(session: Arc<Session>, shard: usize) -> Rc<Self> {
        let shard = shard.min(session.shards() - 1);
        Self::of_row(session, shard)
    }

    /// The one for large blocks, beside another of the same shard.
    pub(crate) fn bulk_of(link: &Self) -> Rc<Self> {
        let row = link.session.shards() + link.row;
        Self::of_row(Arc::clone(&link.session), row)
    }

    fn of_row(session: Arc<Session>, row: usize) -> Rc<Self> {
        let (era, generation) = (session.era(), session.generation());
        Rc::new(Self {
            row,
            session,
            ledger: RefCell::default(),
            inos: Grant::new(flexfs_wire::limits::INODE_GRANT),
            blocks: Grant::new(flexfs_wire::limits::BLOCK_GRANT),
            room: Event::new(),
            era: Cell::new(era),
            generation: Cell::new(generation),
            up: Cell::new(false),
            failing: Cell::new(false),
            sender: RefCell::new(None),
            held: Cell::new(None),
        })
    }

    /// Whether its connection stands.
    pub(crate) fn is_up(&self) -> bool {
        self.up.get()
    }

    /// This link's figures.
    pub(crate) fn lane(&self) -> &Lane {
        &self.session.lanes[self.row]
    }

    /// Whether calls can be made.
    pub(crate) fn check(&self) -> Result<(), Errno> {
        match self.session.ended() {
            Some(errno) => Err(errno),
            None if self.failing.get() => Err(Errno::ETIMEDOUT),
            None => Ok(()),
        }
    }

    /// Numbers granted to a session that was lost are of no use.
    pub(crate) fn renew_grants(&self) {
        let generation = self.session.generation();
        if self.generation.replace(generation) != generation {
            self.inos.clear();
            self.blocks.clear();
        }
    }

    /// Makes a call; the answer is left with `waiter`.
    pub(crate) fn begin(
        &self,
        call: Call,
        payload: Option<Arc<Vec<u8>>>,
        waiter: Option<Rc<Waiter>>,
    ) -> Result<RequestId, Errno> {
        let body = encode_call(&call).map_err(|_| Errno::E2BIG)?;
        let mut pending = Pending::new(&call.request, body, payload, self.session.era(), waiter);
        pending.lazy |= call.told.is_some();
        let marks = &self.session.marks;
        let id = if pending.is_once() { marks.take_once(self.row) } else { marks.take() };
        if let Some(waiter) = &pending.waiter
            && id.0 % MEASURE_EVERY == 0
        {
            waiter.began.set(Some(flexfs_uring::clock::now()));
        }
        let mut ledger = self.ledger.borrow_mut();
        ledger.handle_call(id, pending);
        let lane = self.lane();
        add(&lane.calls, 1);
        lane.in_flight.store(ledger.count() as u64, Ordering::Relaxed);
        drop(ledger);
        if !self.holds_back() {
            self.wake_sender();
        }
        Ok(id)
    }

    /// An answer came.
    pub(crate) fn handle_answer(&self, header: &Header, answer: Answer, payload: Option<Incoming>) {
        let mut ledger = self.ledger.borrow_mut();
        let found = ledger.handle_answer(header.request);
        let lane = self.lane();
        lane.in_flight.store(ledger.count() as u64, Ordering::Relaxed);
        // Answers to calls that were given up come late; their callers have gone.
        let Some(call) = found else { return };
        if call.is_once() {
            self.session.marks.finish(self.row, ledger.lowest_once());
        }
        drop(ledger);
        self.room.notify_additional(1);
        if answer.commit.0 > 0 {
            let body = call.mutation.then_some(call.body);
            if call.announces {
                self.session.handle_announced(answer.commit);
            }
            self.session.handle_commit(header.request, answer.commit, answer.at, body);
        }
        if let Ok(reply) = &answer.result {
            self.session.held.handle_answer(call.effect, reply);
        }
        match (call.waiter, &answer.result) {
            (Some(waiter), _) => {
                if let Some(began) = waiter.began.get() {
                    self.measure(began);
                }
                // A payload nobody asked for is dropped here, and thrown away by the reading task.
                let payload = payload.filter(|_| waiter.takes_payload);
                waiter.finish(Outcome { result: answer.result, payload, leases: header.leases });
            }
            (None, Ok(reply)) if call.abandoned => self.undo(call.effect, reply),
            (None, Ok(_)) => {}
            (None, Err(errno)) => {
                tracing::debug!(id = %header.request, %errno, "a call nobody waits for was refused");
            }
        }
    }

    /// Takes back a wait for a lock; its answer says whether that was in time.
    pub(crate) fn withdraw(&self, id: RequestId) {
        if self.ledger.borrow_mut().handle_withdrawn(id) {
            // It fails only when the session has ended, which ends the wait too.
            let _ = self.begin(Call::new(NOBODY, Request::CancelWait { request: id }), None, None);
        }
    }

    /// The caller of `id` went away. What it may still get will be given back.
    pub(crate) fn abandon(&self, id: RequestId) {
        // Left waiting, it would hold the mark back for as long as the lock is held.
        self.withdraw(id);
        let mut ledger = self.ledger.borrow_mut();
        let removed = ledger.handle_abandoned(id);
        if removed.is_some_and(|call| call.is_once()) {
            self.session.marks.finish(self.row, ledger.lowest_once());
        }
        self.lane().in_flight.store(ledger.count() as u64, Ordering::Relaxed);
        drop(ledger);
        self.room.notify_additional(1);
    }

    fn undo(&self, effect: super::held::Effect, reply: &Reply) {
        if let Some(request) = effect.undo(reply)
            && let Err(errno) = self.begin(Call::new(NOBODY, request), None, None)
        {
            tracing::warn!(%errno, "what an interrupted call was given could not be given back");
        }
    }

    fn measure(&self, began: Instant) {
        let micros = flexfs_uring::clock::now().duration_since(began).as_micros();
        let sample = u64::try_from(micros).unwrap_or(u64::MAX);
        let rtt = &self.lane().rtt_us;
        let before = rtt.load(Ordering::Relaxed);
        // Weighted like TCP's (RFC 6298): seven parts of before, one of now.
        let after = if before == 0 { sample } else { before - before / 8 + sample / 8 };
        rtt.store(after, Ordering::Relaxed);
    }

    // ---- the connection's side

    /// The connection stands. Calls are first taken through what the session went through meanwhile.
    pub(crate) fn set_up(&self) {
        for turn in self.session.turns_since(self.era.get()) {
            self.era.set(self.era.get() + 1);
            let mut ledger = self.ledger.borrow_mut();
            let ended = match turn {
                Turn::Recovered => ledger.handle_recovered(self.era.get()),
                Turn::Lost { commits_lost, .. } => ledger.handle_lost(commits_lost, self.era.get()),
            };
            drop(ledger);
            self.finish(ended);
        }
        self.ledger.borrow_mut().handle_broken();
        self.failing.set(false);
        self.up.set(true);
        self.session.handle_up();
    }

    /// The connection is gone.
    pub(crate) fn set_down(&self) {
        if self.up.replace(false) {
            self.session.handle_down();
        }
    }

    /// The server has been away for longer than a soft mount waits.
    pub(crate) fn time_out(&self) {
        self.failing.set(true);
        let ended = self.ledger.borrow_mut().handle_timed_out();
        self.finish(ended);
    }

    /// Nothing will be answered any more.
    pub(crate) fn die(&self, errno: Errno) {
        let ended = self.ledger.borrow_mut().handle_dead(errno);
        self.finish(ended);
        self.room.notify(usize::MAX);
    }

    fn finish(&self, ended: Vec<Ended<Rc<Waiter>>>) {
        let ledger = self.ledger.borrow();
        self.session.marks.finish(self.row, ledger.lowest_once());
        drop(ledger);
        for Ended { waiter, result } in ended {
            waiter.finish(Outcome { result, payload: None, leases: Leases::NONE });
        }
    }

    /// Remembers whom to wake when there is something to send.
    pub(crate) fn register_sender(&self, waker: &Waker) {
        let mut sender = self.sender.borrow_mut();
        if !sender.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *sender = Some(waker.clone());
        }
    }

    /// Holds calls back, as long as the result is kept.
    pub(crate) fn hold(&self, hold: Hold) -> Held<'_> {
        self.held.set(Some(hold));
        Held(self)
    }

    /// Whether all that is to be sent may wait for more.
    pub(crate) fn holds_back(&self) -> bool {
        self.held.get().is_some_and(|hold| {
            self.ledger.borrow().may_wait(hold.most) && flexfs_uring::clock::now() < hold.until
        })
    }

    fn wake_sender(&self) {
        let sender = self.sender.borrow_mut().take();
        if let Some(sender) = sender {
            sender.wake();
        }
    }
}
