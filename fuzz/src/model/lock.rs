//! Advisory locks byte by byte: `fcntl(2)` record locks (POSIX and open file description) and `flock(2)`.
//!
//! A range of cells stands for the bytes a driver uses; the last cell for all bytes behind them.

use std::collections::{BTreeMap, BTreeSet};

use flexfs_wire::message::{Lock, LockFamily, LockKind};

/// Bytes told apart.
const CELLS: usize = 24;

/// Who holds or waits: file, family, session, owner within it.
type Key = (u64, bool, u64, u64);

/// A lock that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The file.
    pub ino: u64,
    /// The session.
    pub session: u64,
    /// What is wanted.
    pub lock: Lock,
}

impl Claim {
    fn key(&self) -> Key {
        (self.ino, self.lock.family == LockFamily::Flock, self.session, self.lock.owner)
    }

    fn cells(&self) -> std::ops::Range<usize> {
        let cell = |byte: u64| usize::try_from(byte).map_or(CELLS - 1, |byte| byte.min(CELLS - 1));
        cell(self.lock.start)..cell(self.lock.end) + 1
    }
}

/// Locks held, and requests that wait by session and request number.
#[derive(Clone, Debug, Default)]
pub struct Locks {
    held: BTreeMap<Key, [Option<LockKind>; CELLS]>,
    /// What waits.
    pub waiting: BTreeMap<(u64, u64), Claim>,
}

impl Locks {
    /// Owners whose locks are in the way.
    fn blockers(&self, claim: &Claim) -> BTreeSet<Key> {
        let key = claim.key();
        let is_in_way = |held: &Option<LockKind>| match held {
            None => false,
            Some(kind) => *kind == LockKind::Write || claim.lock.kind == LockKind::Write,
        };
        let others =
            self.held.iter().filter(|(other, _)| (other.0, other.1) == (key.0, key.1) && **other != key);
        others
            .filter(|(_, cells)| cells[claim.cells()].iter().any(is_in_way))
            .map(|(other, _)| *other)
            .collect()
    }

    /// Whether nothing is in the way.
    #[must_use]
    pub fn is_free(&self, claim: &Claim) -> bool {
        claim.lock.kind == LockKind::Unlock || self.blockers(claim).is_empty()
    }

    /// Lays a lock over what its owner has.
    pub fn lay(&mut self, claim: &Claim) {
        let kind = (claim.lock.kind != LockKind::Unlock).then_some(claim.lock.kind);
        let cells = self.held.entry(claim.key()).or_insert([None; CELLS]);
        cells[claim.cells()].fill(kind);
        if cells.iter().all(Option::is_none) {
            self.held.remove(&claim.key());
        }
    }

    /// A flock of this owner in the other strength: it is given up first (`flock(2)`: conversions are not atomic).
    #[must_use]
    pub fn is_conversion(&self, claim: &Claim) -> bool {
        let held = self.held.get(&claim.key()).map(|cells| cells[0]);
        claim.lock.family == LockFamily::Flock && held.is_some_and(|kind| kind != Some(claim.lock.kind))
    }

    /// Whether a wait would never end: those in the way wait, over others, for this owner.
    #[must_use]
    pub fn would_deadlock(&self, claim: &Claim) -> bool {
        let me = claim.key();
        let same = |a: Key, b: Key| (a.1, a.2, a.3) == (b.1, b.2, b.3);
        let mut seen = BTreeSet::new();
        let mut open: Vec<Key> = self.blockers(claim).into_iter().collect();
        while let Some(at) = open.pop() {
            if same(at, me) {
                return true;
            }
            if seen.insert(at) {
                let waits = self.waiting.values().filter(|other| same(other.key(), at));
                open.extend(waits.flat_map(|other| self.blockers(other)));
            }
        }
        false
    }

    /// No two locks contradict each other, and nobody waits for what is free.
    pub fn check(&self) {
        for (key, cells) in &self.held {
            for (other, theirs) in self.held.iter().filter(|(other, _)| (other.0, other.1) == (key.0, key.1))
            {
                let clash = cells.iter().zip(theirs).any(|pair| {
                    matches!(pair, (Some(LockKind::Write), Some(_)) | (Some(_), Some(LockKind::Write)))
                });
                assert!(key == other || !clash, "{key:?} and {other:?} both hold a byte");
            }
        }
        for (request, claim) in &self.waiting {
            assert!(!self.is_free(claim), "{request:?} waits for a lock that is free: {claim:?}");
        }
    }

    /// Everything a session holds, as locks of one range each.
    #[must_use]
    pub fn of_session(&self, session: u64) -> Vec<(u64, Lock)> {
        let mut locks = Vec::new();
        for ((ino, is_flock, owner_session, owner), cells) in &self.held {
            if *owner_session != session {
                continue;
            }
            for (cell, kind) in (0u64..).zip(cells) {
                let Some(kind) = *kind else { continue };
                let family = if *is_flock { LockFamily::Flock } else { LockFamily::Posix };
                let end = if cell + 1 == CELLS as u64 { u64::MAX } else { cell };
                locks.push((*ino, Lock { family, kind, owner: *owner, pid: 1, start: cell, end }));
            }
        }
        locks
    }

    /// All of an owner's locks on a file go.
    pub fn unlock_owner(&mut self, ino: u64, session: u64, family: LockFamily, owner: u64) {
        self.held.remove(&(ino, family == LockFamily::Flock, session, owner));
    }

    /// A session's locks and waits go.
    pub fn end(&mut self, session: u64) {
        self.held.retain(|key, _| key.2 != session);
        self.waiting.retain(|key, _| key.0 != session);
    }
}
