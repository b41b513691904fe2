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
