//! Opens, and the inodes that live by them: an inode without a name dies with its last open on any session.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use flexfs_wire::id::{Ino, SessionId};

/// Most inodes one session may have open at once: some 48 MiB of memory.
pub(crate) const OPENS_PER_SESSION_MAX: usize = 1 << 20;

/// Opens counted per session and inode. In memory only: after a restart sessions declare theirs.
#[derive(Debug, Default)]
pub(crate) struct Opens {
    sessions: HashMap<SessionId, BTreeMap<Ino, u32>>,
    /// Those that were opened for writing at least once since the session had them open.
    writers: HashSet<(SessionId, Ino)>,
    totals: HashMap<Ino, u64>,
    sum: u64,
}

/// Inodes without a name. Persisted, so that they are found after a restart.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    all: BTreeSet<Ino>,
    /// Those that nobody has open: to be reclaimed.
    unused: BTreeSet<Ino>,
    /// Those that may still be opened by one who looked their name up before it went: since the last [`Orphans::age`], and
    /// since the one before.
    lingering: [BTreeSet<Ino>; 2],
}

impl Opens {
    pub(crate) fn is_open(&self, ino: Ino) -> bool {
        self.totals.contains_key(&ino)
    }

    /// Whether a session other than this one has it open.
    pub(crate) fn is_open_elsewhere(&self, session: SessionId, ino: Ino) -> bool {
        let mine = self.sessions.get(&session).and_then(|opens| opens.get(&ino)).copied().unwrap_or(0);
        self.totals.get(&ino).is_some_and(|total| *total > u64::from(mine))
    }

    /// Whether this session has it open.
    pub(crate) fn has(&self, session: SessionId, ino: Ino) -> bool {
        self.sessions.get(&session).is_some_and(|opens| opens.contains_key(&ino))
    }

    /// Whether this session has it open, and opened it for writing. Not known of opens that were declared after a restart.
    pub(crate) fn writes(&self, session: SessionId, ino: Ino) -> bool {
        self.writers.contains(&(session, ino))
    }

    /// It was opened for writing, too.
    pub(crate) fn note_writer(&mut self, session: SessionId, ino: Ino) {
        if self.has(session, ino) {
            self.writers.insert((session, ino));
        }
    }

    pub(crate) fn is_full(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|opens| opens.len() >= OPENS_PER_SESSION_MAX)
    }

    pub(crate) fn add(&mut self, session: SessionId, ino: Ino, count: u32) {
        if count == 0 {
            return;
        }
        let mine = self.sessions.entry(session).or_default().entry(ino).or_default();
        let count = count.min(u32::MAX - *mine);
        *mine += count;
        *self.totals.entry(ino).or_default() += u64::from(count);
        self.sum += u64::from(count);
    }

    /// Takes back opens, no more than there are. True when nobody has it open now.
    pub(crate) fn remove(&mut self, session: SessionId, ino: Ino, count: u32) -> bool {
        let Some(opens) = self.sessions.get_mut(&session) else { return false };
        let Some(mine) = opens.get_mut(&ino) else { return false };
        let count = count.min(*mine);
        *mine -= count;
        if *mine == 0 {
            opens.remove(&ino);
            self.writers.remove(&(session, ino));
        }
        if opens.is_empty() {
            self.sessions.remove(&session);
        }
        self.sum -= u64::from(count);
        let Some(total) = self.totals.get_mut(&ino) else { return false };
        *total -= u64::from(count);
        if *total == 0 {
            self.totals.remove(&ino);
            return true;
        }
        false
    }

    /// Takes back all of a session's; gives the inodes that nobody has open now.
    pub(crate) fn end(&mut self, session: SessionId) -> Vec<Ino> {
        let opens = self.sessions.get(&session).cloned().unwrap_or_default();
        opens
            .into_iter()
            .filter(|(ino, count)| self.remove(session, *ino, *count))
            .map(|(ino, _)| ino)
            .collect()
    }

    pub(crate) fn sum(&self) -> u64 {
        self.sum
    }
}

impl Orphans {
    pub(crate) fn insert(&mut self, ino: Ino, unused: bool) {
        self.all.insert(ino);
        if unused {
            self.unused.insert(ino);
        }
    }

    pub(crate) fn remove(&mut self, ino: Ino) {
        self.all.remove(&ino);
        self.unused.remove(&ino);
        for some in &mut self.lingering {
            some.remove(&ino);
        }
    }

    /// It stays for a while, open or not.
    pub(crate) fn linger(&mut self, ino: Ino) {
        if self.all.contains(&ino) {
            self.unused.remove(&ino);
            self.lingering[0].insert(ino);
        }
    }

    /// A while has passed. True when others wait for the next call.
    pub(crate) fn age(&mut self, opens: &Opens) -> bool {
        let [young, old] = &mut self.lingering;
        let over = std::mem::replace(old, std::mem::take(young));
        self.unused.extend(over.into_iter().filter(|ino| !opens.is_open(*ino)));
        !self.lingering[1].is_empty()
    }

    pub(crate) fn lingering(&self) -> usize {
        self.lingering.iter().map(BTreeSet::len).sum()
    }

    /// Its last open is gone.
    pub(crate) fn set_unused(&mut self, ino: Ino) {
        let lingers = self.lingering.iter().any(|some| some.contains(&ino));
        if self.all.contains(&ino) && !lingers {
            self.unused.insert(ino);
        }
    }

    /// Looks at all of them again: who is not open is unused.
    pub(crate) fn settle(&mut self, opens: &Opens) {
        self.unused = self.all.iter().copied().filter(|ino| !opens.is_open(*ino)).collect();
    }

    pub(crate) fn is_unused(&self, ino: Ino) -> bool {
        self.unused.contains(&ino)
    }

    pub(crate) fn first_unused(&self) -> Option<Ino> {
        self.unused.first().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_close_of_any_session_counts() {
        let mut opens = Opens::default();
        let (one, two, ino) = (SessionId(1), SessionId(2), Ino(9));
        opens.add(one, ino, 2);
        opens.add(two, ino, 1);
        assert!(!opens.remove(one, ino, 1));
        assert!(!opens.remove(one, ino, 5));
        assert!(!opens.remove(one, ino, 1), "closing what is not open closes nothing");
        assert!(opens.is_open(ino));
        assert_eq!(opens.end(two), [ino]);
        assert!(!opens.is_open(ino) && opens.sum() == 0);
    }

    #[test]
    fn orphans_are_reclaimed_when_unused() {
        let mut orphans = Orphans::default();
        let mut opens = Opens::default();
        opens.add(SessionId(1), Ino(5), 1);
        orphans.insert(Ino(5), false);
        orphans.insert(Ino(6), false);
        orphans.settle(&opens);
        assert_eq!(orphans.first_unused(), Some(Ino(6)));
        orphans.remove(Ino(6));
        assert_eq!(orphans.first_unused(), None);
        orphans.set_unused(Ino(7));
        orphans.set_unused(Ino(5));
        assert_eq!(orphans.first_unused(), Some(Ino(5)));
    }
}
