//! Which answers may still be cached: what was recalled lately, and since when no lease counts any more.
//!
//! An answer and a recall of the same inode may cross on their way, over different links. So every call that may be
//! granted something notes when it was [`asked`](Recalls::asked), and what it got counts only if no recall of the inode
//! was processed since. The server grants nothing to a session that has not answered a recall, so what is asked for after
//! a recall was processed is good.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flexfs_wire::id::Ino;

/// Locks of the table.
const SHARDS: usize = 64;
/// Recalls remembered by each; older ones are forgotten together, and then nothing counts that was asked before them.
const KEPT_MAX: usize = 4096;
/// Times something is asked for that others keep the server from granting a lease of, before it is taken without one.
pub(crate) const ASKS_MAX: u32 = 20;
/// First pause between two of them; each is longer by this.
pub(crate) const ASK_PAUSE: Duration = Duration::from_millis(1);
/// Stands for a recall that goes on: whatever is asked meanwhile does not count.
const GOING_ON: u64 = u64::MAX;

/// When a call was made, in recalls processed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked(u64);

/// See the module.
#[derive(Debug)]
pub struct Recalls {
    /// Recalls processed so far.
    clock: AtomicU64,
    /// What was asked before this does not count.
    floor: AtomicU64,
    /// How often all leases became void.
    life: AtomicU64,
    shards: Box<[Mutex<HashMap<Ino, u64>>]>,
    /// Inodes that this client knew better than the server, until then; and what was asked before which is not noted any more.
    left: Box<[Mutex<HashMap<Ino, u64>>]>,
    left_floor: AtomicU64,
}

impl Default for Recalls {
    fn default() -> Self {
        Self {
            clock: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            life: AtomicU64::new(0),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            left: (0..SHARDS).map(|_| Mutex::default()).collect(),
            left_floor: AtomicU64::new(0),
        }
    }
}

impl Recalls {
    /// Now, for a call that is about to be made.
    #[must_use]
    pub fn asked(&self) -> Asked {
        Asked(self.clock.load(Ordering::SeqCst))
    }

    /// Whether what was granted of the inode to a call made then still counts.
    #[must_use]
    pub fn is_good(&self, ino: Ino, asked: Asked) -> bool {
        asked.0 >= self.floor.load(Ordering::SeqCst)
            && self.shard(ino).get(&ino).is_none_or(|recalled| *recalled <= asked.0)
    }

    /// A recall of the inode begins to be processed.
    pub fn note(&self, ino: Ino) {
        let mut shard = self.shard(ino);
        let at = self.clock.fetch_add(1, Ordering::SeqCst) + 1;
        shard.insert(ino, at);
        if shard.len() > KEPT_MAX {
            shard.retain(|_, at| *at == GOING_ON);
            self.floor.fetch_max(at, Ordering::SeqCst);
        }
    }

    /// The inode is being given back: nothing that is granted of it counts until [`Recalls::note`].
    pub fn begin_giving_back(&self, ino: Ino) {
        self.shard(ino).insert(ino, GOING_ON);
    }

    /// No lease counts any more, nor what is on its way.
    pub fn void(&self) {
        let at = self.clock.fetch_add(1, Ordering::SeqCst) + 1;
        self.floor.fetch_max(at, Ordering::SeqCst);
        self.life.fetch_add(1, Ordering::SeqCst);
    }

    /// How often all leases became void: a lease counts in the life it was granted in.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.life.load(Ordering::SeqCst)
    }

    /// The kernel, or what holds the bytes of files here, is about to forget the inode. Until now changes of it may have been made
    /// that no recall tells, for this client made them.
    pub fn note_left(&self, ino: Ino) {
        let mut shard = lock(&self.left, ino);
        let at = self.clock.fetch_add(1, Ordering::SeqCst) + 1;
        shard.insert(ino, at);
        if shard.len() > KEPT_MAX {
            shard.clear();
            self.left_floor.fetch_max(at, Ordering::SeqCst);
        }
    }

    /// Whether the inode was forgotten before that, and not known since, by who does not know it now.
    #[must_use]
    pub fn is_untouched(&self, ino: Ino, asked: Asked) -> bool {
        let left = lock(&self.left, ino);
        asked.0 >= self.left_floor.load(Ordering::SeqCst)
            && left.get(&ino).is_none_or(|left| *left <= asked.0)
    }

    fn shard(&self, ino: Ino) -> MutexGuard<'_, HashMap<Ino, u64>> {
        lock(&self.shards, ino)
    }
}

fn lock(shards: &[Mutex<HashMap<Ino, u64>>], ino: Ino) -> MutexGuard<'_, HashMap<Ino, u64>> {
    let index = usize::try_from(ino.0 % SHARDS as u64).unwrap_or(0);
    shards[index].lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_before_a_recall_does_not_count() {
        let recalls = Recalls::default();
        let before = recalls.asked();
        assert!(recalls.is_good(Ino(7), before));
        recalls.note(Ino(7));
        assert!(!recalls.is_good(Ino(7), before) && recalls.is_good(Ino(8), before));
        let after = recalls.asked();
        assert!(recalls.is_good(Ino(7), after));
        recalls.begin_giving_back(Ino(7));
        assert!(!recalls.is_good(Ino(7), recalls.asked()));
        recalls.note(Ino(7));
        assert!(!recalls.is_good(Ino(7), after) && recalls.is_good(Ino(7), recalls.asked()));
    }

    #[test]
    fn forgotten_recalls_make_old_questions_bad() {
        let recalls = Recalls::default();
        let before = recalls.asked();
        for number in 0..=KEPT_MAX as u64 {
            recalls.note(Ino(number * SHARDS as u64));
        }
        assert!(!recalls.is_good(Ino(1), before));
        assert!(recalls.is_good(Ino(1), recalls.asked()));
        let life = recalls.life();
        let before = recalls.asked();
        recalls.void();
        assert!(!recalls.is_good(Ino(1), before) && recalls.life() == life + 1);
    }

    #[test]
    fn what_was_known_here_after_the_question_is_not_what_was_told() {
        let recalls = Recalls::default();
        let before = recalls.asked();
        assert!(recalls.is_untouched(Ino(7), before));
        recalls.note_left(Ino(7));
        assert!(!recalls.is_untouched(Ino(7), before) && recalls.is_untouched(Ino(8), before));
        assert!(recalls.is_good(Ino(7), before), "that is no recall");
        assert!(recalls.is_untouched(Ino(7), recalls.asked()));
        for number in 0..=KEPT_MAX as u64 {
            recalls.note_left(Ino(number * SHARDS as u64));
        }
        assert!(!recalls.is_untouched(Ino(1), before) && recalls.is_good(Ino(1), before));
        assert!(recalls.is_untouched(Ino(1), recalls.asked()));
    }
}
