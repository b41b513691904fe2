//! Recovery of one volume after a restart, without I/O and without a clock.
//!
//! Answers to mutations do not wait for the disk; a client keeps each call until it is durable. When a server died, the
//! sessions of its table have one lease of time to come back and replay; all replays of all sessions are applied in the
//! order they were first answered in. Until then nothing else is served, so no call can come before one it followed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use flexfs_wire::id::{Commit, RequestId, SessionId};
use flexfs_wire::limits::{LEASE_MS, UNSTABLE_BYTES_MAX};
use flexfs_wire::message::Replay;

use super::message::EndOfReplay;
use crate::namespace::Rights;

/// Sessions have this long to come.
pub(crate) const WINDOW: Duration = Duration::from_millis(LEASE_MS);
/// A replay that goes on keeps the window open by this much ...
const STRETCH: Duration = Duration::from_secs(2);
/// ... but not beyond this: one slow client must not hold up a cluster.
const WINDOW_MAX: Duration = Duration::from_secs(60);
/// Replays kept in memory per volume: 10 s of 100 k calls a second.
const REPLAYS_MAX: usize = 1_000_000;
/// Memory that the replays of one session may take, bytes: twice what a client keeps of bodies, for calls take room too.
const BYTES_PER_SESSION_MAX: usize = 2 * UNSTABLE_BYTES_MAX;

/// A call to apply anew.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) session: SessionId,
    pub(crate) request: RequestId,
    pub(crate) rights: Rights,
    pub(crate) umask: u16,
    /// Bytes of its body.
    pub(crate) bytes: u32,
    pub(crate) replay: Replay,
}

impl Replayed {
    fn weight(&self) -> usize {
        size_of::<Self>() + self.bytes as usize
    }
}

/// Too much is replayed; the session cannot recover.
#[derive(Debug)]
pub(crate) struct TooMuch;

/// One volume's recovery.
#[derive(Debug)]
pub(crate) struct Recovery {
    started: Instant,
    deadline: Instant,
    /// Sessions that have not sent their end yet.
    awaited: HashSet<SessionId>,
    /// Sessions that have come back, done or not.
    present: HashSet<SessionId>,
    replays: HashMap<(SessionId, RequestId), Replayed>,
    /// What the replays of each session weigh.
    bytes: HashMap<SessionId, usize>,
    ends: Vec<EndOfReplay>,
}

/// What a recovery came to.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// Calls in the order they were first answered in.
    pub(crate) replays: Vec<Replayed>,
    /// Sessions that go on: what they hold, and who waits for the answer.
    pub(crate) ends: Vec<EndOfReplay>,
    /// Sessions that did not come, or did not finish.
    pub(crate) lost: Vec<SessionId>,
}

impl Recovery {
    /// Waits for `sessions`.
    pub(crate) fn new(sessions: impl Iterator<Item = SessionId>, now: Instant) -> Self {
        Self {
            started: now,
            deadline: now + WINDOW,
            awaited: sessions.collect(),
            present: HashSet::new(),
            replays: HashMap::new(),
            bytes: HashMap::new(),
            ends: Vec::new(),
        }
    }

    /// A session came back. False when it is not one of those waited for.
    pub(crate) fn handle_resume(&mut self, session: SessionId) -> bool {
        let known = self.awaited.contains(&session) || self.present.contains(&session);
        if known {
            self.present.insert(session);
        }
        known
    }

    /// Whether a session came back already: more links may join it.
    pub(crate) fn is_present(&self, session: SessionId) -> bool {
        self.present.contains(&session)
    }

    /// A call. The same call again (the link broke, the client began anew) takes the place of the first.
    pub(crate) fn handle_replay(&mut self, replayed: Replayed, now: Instant) -> Result<(), TooMuch> {
        let bytes = self.bytes.entry(replayed.session).or_default();
        if self.replays.len() >= REPLAYS_MAX || *bytes + replayed.weight() > BYTES_PER_SESSION_MAX {
            return Err(TooMuch);
        }
        *bytes += replayed.weight();
        if let Some(old) = self.replays.insert((replayed.session, replayed.request), replayed) {
            *bytes -= old.weight();
        }
        self.deadline = self.deadline.max(now + STRETCH).min(self.started + WINDOW_MAX);
        Ok(())
    }

    /// A session has replayed all it had. The last word counts.
    pub(crate) fn handle_end(&mut self, end: EndOfReplay) {
        self.awaited.remove(&end.session);
        self.ends.retain(|other| other.session != end.session);
        self.ends.push(end);
    }

    /// A session ended by itself or by its token.
    pub(crate) fn handle_gone(&mut self, session: SessionId) {
        self.awaited.remove(&session);
        self.present.remove(&session);
        self.ends.retain(|end| end.session != session);
    }

    /// When to look again at the latest.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether all came, or the time is over.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.awaited.is_empty() || now >= self.deadline
    }

    /// Ends it. Calls of lost sessions are applied too: they were answered, and later ones may build on them.
    pub(crate) fn finish(self) -> Recovered {
        let mut sorted: BTreeMap<(Commit, SessionId, RequestId), Replayed> = BTreeMap::new();
        for ((session, request), replayed) in self.replays {
            sorted.insert((replayed.replay.commit, session, request), replayed);
        }
        let mut lost: Vec<SessionId> = self.awaited.into_iter().collect();
        lost.sort_unstable();
        Recovered { replays: sorted.into_values().collect(), ends: self.ends, lost }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need some instant to count from")]
mod tests {
    use super::*;
    use crate::volume::{LinkKey, Stamp};
    use flexfs_wire::message::{Call, Caller, Request};
    use flexfs_wire::time::Time;

    fn call(session: u64, request: u64, commit: u64) -> Replayed {
        let call = Call::new(Caller { uid: 0, gid: 0 }, Request::StatFs);
        Replayed {
            session: SessionId(session),
            request: RequestId(request),
            rights: Rights::Client,
            umask: 0,
            bytes: 10,
            replay: Replay { commit: Commit(commit), at: Time::default(), call },
        }
    }

    fn end(session: u64, now: Instant) -> EndOfReplay {
        EndOfReplay {
            session: SessionId(session),
            link: LinkKey { core: 0, slot: 0, generation: 0 },
            request: RequestId(99),
            stamp: Stamp { started: now, kind: 0, cost: 0 },
            opens: Vec::new(),
            locks: Vec::new(),
            exclusive: Vec::new(),
        }
    }

    #[test]
    fn replays_of_a_session_are_bounded_in_bytes() {
        let now = Instant::now();
        let mut recovery = Recovery::new([1, 2].map(SessionId).into_iter(), now);
        let large = |session, request| Replayed { bytes: 1 << 20, ..call(session, request, 1) };
        let taken =
            (0..).take_while(|request| recovery.handle_replay(large(1, *request), now).is_ok()).count();
        assert!((UNSTABLE_BYTES_MAX..BYTES_PER_SESSION_MAX).contains(&(taken << 20)), "{taken}");
        // The same again takes no more, and others have their own share.
        recovery.handle_replay(call(1, 0, 1), now).unwrap();
        recovery.handle_replay(large(1, 0), now).unwrap();
        recovery.handle_replay(large(2, 0), now).unwrap();
    }

    #[test]
    fn all_replays_come_in_first_order() {
        let now = Instant::now();
        let mut recovery = Recovery::new([1, 2].map(SessionId).into_iter(), now);
        assert!(recovery.handle_resume(SessionId(1)) && recovery.handle_resume(SessionId(2)));
        assert!(!recovery.handle_resume(SessionId(3)));
        for (session, request, commit) in [(1, 5, 10), (2, 5, 12), (1, 6, 13), (2, 4, 11), (1, 5, 10)] {
            recovery.handle_replay(call(session, request, commit), now).unwrap();
        }
        recovery.handle_end(end(1, now));
        assert!(!recovery.is_over(now));
        recovery.handle_end(end(2, now));
        assert!(recovery.is_over(now));
        let recovered = recovery.finish();
        let order: Vec<u64> = recovered.replays.iter().map(|r| r.replay.commit.0).collect();
        assert_eq!(order, [10, 11, 12, 13]);
        assert!(recovered.lost.is_empty());
        assert_eq!(recovered.ends.len(), 2);
    }

    #[test]
    fn the_window_ends_and_names_the_lost() {
        let now = Instant::now();
        let mut recovery = Recovery::new([1, 2, 3].map(SessionId).into_iter(), now);
        recovery.handle_end(end(1, now));
        recovery.handle_gone(SessionId(3));
        assert!(!recovery.is_over(now + WINDOW - Duration::from_millis(1)));
        assert!(recovery.is_over(now + WINDOW));
        recovery.handle_replay(call(2, 1, 1), now + WINDOW).unwrap();
        assert!(!recovery.is_over(now + WINDOW), "a replay that goes on keeps the window open");
        for second in 0..100 {
            recovery.handle_replay(call(2, 1, 1), now + WINDOW + Duration::from_secs(second)).unwrap();
        }
        assert!(recovery.is_over(now + WINDOW_MAX));
        assert_eq!(recovery.finish().lost, [SessionId(2)]);
    }
}
