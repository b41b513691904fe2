//! Requests of limited tokens wait here, on their link, until it is their turn.
//!
//! What waits is a request that was read and not begun, the answer to a block that is stored already, whose bytes need no
//! memory meanwhile, or an answer with inline bytes of a file. A link has two queues, for requests and for bytes, so that a long transfer holds up no `stat`; of each only
//! the first asks the limiter for a turn, which so serves the links of a token in turn. What keeps a session alive, what others
//! wait for, and what ends something never waits; nor does anything while the session has a recall to answer.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use flexfs_wire::id::RequestId;
use flexfs_wire::lease::Leases;
use flexfs_wire::message::{Answer, Lock, LockKind, Reply, Request, Write};

use super::block::{self, Task};
use super::core::Core;
use super::link::Link;
use crate::blocks::Wanted;
use crate::clock;
use crate::front;
use crate::limit::{Limit, Turn};
use crate::volume::{Job, Shared, Stamp, ToVolume};

/// A turn that is so near is now: timers are no finer.
const SOON: Duration = Duration::from_millis(1);
/// How often a queue looks whether its link still stands.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Of a stored block whose answer waits so much of its bytes counts as held: an eighth. They are no memory, but who sends block
/// after block without waiting is to be stopped; sixteen of the largest, which a client has under way, are far from it.
const STORED_PART: u64 = 8;
/// What may go on waits so long for room on its link, and then looks again.
const ROOM_PAUSE: Duration = Duration::from_millis(5);

/// Something that waits.
pub(super) enum Held {
    /// A request for the volume thread.
    Job(Job),
    /// Segments to be read.
    Read(Task, Wanted),
    /// A block of so many bytes is stored; the answer waits.
    Stored(Task, u64),
    /// The answer to a request that was served: inline bytes of a file are in it, so many.
    Answered(Task, Box<Answer>, Leases, u64),
}

impl Held {
    /// What it takes of a rate; `None`: nothing ever.
    fn amount(&self, limit: Limit) -> Option<u64> {
        match (limit, self) {
            (Limit::Ops, Self::Answered(..)) => None,
            (Limit::Ops, _) => Some(1),
            (Limit::Bytes, Self::Job(job)) => match written(&job.call.request) {
                0 => None,
                bytes => Some(bytes),
            },
            // Known when they are found: taken then, for the next one to wait.
            (Limit::Bytes, Self::Read(..)) => Some(0),
            (Limit::Bytes, Self::Stored(_, bytes) | Self::Answered(.., bytes)) => Some(*bytes),
        }
    }

    fn stamp(&mut self) -> &mut Stamp {
        match self {
            Self::Job(job) => &mut job.stamp,
            Self::Read(task, _) | Self::Stored(task, _) | Self::Answered(task, ..) => &mut task.stamp,
        }
    }

    fn into_job(self) -> Option<Job> {
        match self {
            Self::Job(job) => Some(job),
            Self::Read(..) | Self::Stored(..) | Self::Answered(..) => None,
        }
    }

    /// Its turn has come.
    fn go(self, session: &Shared) {
        match self {
            Self::Job(job) => session.volume.call(ToVolume::Jobs(vec![job])),
            Self::Read(task, wanted) => front::spawn(block::read(task, wanted)),
            Self::Stored(task, _) => task.answer(Ok(Reply::Done), Vec::new(), Vec::new()),
            Self::Answered(Task { core, link, request, stamp, .. }, answer, leases, _) => {
                link.answer_with(&core, request, stamp, *answer, leases, Vec::new(), Vec::new());
            }
        }
    }
}

/// Bytes of a file that a request brings in its body.
fn written(request: &Request) -> u64 {
    match request {
        Request::Write { write: Write { inline, carried, .. }, .. } => {
            let inline = inline.as_ref().map_or(0, |inline| inline.bytes.len());
            (inline + carried.as_ref().map_or(0, |carried| carried.bytes.len())) as u64
        }
        _ => 0,
    }
}

/// Bytes of a file that an answer has in its body. Bytes of blocks are a payload.
pub(super) fn shown(answer: &Answer) -> u64 {
    match &answer.result {
        Ok(Reply::Layout(layout) | Reply::Opened { layout: Some(layout), .. }) => layout.inline.len() as u64,
        Ok(Reply::Found { layout: Some(layout), .. }) => layout.inline.len() as u64,
        Ok(Reply::Ahead { layouts, .. }) => {
            layouts.iter().map(|(_, layout)| layout.inline.len() as u64).sum()
        }
        _ => 0,
    }
}

struct Waiting {
    held: Held,
    /// Bytes of memory it takes.
    bytes: u32,
    since: Instant,
    /// When it may go, once it was asked for.
    turn: Option<Turn>,
}

/// The queues of a link.
#[derive(Default)]
pub(super) struct Pace {
    ops: RefCell<Queue>,
    bytes: RefCell<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// There is a task that serves it.
    served: bool,
}

impl std::fmt::Debug for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pace").finish_non_exhaustive()
    }
}

impl Pace {
    fn queue(&self, limit: Limit) -> &RefCell<Queue> {
        match limit {
            Limit::Ops => &self.ops,
            Limit::Bytes => &self.bytes,
        }
    }
}

/// What no limit holds back.
pub(super) fn is_free(request: &Request) -> bool {
    matches!(
        request,
        Request::Heartbeat
            | Request::Recalled { .. }
            | Request::GiveBack { .. }
            | Request::DropLeases { .. }
            | Request::Sync { .. }
            | Request::Close { .. }
            | Request::Unlock { .. }
            | Request::Lock { lock: Lock { kind: LockKind::Unlock, .. }, .. }
            | Request::CancelWait { .. }
            | Request::Leave
            // Waits when it is stored.
            | Request::PutBlock { .. }
    )
}

/// Does it when its turn comes, perhaps now. `bytes`: memory it takes.
pub(super) fn submit(core: &Rc<Core>, link: &Rc<Link>, session: &Arc<Shared>, held: Held, bytes: u32) {
    let passed = pass(core, link, session, held, bytes, Limit::Ops)
        .and_then(|held| pass(core, link, session, held, bytes, Limit::Bytes));
    if let Some(held) = passed {
        held.go(session);
    }
}

/// A block of so many bytes is stored: its answer goes when its turn comes.
pub(super) fn submit_stored(task: Task, bytes: u64) {
    let (core, link, session) = (task.core.clone(), task.link.clone(), task.session.clone());
    let held = u32::try_from(bytes / STORED_PART).unwrap_or(u32::MAX);
    submit(&core, &link, &session, Held::Stored(task, bytes), held);
}

/// A request was served, and so many bytes of a file are in its answer: it goes when their turn comes.
pub(super) fn submit_answer(task: Task, answer: Answer, leases: Leases, bytes: u64) {
    let (core, link, session) = (task.core.clone(), task.link.clone(), task.session.clone());
    let held = u32::try_from(bytes).unwrap_or(u32::MAX);
    submit(&core, &link, &session, Held::Answered(task, Box::new(answer), leases, bytes), held);
}

/// As [`submit`] for the volume thread: what may go now comes back, to be sent with others.
pub(super) fn admit(
    core: &Rc<Core>,
    link: &Rc<Link>,
    session: &Arc<Shared>,
    job: Job,
    bytes: u32,
) -> Option<Job> {
    let passed = pass(core, link, session, Held::Job(job), bytes, Limit::Ops)
        .and_then(|held| pass(core, link, session, held, bytes, Limit::Bytes))?;
    passed.into_job()
}

/// Lets pass what may pass. Else it is kept.
fn pass(
    core: &Rc<Core>,
    link: &Rc<Link>,
    session: &Arc<Shared>,
    mut held: Held,
    bytes: u32,
    limit: Limit,
) -> Option<Held> {
    let Some(amount) = held.amount(limit) else { return Some(held) };
    let now = clock::now();
    let mut queue = link.pace.queue(limit).borrow_mut();
    let mut turn = None;
    if queue.waiting.is_empty() {
        turn = session.info.limiter.reserve(limit, amount, now);
        // Reads of blocks go one after the other: what each takes is known when it is found.
        if turn.is_none_or(|turn| turn.at <= now + SOON && amount > 0) {
            return Some(held);
        }
    }
    link.hold(session, held.stamp().cost, bytes);
    queue.waiting.push_back(Waiting { held, bytes, since: now, turn });
    if !std::mem::replace(&mut queue.served, true) {
        front::spawn(serve(core.clone(), link.clone(), session.clone(), limit));
    }
    None
}

/// Takes a request out of the queue, whoever's turn it is: one that waits for a lock, so it is in no queue for bytes.
pub(super) fn take(link: &Link, session: &Shared, request: RequestId) -> Option<Job> {
    let mut queue = link.pace.ops.borrow_mut();
    let index = queue
        .waiting
        .iter()
        .position(|waiting| matches!(&waiting.held, Held::Job(job) if job.request == request))?;
    let waiting = queue.waiting.remove(index)?;
    link.unhold(session, waiting.cost(), waiting.bytes);
    waiting.held.into_job()
}

impl Waiting {
    fn cost(&self) -> u32 {
        match &self.held {
            Held::Job(job) => job.stamp.cost,
            Held::Read(task, _) | Held::Stored(task, _) | Held::Answered(task, ..) => task.stamp.cost,
        }
    }
}

/// Serves a queue until it is empty.
async fn serve(core: Rc<Core>, link: Rc<Link>, session: Arc<Shared>, limit: Limit) {
    while let Some(Waiting { held, bytes, since, .. }) = next(&link, &session, limit).await {
        if clock::now().saturating_duration_since(since) > SOON {
            core.metrics.delayed(limit);
        }
        match (limit, held) {
            (Limit::Ops, held) => {
                if let Some(held) = pass(&core, &link, &session, held, bytes, Limit::Bytes) {
                    held.go(&session);
                }
            }
            (Limit::Bytes, Held::Read(task, wanted)) => {
                if let Some((task, found)) = block::find(task, wanted).await {
                    let taken = found.bytes() as u64;
                    let _ = session.info.limiter.reserve(Limit::Bytes, taken, clock::now());
                    front::spawn(block::send(task, found));
                }
            }
            (Limit::Bytes, held) => held.go(&session),
        }
    }
}

/// Waits for the turn of the first. `None`: none is left, or the link is gone.
async fn next(link: &Link, session: &Shared, limit: Limit) -> Option<Waiting> {
    loop {
        let mut hurried = pin!(session.hurried.notified());
        // From here on nothing is missed.
        hurried.as_mut().enable();
        let now = clock::now();
        let wait = match look(link, session, limit, now) {
            Look::Go(waiting) => return Some(*waiting),
            Look::End => return None,
            Look::Wait(wait) => wait,
        };
        // Whatever ends the wait, it is looked at again.
        let _ = tokio::time::timeout(wait.min(LOOK_EVERY), hurried).await;
    }
}

enum Look {
    Go(Box<Waiting>),
    Wait(Duration),
    End,
}

fn look(link: &Link, session: &Shared, limit: Limit, now: Instant) -> Look {
    let limiter = &session.info.limiter;
    let mut queue = link.pace.queue(limit).borrow_mut();
    if link.is_closing() {
        // The client asks again on its next link.
        for waiting in queue.waiting.drain(..) {
            link.unhold(session, waiting.cost(), waiting.bytes);
            if waiting.turn.is_some_and(|turn| limiter.is_current(turn)) {
                limiter.give_back(limit, waiting.held.amount(limit).unwrap_or(0));
            }
        }
    }
    let Some(first) = queue.waiting.front_mut() else {
        queue.served = false;
        return Look::End;
    };
    if !first.turn.is_some_and(|turn| limiter.is_current(turn)) {
        first.turn = limiter.reserve(limit, first.held.amount(limit).unwrap_or(0), now);
    }
    if let Some(turn) = first.turn
        && turn.at > now + SOON
        && !session.is_recalled()
    {
        return Look::Wait(turn.at.saturating_duration_since(now));
    }
    if link.is_loaded() {
        return Look::Wait(ROOM_PAUSE);
    }
    let Some(mut waiting) = queue.waiting.pop_front() else { return Look::End };
    link.unhold(session, waiting.cost(), waiting.bytes);
    // The wait is no figure of this server's speed.
    let stamp = waiting.held.stamp();
    stamp.started += now.saturating_duration_since(waiting.since);
    Look::Go(Box::new(waiting))
}

impl Link {
    /// A request that was read waits for its turn. `cost`: see `Stamp::cost`; `bytes`: what it takes now.
    fn hold(&self, session: &Shared, cost: u32, bytes: u32) {
        self.end_cost(cost);
        self.held.set(self.held.get() + 1);
        session.held.fetch_add(bytes.into(), Ordering::Relaxed);
    }

    /// It waits no more.
    fn unhold(&self, session: &Shared, cost: u32, bytes: u32) {
        self.begin_cost(cost);
        self.held.set(self.held.get().saturating_sub(1));
        session.held.fetch_sub(bytes.into(), Ordering::Relaxed);
        self.room.notify_one();
    }
}
