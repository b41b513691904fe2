//! The locks held on one inode: conflicts, and how a new one changes the owner's old ones.

use flexfs_wire::id::SessionId;
use flexfs_wire::message::{Lock, LockFamily, LockKind};

/// Who holds or wants a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pub(crate) session: SessionId,
    pub(crate) family: LockFamily,
    pub(crate) owner: u64,
}

/// A lock on `start ..= end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) owner: Owner,
    pub(crate) is_write: bool,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) pid: u32,
}

impl Held {
    pub(crate) fn new(session: SessionId, lock: &Lock) -> Self {
        let (start, end) = match lock.family {
            LockFamily::Posix => (lock.start, lock.end),
            LockFamily::Flock => (0, u64::MAX),
        };
        let owner = Owner { session, family: lock.family, owner: lock.owner };
        Self { owner, is_write: lock.kind == LockKind::Write, start, end, pid: lock.pid }
    }

    pub(crate) fn lock(&self) -> Lock {
        Lock {
            family: self.owner.family,
            kind: if self.is_write { LockKind::Write } else { LockKind::Read },
            owner: self.owner.owner,
            pid: self.pid,
            start: self.start,
            end: self.end,
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }
}

/// Locks that keep `wanted` from being taken, lowest first.
pub(crate) fn blockers<'a>(held: &'a [Held], wanted: &'a Held) -> impl Iterator<Item = &'a Held> {
    held.iter().filter(|held| {
        held.owner.family == wanted.owner.family
            && held.owner != wanted.owner
            && (held.is_write || wanted.is_write)
            && held.overlaps(wanted)
    })
}

pub(crate) fn has_conflict(held: &[Held], wanted: &Held) -> bool {
    blockers(held, wanted).next().is_some()
}

/// Makes `new` the only lock of its owner on its range (`insert`), or leaves none there. Old ones are cut, split, and
/// joined with the new one where they touch and are alike. `held` stays in the order of `start`.
pub(crate) fn replace(held: &mut Vec<Held>, new: &Held, insert: bool) {
    let mut joined = *new;
    let mut pieces = Vec::new();
    held.retain(|old| {
        if old.owner != new.owner {
            return true;
        }
        let touches = old.start <= new.end.saturating_add(1) && new.start <= old.end.saturating_add(1);
        if insert && old.is_write == new.is_write && touches {
            joined.start = joined.start.min(old.start);
            joined.end = joined.end.max(old.end);
            return false;
        }
        if !old.overlaps(new) {
            return true;
        }
        if old.start < new.start {
            pieces.push(Held { end: new.start - 1, ..*old });
        }
        if old.end > new.end {
            pieces.push(Held { start: new.end + 1, ..*old });
        }
        false
    });
    if insert {
        pieces.push(joined);
    }
    for piece in pieces {
        let index = held.partition_point(|other| other.start <= piece.start);
        held.insert(index, piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(owner: u64, is_write: bool, start: u64, end: u64) -> Held {
        let owner = Owner { session: SessionId(1), family: LockFamily::Posix, owner };
        Held { owner, is_write, start, end, pid: 0 }
    }

    #[test]
    fn ranges_are_cut_split_and_joined() {
        let mut table = Vec::new();
        replace(&mut table, &held(1, true, 0, 99), true);
        replace(&mut table, &held(1, false, 40, 59), true);
        assert_eq!(table, [held(1, true, 0, 39), held(1, false, 40, 59), held(1, true, 60, 99)]);
        replace(&mut table, &held(1, true, 40, 59), true);
        assert_eq!(table, [held(1, true, 0, 99)]);
        replace(&mut table, &held(1, true, 100, u64::MAX), true);
        assert_eq!(table, [held(1, true, 0, u64::MAX)]);
        replace(&mut table, &held(1, true, 10, 19), false);
        assert_eq!(table, [held(1, true, 0, 9), held(1, true, 20, u64::MAX)]);
        replace(&mut table, &held(2, true, 0, u64::MAX), false);
        assert_eq!(table.len(), 2);
        replace(&mut table, &held(1, true, 0, u64::MAX), false);
        assert!(table.is_empty());
    }

    #[test]
    fn every_byte_is_as_the_last_call_said() {
        // Against an array: each cell says what the owner has there.
        let mut seed = 1u64;
        let mut random = move |bound: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % bound
        };
        let mut table = Vec::new();
        let mut cells = [0u8; 32];
        for _ in 0..2_000 {
            let start = random(32);
            let end = start + random(32 - start);
            let kind = random(3);
            replace(&mut table, &held(1, kind == 2, start, end), kind > 0);
            for cell in &mut cells[usize::try_from(start).unwrap()..=usize::try_from(end).unwrap()] {
                *cell = u8::try_from(kind).unwrap();
            }
            for (index, cell) in cells.iter().enumerate() {
                let at = index as u64;
                let found: Vec<u8> = table
                    .iter()
                    .filter(|held| held.start <= at && at <= held.end)
                    .map(|held| 1 + u8::from(held.is_write))
                    .collect();
                assert_eq!(found, if *cell == 0 { vec![] } else { vec![*cell] });
            }
            for pair in table.windows(2) {
                assert!(pair[0].end < pair[1].start, "sorted, not overlapping");
                assert!(pair[0].end + 1 < pair[1].start || pair[0].is_write != pair[1].is_write, "joined");
            }
        }
    }
}
