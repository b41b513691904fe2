//! Locks of applications: POSIX record locks and flock, over all sessions of a volume.
//!
//! As Linux does it for local file systems (`fs/locks.c`): a lock is refused or waited for because of locks that are held,
//! never because of others that wait; waiters are tried in the order they came. A flock changes its kind by being released
//! first (`flock(2)`: the conversion is not atomic). Deadlocks are looked for among record locks only, and only when a wait
//! begins. Held in memory: after a restart sessions declare what they hold.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use flexfs_wire::id::{Ino, RequestId, SessionId};
use flexfs_wire::message::{Lock, LockFamily, LockKind};

use crate::held::{Held, Owner, blockers, has_conflict, replace};

/// Most locks and waits on one inode; every call looks at all of them.
pub(crate) const LOCKS_PER_INODE_MAX: usize = 1 << 16;
/// Most inodes on which one session may have locks.
pub(crate) const LOCKED_INODES_PER_SESSION_MAX: usize = 1 << 20;

/// Locks and waits looked at in the search for one deadlock: some 0.1 ms, for the volume's thread does nothing else
/// meanwhile. Beyond it the wait begins as if there were none; Linux gives up after ten owners.
const DEADLOCK_LOOKS_MAX: usize = 100_000;

/// What became of a lock request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Granted,
    /// In the way, and it was not to wait.
    Blocked,
    /// It waits; the grant comes later.
    Waiting,
    /// Waiting would never end.
    Deadlock,
    /// No more locks.
    Full,
}

/// A wait that ended with the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) session: SessionId,
    pub(crate) request: RequestId,
}

/// The locks of a volume.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    inodes: HashMap<Ino, Table>,
    /// Inodes on which a session holds or waits for something.
    sessions: HashMap<SessionId, BTreeSet<Ino>>,
    /// Where a request waits.
    waits: HashMap<(SessionId, RequestId), Ino>,
    /// Inodes on which an owner waits: the edges for the search of deadlocks.
    waiting_owners: HashMap<Owner, Vec<Ino>>,
    held: u64,
}

#[derive(Debug, Default)]
struct Table {
    held: Vec<Held>,
    waiting: VecDeque<Waiter>,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    wanted: Held,
    request: RequestId,
}

impl Locks {
    /// Takes, changes or releases a lock whose range is in order (`start <= end`).
    pub(crate) fn lock(
        &mut self,
        ino: Ino,
        session: SessionId,
        request: RequestId,
        lock: &Lock,
        wait: bool,
    ) -> (Taken, Vec<Grant>) {
        let wanted = Held::new(session, lock);
        if lock.kind == LockKind::Unlock {
            return (Taken::Granted, self.release(ino, &wanted));
        }
        let full = self.inodes.get(&ino).is_some_and(|table| table.len() >= LOCKS_PER_INODE_MAX)
            || self
                .sessions
                .get(&session)
                .is_some_and(|inodes| inodes.len() >= LOCKED_INODES_PER_SESSION_MAX);
        if full {
            return (Taken::Full, Vec::new());
        }
        let mut grants = Vec::new();
        let mine = |held: &&Held| held.owner == wanted.owner;
        let is_conversion = lock.family == LockFamily::Flock
            && self
                .inodes
                .get(&ino)
                .and_then(|table| table.held.iter().find(mine))
                .is_some_and(|held| held.is_write != wanted.is_write);
        if is_conversion {
            grants = self.release(ino, &wanted);
        }
        if !has_conflict(&self.table(ino).held, &wanted) {
            self.take(ino, &wanted);
            // Going down from exclusive to shared lets others in.
            grants.extend(self.wake(ino));
            return (Taken::Granted, grants);
        }
        let taken = if !wait {
            Taken::Blocked
        } else if lock.family == LockFamily::Posix && self.would_deadlock(ino, &wanted) {
            Taken::Deadlock
        } else {
            self.table(ino).waiting.push_back(Waiter { wanted, request });
            self.waits.insert((session, request), ino);
            self.waiting_owners.entry(wanted.owner).or_default().push(ino);
            self.sessions.entry(session).or_default().insert(ino);
            Taken::Waiting
        };
        self.tidy(ino, session);
        (taken, grants)
    }

    /// The first lock that is in the way, kind `Unlock` if none (`F_GETLK`).
    pub(crate) fn test(&self, ino: Ino, session: SessionId, lock: &Lock) -> Lock {
        let wanted = Held::new(session, lock);
        let blocker = self.inodes.get(&ino).and_then(|table| blockers(&table.held, &wanted).next());
        blocker.map_or(Lock { kind: LockKind::Unlock, ..*lock }, Held::lock)
    }

    /// Releases all an owner has on an inode. Its waits go on.
    pub(crate) fn unlock_owner(
        &mut self,
        ino: Ino,
        session: SessionId,
        family: LockFamily,
        owner: u64,
    ) -> Vec<Grant> {
        let all = Lock { family, kind: LockKind::Unlock, owner, pid: 0, start: 0, end: u64::MAX };
        self.release(ino, &Held::new(session, &all))
    }

    /// Ends a wait. `None` when the request does not wait.
    pub(crate) fn cancel(&mut self, session: SessionId, request: RequestId) -> Option<Vec<Grant>> {
        let ino = self.waits.remove(&(session, request))?;
        let waiting = &mut self.table(ino).waiting;
        let index = waiting
            .iter()
            .position(|waiter| waiter.request == request && waiter.wanted.owner.session == session)?;
        let waiter = waiting.remove(index)?;
        self.forget_wait(waiter.wanted.owner, ino);
        self.tidy(ino, session);
        // Nobody waits for a waiter, so nobody is let in.
        Some(Vec::new())
    }

    pub(crate) fn is_waiting(&self, session: SessionId, request: RequestId) -> bool {
        self.waits.contains_key(&(session, request))
    }

    /// The session is over: its locks and waits are gone.
    pub(crate) fn end(&mut self, session: SessionId) -> Vec<Grant> {
        let mut grants = Vec::new();
        for ino in self.sessions.remove(&session).unwrap_or_default() {
            let table = self.table(ino);
            let before = table.held.len();
            table.held.retain(|held| held.owner.session != session);
            let released = (before - table.held.len()) as u64;
            let gone: Vec<Waiter> = table
                .waiting
                .iter()
                .filter(|waiter| waiter.wanted.owner.session == session)
                .copied()
                .collect();
            table.waiting.retain(|waiter| waiter.wanted.owner.session != session);
            self.held -= released;
            for waiter in gone {
                self.waits.remove(&(session, waiter.request));
                self.forget_wait(waiter.wanted.owner, ino);
            }
            grants.extend(self.wake(ino));
        }
        grants
    }

    /// Puts back a lock that a session says it holds. What conflicts with another's claim is dropped; the first one wins.
    pub(crate) fn declare(&mut self, ino: Ino, session: SessionId, lock: &Lock) -> bool {
        let wanted = Held::new(session, lock);
        if lock.kind == LockKind::Unlock || has_conflict(&self.table(ino).held, &wanted) {
            self.tidy(ino, session);
            return false;
        }
        self.take(ino, &wanted);
        true
    }

    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    pub(crate) fn waits(&self) -> u64 {
        self.waits.len() as u64
    }

    fn table(&mut self, ino: Ino) -> &mut Table {
        self.inodes.entry(ino).or_default()
    }

    fn take(&mut self, ino: Ino, wanted: &Held) {
        let held = &mut self.table(ino).held;
        let before = held.len() as u64;
        replace(held, wanted, true);
        let after = held.len() as u64;
        self.held = self.held + after - before;
        self.sessions.entry(wanted.owner.session).or_default().insert(ino);
    }

    fn release(&mut self, ino: Ino, range: &Held) -> Vec<Grant> {
        let Some(table) = self.inodes.get_mut(&ino) else { return Vec::new() };
        let before = table.held.len() as u64;
        replace(&mut table.held, range, false);
        let after = table.held.len() as u64;
        self.held = self.held + after - before;
        let grants = self.wake(ino);
        self.tidy(ino, range.owner.session);
        grants
    }

    /// Lets in who can be let in, in the order they came.
    fn wake(&mut self, ino: Ino) -> Vec<Grant> {
        let mut grants = Vec::new();
        while let Some(table) = self.inodes.get_mut(&ino) {
            let free = |waiter: &Waiter| !has_conflict(&table.held, &waiter.wanted);
            let Some(waiter) =
                table.waiting.iter().position(free).and_then(|index| table.waiting.remove(index))
            else {
                break;
            };
            let session = waiter.wanted.owner.session;
            self.waits.remove(&(session, waiter.request));
            self.forget_wait(waiter.wanted.owner, ino);
            self.take(ino, &waiter.wanted);
            grants.push(Grant { session, request: waiter.request });
        }
        if self.inodes.get(&ino).is_some_and(Table::is_empty) {
            self.inodes.remove(&ino);
        }
        grants
    }

    /// Whether an owner that would wait is waited for by those it would wait for.
    fn would_deadlock(&self, ino: Ino, wanted: &Held) -> bool {
        let mut seen = HashSet::new();
        let mut open: Vec<Owner> = Vec::new();
        let mut looks = 0;
        if let Some(table) = self.inodes.get(&ino) {
            open.extend(blockers(&table.held, wanted).map(|held| held.owner));
        }
        while let Some(owner) = open.pop() {
            if owner == wanted.owner {
                return true;
            }
            if !seen.insert(owner) {
                continue;
            }
            for ino in self.waiting_owners.get(&owner).into_iter().flatten() {
                let Some(table) = self.inodes.get(ino) else { continue };
                looks += table.len();
                if looks > DEADLOCK_LOOKS_MAX {
                    return false;
                }
                for waiter in table.waiting.iter().filter(|waiter| waiter.wanted.owner == owner) {
                    open.extend(blockers(&table.held, &waiter.wanted).map(|held| held.owner));
                }
            }
        }
        false
    }

    fn forget_wait(&mut self, owner: Owner, ino: Ino) {
        let Some(inodes) = self.waiting_owners.get_mut(&owner) else { return };
        if let Some(index) = inodes.iter().position(|other| *other == ino) {
            inodes.swap_remove(index);
        }
        if inodes.is_empty() {
            self.waiting_owners.remove(&owner);
        }
    }

    /// Forgets what is empty.
    fn tidy(&mut self, ino: Ino, session: SessionId) {
        let table = self.inodes.get(&ino);
        if table.is_some_and(|table| table.concerns(session)) {
            return;
        }
        if table.is_some_and(Table::is_empty) {
            self.inodes.remove(&ino);
        }
        if let Some(inodes) = self.sessions.get_mut(&session) {
            inodes.remove(&ino);
            if inodes.is_empty() {
                self.sessions.remove(&session);
            }
        }
    }
}

impl Table {
    fn len(&self) -> usize {
        self.held.len() + self.waiting.len()
    }
    fn is_empty(&self) -> bool {
        self.held.is_empty() && self.waiting.is_empty()
    }
    fn concerns(&self, session: SessionId) -> bool {
        self.held.iter().any(|held| held.owner.session == session)
            || self.waiting.iter().any(|waiter| waiter.wanted.owner.session == session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: SessionId = SessionId(1);
    const TWO: SessionId = SessionId(2);
    const INO: Ino = Ino(7);

    fn posix(owner: u64, kind: LockKind, start: u64, end: u64) -> Lock {
        Lock { family: LockFamily::Posix, kind, owner, pid: 1, start, end }
    }

    fn flock(owner: u64, kind: LockKind) -> Lock {
        Lock { family: LockFamily::Flock, kind, owner, pid: 1, start: 0, end: 0 }
    }

    struct Test(Locks, u64);

    impl Test {
        fn new() -> Self {
            Self(Locks::default(), 0)
        }
        /// Takes a lock and wants it to wait if need be; gives the request id and what became of it.
        fn wait(&mut self, ino: Ino, session: SessionId, lock: Lock) -> (RequestId, Taken) {
            self.1 += 1;
            let request = RequestId(self.1);
            let (taken, grants) = self.0.lock(ino, session, request, &lock, true);
            assert_eq!(grants, []);
            (request, taken)
        }
        fn try_lock(&mut self, session: SessionId, lock: Lock) -> (Taken, Vec<RequestId>) {
            let (taken, grants) = self.0.lock(INO, session, RequestId(0), &lock, false);
            (taken, grants.iter().map(|grant| grant.request).collect())
        }
    }

    use LockKind::{Read, Unlock, Write};

    #[test]
    fn readers_share_writers_do_not() {
        let mut t = Test::new();
        assert_eq!(t.try_lock(ONE, posix(1, Read, 0, 9)).0, Taken::Granted);
        assert_eq!(t.try_lock(TWO, posix(1, Read, 5, 20)).0, Taken::Granted);
        assert_eq!(
            t.try_lock(ONE, posix(1, Write, 0, 4)).0,
            Taken::Granted,
            "an upgrade where nobody else is"
        );
        assert_eq!(t.try_lock(ONE, posix(1, Write, 0, 5)).0, Taken::Blocked);
        assert_eq!(t.try_lock(TWO, posix(1, Read, 4, 4)).0, Taken::Blocked);
        assert_eq!(t.0.test(INO, TWO, &posix(1, Write, 0, 100)), posix(1, Write, 0, 4));
        assert_eq!(t.0.test(INO, ONE, &posix(1, Write, 21, 100)).kind, Unlock);
        assert_eq!(t.try_lock(ONE, flock(1, Write)).0, Taken::Granted, "families do not see each other");
        assert_eq!(t.0.held(), 4);
    }

    #[test]
    fn waiters_come_in_the_order_they_came() {
        let mut t = Test::new();
        t.try_lock(ONE, posix(1, Write, 0, 99));
        let (first, taken) = t.wait(INO, TWO, posix(1, Read, 0, 9));
        assert_eq!(taken, Taken::Waiting);
        let (second, _) = t.wait(INO, TWO, posix(2, Write, 5, 5));
        let (third, _) = t.wait(INO, TWO, posix(3, Read, 0, 3));
        let (fourth, _) = t.wait(INO, ONE, posix(2, Write, 50, 60));
        assert_eq!(t.try_lock(ONE, posix(1, Unlock, 0, 9)).1, [first, third]);
        assert_eq!(t.try_lock(ONE, posix(1, Read, 10, 99)).1, [], "a reader still keeps the writer out");
        assert_eq!(
            t.0.unlock_owner(INO, ONE, LockFamily::Posix, 1),
            [Grant { session: ONE, request: fourth }]
        );
        assert_eq!(t.try_lock(TWO, posix(1, Unlock, 5, 5)).1, [second]);
        assert_eq!(t.0.waits(), 0);
        t.0.end(ONE);
        t.0.end(TWO);
        assert_eq!(t.0.held(), 0);
        assert!(t.0.inodes.is_empty() && t.0.sessions.is_empty() && t.0.waiting_owners.is_empty());
    }

    #[test]
    fn only_true_deadlocks_are_refused() {
        let mut t = Test::new();
        let (a, b) = (Ino(1), Ino(2));
        assert_eq!(t.wait(a, ONE, posix(1, Write, 0, 9)).1, Taken::Granted);
        assert_eq!(t.wait(b, TWO, posix(2, Write, 0, 9)).1, Taken::Granted);
        assert_eq!(t.wait(b, ONE, posix(1, Write, 0, 9)).1, Taken::Waiting);
        assert_eq!(t.wait(a, TWO, posix(3, Write, 0, 9)).1, Taken::Waiting, "another owner may wait");
        assert_eq!(t.wait(a, TWO, posix(2, Write, 20, 29)).1, Taken::Granted, "another range is free");
        assert_eq!(t.wait(a, TWO, posix(2, Read, 5, 5)).1, Taken::Deadlock);
        // Two sessions may use one owner number.
        assert_eq!(t.wait(a, TWO, posix(1, Write, 0, 9)).1, Taken::Waiting);
        // An upgrade by two readers.
        assert_eq!(t.wait(Ino(3), ONE, posix(7, Read, 0, 0)).1, Taken::Granted);
        assert_eq!(t.wait(Ino(3), TWO, posix(7, Read, 0, 0)).1, Taken::Granted);
        assert_eq!(t.wait(Ino(3), ONE, posix(7, Write, 0, 0)).1, Taken::Waiting);
        assert_eq!(t.wait(Ino(3), TWO, posix(7, Write, 0, 0)).1, Taken::Deadlock);
    }

    /// A thousand owners, each of which waits for the one before: nobody's search goes through all of them.
    #[test]
    fn the_search_for_a_deadlock_is_bounded() {
        const OWNERS: u64 = 1000;
        let mut t = Test::new();
        for owner in 0..OWNERS {
            t.try_lock(ONE, posix(owner, Write, owner, owner));
        }
        for owner in 1..OWNERS {
            assert_eq!(t.wait(INO, ONE, posix(owner, Write, owner - 1, owner - 1)).1, Taken::Waiting);
        }
        // It would close the circle of all; one of a few is still found.
        assert_eq!(t.wait(INO, ONE, posix(0, Write, OWNERS - 1, OWNERS - 1)).1, Taken::Waiting);
        let mut t = Test::new();
        for owner in 0..5 {
            t.try_lock(ONE, posix(owner, Write, owner, owner));
        }
        for owner in 1..5 {
            assert_eq!(t.wait(INO, ONE, posix(owner, Write, owner - 1, owner - 1)).1, Taken::Waiting);
        }
        assert_eq!(t.wait(INO, ONE, posix(0, Write, 4, 4)).1, Taken::Deadlock);
    }

    #[test]
    fn waits_end_by_cancel_and_with_the_session() {
        let mut t = Test::new();
        t.try_lock(ONE, flock(1, Write));
        let (first, _) = t.wait(INO, TWO, flock(1, Write));
        let (second, _) = t.wait(INO, TWO, flock(2, Read));
        assert!(t.0.is_waiting(TWO, first));
        assert_eq!(t.0.cancel(TWO, first), Some(vec![]));
        assert_eq!(t.0.cancel(TWO, first), None);
        assert_eq!(t.0.end(ONE), [Grant { session: TWO, request: second }]);
        t.try_lock(TWO, flock(2, Unlock));
        assert!(t.0.inodes.is_empty() && t.0.sessions.is_empty() && t.0.waits.is_empty());
    }

    #[test]
    fn a_flock_changes_its_kind_by_letting_go() {
        let mut t = Test::new();
        t.try_lock(ONE, flock(1, Read));
        t.try_lock(ONE, flock(2, Read));
        let (waiter, _) = t.wait(INO, TWO, flock(3, Write));
        assert_eq!(t.try_lock(ONE, flock(1, Write)), (Taken::Blocked, vec![]));
        assert_eq!(t.0.held(), 1, "the shared one is lost, as flock(2) says");
        assert_eq!(t.try_lock(ONE, flock(2, Write)), (Taken::Blocked, vec![waiter]));
        assert_eq!(t.try_lock(TWO, flock(3, Read)).0, Taken::Granted);
        assert_eq!(t.0.held(), 1);
    }

    #[test]
    fn declared_locks_do_not_conflict() {
        let mut t = Test::new();
        assert!(t.0.declare(INO, ONE, &posix(1, Write, 0, 9)));
        assert!(!t.0.declare(INO, TWO, &posix(1, Write, 5, 20)));
        assert!(t.0.declare(INO, TWO, &posix(1, Write, 10, 20)));
        assert_eq!(t.0.held(), 2);
    }
}
