//! The calls of one link, without I/O: which wait to be sent, which wait for an answer, what happens to them when the
//! link breaks, the server comes back, or the session is lost.
//!
//! `handle_*` takes what happened, `poll_*` gives what is to be done. `W` is what a caller waits on; the ledger only
//! keeps it.
//!
//! ```text
//! handle_call -> queue -> poll_send -> sent -> handle_answer -> (gone)
//!                  ^                     |
//!                  +---- handle_broken --+         all of them, in order of id
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use flexfs_wire::errno::Errno;
use flexfs_wire::id::RequestId;
use flexfs_wire::message::{Reply, Request};

use super::held::Effect;

/// What becomes of a call whose session is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Sent anew in the next session: it changes nothing, or nothing that the end of the old session did not undo.
    Resend,
    /// The end of the session did it already: answered `Done`.
    Done,
    /// It may or may not have been done, or names numbers granted to the old session: `ESTALE`.
    Unknown,
    /// Asks for durability of the old session's commits: the session decides.
    Sync,
    /// Was for the old session only.
    Drop,
}

impl Fate {
    fn of(request: &Request) -> Self {
        match request {
            Request::Close { .. } | Request::Unlock { .. } => Self::Done,
            Request::Heartbeat
            | Request::CancelWait { .. }
            | Request::Leave
            | Request::Recalled { .. }
            | Request::GiveBack { .. }
            | Request::DropLeases { .. } => Self::Drop,
            Request::Sync { .. } => Self::Sync,
            Request::PutBlock { .. } => Self::Unknown,
            request if request.is_mutation() => Self::Unknown,
            _ => Self::Resend,
        }
    }
}

/// A call that has no answer yet.
#[derive(Debug)]
pub(crate) struct Pending<W> {
    /// Encoded `Call`.
    pub(crate) body: Vec<u8>,
    /// Raw bytes behind the body.
    pub(crate) payload: Option<Arc<Vec<u8>>>,
    /// Kept for replay once answered.
    pub(crate) mutation: bool,
    /// The server says at once when what it answers is durable.
    pub(crate) announces: bool,
    once: bool,
    fate: Fate,
    /// The session's era it was made in: turns before it do not concern it.
    era: u64,
    sent: bool,
    /// Waits for a lock, and was not taken back.
    waits: bool,
    /// The session's goodbye.
    goodbye: bool,
    /// Its caller went away.
    pub(crate) abandoned: bool,
    /// What an answer changes in what the session holds.
    pub(crate) effect: Effect,
    /// Nobody waits for it who would not say so (`Behind::hurry`): it may wait a moment for others to go out with.
    pub(crate) lazy: bool,
    /// Who waits; `None` when nobody does (any more).
    pub(crate) waiter: Option<W>,
}

impl<W> Pending<W> {
    /// A call.
    pub(crate) fn new(
        request: &Request,
        body: Vec<u8>,
        payload: Option<Arc<Vec<u8>>>,
        era: u64,
        waiter: Option<W>,
    ) -> Self {
        Self {
            body,
            payload,
            mutation: request.is_mutation(),
            announces: matches!(request, Request::Write { write, .. } if write.awaited),
            once: request.is_once(),
            fate: Fate::of(request),
            era,
            sent: false,
            goodbye: matches!(request, Request::Leave),
            waits: matches!(request, Request::Lock { wait: true, .. }),
            abandoned: false,
            effect: Effect::of(request),
            lazy: matches!(request, Request::Write { .. } | Request::Close { .. } | Request::GiveBack { .. }),
            waiter,
        }
    }

    /// Whether the server remembers its answer.
    pub(crate) fn is_once(&self) -> bool {
        self.once
    }
}

/// A call that ended without the server.
#[derive(Debug)]
pub(crate) struct Ended<W> {
    /// Its waiter.
    pub(crate) waiter: W,
    /// Its outcome.
    pub(crate) result: Result<Reply, Errno>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Ledger<W> {
    pending: BTreeMap<RequestId, Pending<W>>,
    /// Ids of calls the server remembers.
    once: BTreeSet<RequestId>,
    queue: VecDeque<RequestId>,
    /// Of those in the queue, lazy ones.
    lazy: usize,
}

impl<W> Default for Ledger<W> {
    fn default() -> Self {
        Self { pending: BTreeMap::new(), once: BTreeSet::new(), queue: VecDeque::new(), lazy: 0 }
    }
}

impl<W> Ledger<W> {
    /// A new call. Ids of one link ascend.
    pub(crate) fn handle_call(&mut self, id: RequestId, call: Pending<W>) {
        if call.once {
            self.once.insert(id);
        }
        self.lazy += usize::from(call.lazy);
        self.pending.insert(id, call);
        self.queue.push_back(id);
    }

    /// The next call to send.
    pub(crate) fn poll_send(&mut self) -> Option<(RequestId, &Pending<W>)> {
        while let Some(id) = self.queue.pop_front() {
            // Calls that were withdrawn are still in the queue.
            if let Some(call) = self.pending.get_mut(&id) {
                self.lazy = self.lazy.saturating_sub(usize::from(call.lazy));
                call.sent = true;
                return self.pending.get(&id).map(|call| (id, call));
            }
        }
        // Withdrawn ones were counted.
        self.lazy = 0;
        None
    }

    /// The answer came. `None` when nobody knows the id: its caller has gone, or it was answered before.
    pub(crate) fn handle_answer(&mut self, id: RequestId) -> Option<Pending<W>> {
        self.once.remove(&id);
        self.pending.remove(&id)
    }

    /// A wait for a lock is to be taken back. True when the server has to be told: it may know the wait, and was not told.
    pub(crate) fn handle_withdrawn(&mut self, id: RequestId) -> bool {
        self.pending.get_mut(&id).is_some_and(|call| call.sent && std::mem::take(&mut call.waits))
    }

    /// The caller no longer waits. A call that changes something and may have reached the server goes on, and so does one
    /// that gives something back; others end here.
    pub(crate) fn handle_abandoned(&mut self, id: RequestId) -> Option<Pending<W>> {
        let call = self.pending.get_mut(&id)?;
        if call.once && (call.sent || call.fate == Fate::Done) {
            call.waiter = None;
            call.abandoned = true;
            return None;
        }
        self.handle_answer(id)
    }

    /// The link broke: everything is to be sent again, in order of id.
    pub(crate) fn handle_broken(&mut self) {
        self.queue = self.pending.keys().copied().collect();
        // After a break nothing is held back.
        self.pending.values_mut().for_each(|call| call.lazy = false);
        self.lazy = 0;
    }

    /// The server came back and all that was ever answered is durable: that is what a `Sync` waits for. Its `up_to` is a
    /// commit of the old epoch, which the new one may never reach. `era` is the one that begins.
    pub(crate) fn handle_recovered(&mut self, era: u64) -> Vec<Ended<W>> {
        self.end(|call| (call.fate == Fate::Sync && call.era < era).then_some(Ok(Reply::Done)))
    }

    /// The session is lost, and with it what its commits were when `commits_lost`. `era` is the one that begins.
    pub(crate) fn handle_lost(&mut self, commits_lost: bool, era: u64) -> Vec<Ended<W>> {
        self.end(|call| match call.fate {
            _ if call.era >= era => None,
            Fate::Resend => None,
            Fate::Done | Fate::Drop => Some(Ok(Reply::Done)),
            Fate::Unknown => Some(Err(Errno::ESTALE)),
            Fate::Sync if commits_lost => Some(Err(Errno::EIO)),
            Fate::Sync => None,
        })
    }

    /// Nothing will be answered any more.
    pub(crate) fn handle_dead(&mut self, errno: Errno) -> Vec<Ended<W>> {
        let ended = self.end(|_| Some(Err(errno)));
        self.queue.clear();
        ended
    }

    /// The server has been away for too long (soft mount): calls end, those that may have been done go on unseen.
    pub(crate) fn handle_timed_out(&mut self) -> Vec<Ended<W>> {
        let ids: Vec<RequestId> = self.pending.keys().copied().collect();
        let mut ended = Vec::new();
        for id in ids {
            let waiter = self.pending.get_mut(&id).and_then(|call| call.waiter.take());
            let _ = self.handle_abandoned(id);
            ended.extend(waiter.map(|waiter| Ended { waiter, result: Err(Errno::ETIMEDOUT) }));
        }
        ended
    }

    /// The lowest id the server must not forget yet.
    pub(crate) fn lowest_once(&self) -> Option<RequestId> {
        self.once.first().copied()
    }

    /// Calls without an answer.
    pub(crate) fn count(&self) -> usize {
        self.pending.len()
    }

    /// Whether the goodbye has no answer.
    pub(crate) fn awaits_goodbye(&self) -> bool {
        self.pending.values().any(|call| call.goodbye)
    }

    /// Whether something is to be sent.
    pub(crate) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether all that is to be sent are calls that may wait, fewer than `most` of them.
    pub(crate) fn may_wait(&self, most: usize) -> bool {
        // What was withdrawn is still in the queue, and counts on both sides or as urgent.
        self.queue.len() == self.lazy && self.lazy < most
    }

    fn end(&mut self, judge: impl Fn(&Pending<W>) -> Option<Result<Reply, Errno>>) -> Vec<Ended<W>> {
        let judged: Vec<_> =
            self.pending.iter().filter_map(|(id, call)| judge(call).map(|result| (*id, result))).collect();
        let mut ended = Vec::with_capacity(judged.len());
        for (id, result) in judged {
            let waiter = self.handle_answer(id).and_then(|call| call.waiter);
            ended.extend(waiter.map(|waiter| Ended { waiter, result }));
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flexfs_wire::id::{BlockId, Commit, Ino};
    use flexfs_wire::message::{Lock, LockFamily, LockKind};
    use flexfs_wire::name::Name;
    use flexfs_wire::seal::Node;

    fn node() -> Node {
        Node { ino: Ino(5), seal: 0 }
    }
    fn read() -> Request {
        Request::GetAttr { node: node() }
    }
    fn remove() -> Request {
        Request::Remove { parent: node(), name: Name::new(b"x").unwrap(), dir: false }
    }
    fn close() -> Request {
        Request::Close { node: node(), count: 1 }
    }

    fn ledger(requests: &[Request]) -> Ledger<u64> {
        let mut ledger = Ledger::default();
        for (id, request) in (1..).zip(requests) {
            ledger.handle_call(RequestId(id), Pending::new(request, Vec::new(), None, 0, Some(id)));
        }
        ledger
    }

    fn sends(ledger: &mut Ledger<u64>) -> Vec<u64> {
        std::iter::from_fn(|| ledger.poll_send().map(|(id, _)| id.0)).collect()
    }

    fn results(ended: Vec<Ended<u64>>) -> Vec<(u64, Result<Reply, Errno>)> {
        ended.into_iter().map(|ended| (ended.waiter, ended.result)).collect()
    }

    #[test]
    fn what_nobody_waits_for_may_wait_until_there_are_many_or_something_urgent() {
        let mut lazy = ledger(&[close(), close()]);
        assert!(lazy.may_wait(3) && !lazy.may_wait(2));
        lazy.handle_call(RequestId(3), Pending::new(&read(), Vec::new(), None, 0, Some(3)));
        assert!(!lazy.may_wait(10));
        assert_eq!(sends(&mut lazy), [1, 2, 3]);
        lazy.handle_call(RequestId(4), Pending::new(&close(), Vec::new(), None, 0, Some(4)));
        assert!(lazy.may_wait(10), "only what is not sent counts");
        lazy.handle_broken();
        assert!(!lazy.may_wait(10), "all of it was kept for long");
        assert_eq!(sends(&mut lazy), [1, 2, 3, 4]);
        lazy.handle_call(RequestId(5), Pending::new(&close(), Vec::new(), None, 0, Some(5)));
        assert!(lazy.may_wait(10));
    }

    #[test]
    fn unanswered_calls_are_sent_again_in_order() {
        let mut ledger = ledger(&[read(), remove(), read(), close()]);
        assert_eq!(sends(&mut ledger), [1, 2, 3, 4]);
        assert!(ledger.handle_answer(RequestId(3)).is_some());
        assert!(ledger.handle_answer(RequestId(3)).is_none(), "an answer comes once");
        ledger.handle_broken();
        ledger.handle_call(RequestId(9), Pending::new(&read(), Vec::new(), None, 0, Some(9)));
        assert_eq!(sends(&mut ledger), [1, 2, 4, 9]);
        assert_eq!(ledger.lowest_once(), Some(RequestId(2)));
        ledger.handle_answer(RequestId(2));
        assert_eq!(ledger.lowest_once(), Some(RequestId(4)));
    }

    #[test]
    fn an_abandoned_mutation_goes_on_once_it_was_sent() {
        let mut ledger = ledger(&[remove(), remove(), read()]);
        assert_eq!(ledger.poll_send().unwrap().0, RequestId(1));
        assert!(ledger.handle_abandoned(RequestId(1)).is_none());
        assert!(ledger.handle_abandoned(RequestId(2)).is_some(), "was never sent");
        assert!(ledger.handle_abandoned(RequestId(3)).is_some(), "changes nothing");
        assert_eq!(sends(&mut ledger), [0; 0]);
        assert_eq!(ledger.lowest_once(), Some(RequestId(1)));
        assert!(ledger.handle_answer(RequestId(1)).unwrap().waiter.is_none());
        assert_eq!(ledger.count(), 0);
    }

    #[test]
    fn what_is_given_back_is_given_back_though_its_caller_left_before_it_was_sent() {
        let mut ledger = ledger(&[close()]);
        assert!(ledger.handle_abandoned(RequestId(1)).is_none());
        assert_eq!(sends(&mut ledger), [1]);
    }

    #[test]
    fn a_wait_is_withdrawn_once_and_only_where_the_server_may_know_it() {
        let lock =
            Lock { family: LockFamily::Flock, kind: LockKind::Read, owner: 1, pid: 1, start: 0, end: 9 };
        let wait = |wait| Request::Lock { node: node(), lock, wait };
        let mut ledger = ledger(&[wait(true), wait(false)]);
        assert!(!ledger.handle_withdrawn(RequestId(1)));
        sends(&mut ledger);
        assert!(ledger.handle_withdrawn(RequestId(1)) && !ledger.handle_withdrawn(RequestId(1)));
        assert!(!ledger.handle_withdrawn(RequestId(2)) && !ledger.handle_withdrawn(RequestId(7)));
    }

    #[test]
    fn recovery_answers_syncs_and_nothing_else() {
        let mut ledger = ledger(&[Request::Sync { up_to: Commit(7) }, remove(), read()]);
        sends(&mut ledger);
        assert_eq!(results(ledger.handle_recovered(1)), [(1, Ok(Reply::Done))]);
        ledger.handle_broken();
        assert_eq!(sends(&mut ledger), [2, 3]);
    }

    #[test]
    fn a_lost_session_leaves_no_call_in_doubt() {
        let requests = [
            read(),
            remove(),
            close(),
            Request::Sync { up_to: Commit(7) },
            Request::PutBlock { block: BlockId(3) },
            Request::Open { node: node(), write: true, truncate: false, kill_privileges: false },
            Request::Heartbeat,
        ];
        let mut ledger = ledger(&requests);
        sends(&mut ledger);
        let newer = Pending::new(&remove(), Vec::new(), None, 1, Some(9));
        ledger.handle_call(RequestId(9), newer);
        assert_eq!(
            results(ledger.handle_lost(true, 1)),
            [
                (2, Err(Errno::ESTALE)),
                (3, Ok(Reply::Done)),
                (4, Err(Errno::EIO)),
                (5, Err(Errno::ESTALE)),
                (7, Ok(Reply::Done))
            ]
        );
        ledger.handle_broken();
        assert_eq!(sends(&mut ledger), [1, 6, 9], "9 was made when the new session stood");
    }

    #[test]
    fn death_and_time_end_everything() {
        let mut dead = ledger(&[read(), remove()]);
        sends(&mut dead);
        assert_eq!(
            results(dead.handle_dead(Errno::EACCES)),
            [(1, Err(Errno::EACCES)), (2, Err(Errno::EACCES))]
        );
        assert_eq!((dead.count(), dead.lowest_once()), (0, None));
        let mut late = ledger(&[read(), remove()]);
        sends(&mut late);
        assert_eq!(late.handle_timed_out().len(), 2);
        assert_eq!(late.count(), 1, "the mutation may have been done: its answer is still awaited");
    }
}
