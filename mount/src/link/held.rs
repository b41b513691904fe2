//! What the session holds at the server besides data: opens and locks. A server that restarts has forgotten them; the
//! client declares them anew (`message::Recovery`).
//!
//! Counted when an answer arrives, not when a call is sent: what is declared is then exactly what the server had answered,
//! and calls without an answer are sent again behind the declaration.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use flexfs_wire::id::Ino;
use flexfs_wire::message::{Lock, LockFamily, LockKind, Reply, Request};
use flexfs_wire::seal::Node;

/// Locks the open table is spread over, so that opens on different cores rarely meet. A power of two.
const SHELVES: usize = 32;

/// What the answer to a call changes in what the session holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// One more open.
    Open(Node),
    /// One more open of the inode that the answer names.
    Make,
    /// So many opens fewer.
    Close(Node, u32),
    /// A lock as the request says.
    Lock(Node, Lock),
    /// No lock of that owner any more.
    Unlock(Node, LockFamily, u64),
}

impl Effect {
    /// The effect of a request.
    pub fn of(request: &Request) -> Self {
        match request {
            Request::Open { node, .. } => Self::Open(*node),
            Request::Make { make, .. } if make.open => Self::Make,
            Request::Close { node, count } => Self::Close(*node, *count),
            Request::Lock { node, lock, .. } => Self::Lock(*node, *lock),
            Request::Unlock { node, family, owner } => Self::Unlock(*node, *family, *owner),
            _ => Self::None,
        }
    }

    /// The request that takes back what a caller who no longer waits has got.
    pub fn undo(self, reply: &Reply) -> Option<Request> {
        match (self, reply) {
            (Self::Open(node), _) => Some(Request::Close { node, count: 1 }),
            (Self::Make, Reply::Entry(entry)) => Some(Request::Close { node: entry.node, count: 1 }),
            (Self::Lock(node, lock), _) if lock.kind != LockKind::Unlock => {
                let lock = Lock { kind: LockKind::Unlock, ..lock };
                Some(Request::Lock { node, lock, wait: false })
            }
            _ => None,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Held {
    opens: [Mutex<HashMap<Ino, (Node, u32)>>; SHELVES],
    locks: Mutex<HashMap<Ino, (Node, Vec<Lock>)>>,
}

impl Held {
    /// A call with this effect was answered with success.
    pub fn handle_answer(&self, effect: Effect, reply: &Reply) {
        match (effect, reply) {
            (Effect::None, _) => {}
            (Effect::Open(node), _) => self.add_open(node),
            (Effect::Make, Reply::Entry(entry)) => self.add_open(entry.node),
            (Effect::Make, _) => {}
            (Effect::Close(node, count), _) => {
                let mut shelf = self.shelf(node.ino);
                if let Some(entry) = shelf.get_mut(&node.ino) {
                    entry.1 = entry.1.saturating_sub(count);
                    if entry.1 == 0 {
                        shelf.remove(&node.ino);
                    }
                }
            }
            (Effect::Lock(node, lock), _) => {
                let mut locks = self.locks();
                let held = &mut locks.entry(node.ino).or_insert((node, Vec::new())).1;
                set_lock(held, lock);
                if held.is_empty() {
                    locks.remove(&node.ino);
                }
            }
            (Effect::Unlock(node, family, owner), _) => {
                let mut locks = self.locks();
                if let Some((_, held)) = locks.get_mut(&node.ino) {
                    held.retain(|lock| lock.family != family || lock.owner != owner);
                    if held.is_empty() {
                        locks.remove(&node.ino);
                    }
                }
            }
        }
    }

    /// All opens.
    pub fn opens(&self) -> Vec<(Node, u32)> {
        let mut opens = Vec::new();
        for shelf in &self.opens {
            opens.extend(lock(shelf).values().copied());
        }
        opens
    }

    /// All locks.
    pub fn all_locks(&self) -> Vec<(Node, Lock)> {
        let locks = self.locks();
        locks.values().flat_map(|(node, held)| held.iter().map(|lock| (*node, *lock))).collect()
    }

    /// The session is lost and its locks with it; how many there were. Opens are declared to the next one.
    pub fn handle_lost(&self) -> usize {
        self.locks().drain().map(|(_, (_, held))| held.len()).sum()
    }

    /// An open could not be declared to the next session.
    pub fn forget_open(&self, ino: Ino) {
        self.shelf(ino).remove(&ino);
    }

    /// One more open.
    pub fn add_open(&self, node: Node) {
        let mut shelf = self.shelf(node.ino);
        let entry = shelf.entry(node.ino).or_insert((node, 0));
        entry.1 = entry.1.saturating_add(1);
    }

    fn shelf(&self, ino: Ino) -> MutexGuard<'_, HashMap<Ino, (Node, u32)>> {
        let index = usize::try_from(ino.0 % SHELVES as u64).unwrap_or(0);
        lock(&self.opens[index])
    }

    fn locks(&self) -> MutexGuard<'_, HashMap<Ino, (Node, Vec<Lock>)>> {
        lock(&self.locks)
    }
}

/// Nothing that holds these locks can panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lays `new` over the locks of its owner, as `fcntl(2)` does: within its range it replaces what was there.
fn set_lock(held: &mut Vec<Lock>, new: Lock) {
    let mut kept = Vec::with_capacity(held.len() + 2);
    let mut merged = new;
    for old in held.drain(..) {
        let same_owner = old.family == new.family && old.owner == new.owner;
        if !same_owner || old.end.saturating_add(1) < merged.start || merged.end.saturating_add(1) < old.start
        {
            kept.push(old);
        } else if old.kind == merged.kind {
            // Touching or overlapping ranges of one kind are one lock: a file locked byte by byte stays one entry.
            merged.start = merged.start.min(old.start);
            merged.end = merged.end.max(old.end);
        } else {
            if old.start < merged.start {
                kept.push(Lock { end: merged.start - 1, ..old });
            }
            if old.end > merged.end {
                kept.push(Lock { start: old.start.max(merged.end + 1), ..old });
            }
        }
    }
    if merged.kind != LockKind::Unlock {
        kept.push(merged);
    }
    *held = kept;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock_of(owner: u64, kind: LockKind, start: u64, end: u64) -> Lock {
        Lock { family: LockFamily::Posix, kind, owner, pid: 1, start, end }
    }

    fn node(ino: u64) -> Node {
        Node { ino: Ino(ino), seal: 1 }
    }

    /// Byte-wise model: what each owner holds on each of the first bytes.
    #[test]
    fn locks_agree_with_a_model_of_single_bytes() {
        let kinds = [LockKind::Unlock, LockKind::Read, LockKind::Write];
        let mut state = 1u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for _ in 0..300 {
            let mut held = Vec::new();
            let mut model = [[LockKind::Unlock; 20]; 2];
            for _ in 0..30 {
                let (owner, start) = (random(2), random(20));
                let end = start + random(20 - start);
                let kind = kinds[usize::try_from(random(3)).unwrap()];
                set_lock(&mut held, lock_of(owner, kind, start, end));
                for byte in start..=end {
                    model[usize::try_from(owner).unwrap()][usize::try_from(byte).unwrap()] = kind;
                }
                for (owner, bytes) in (0u64..).zip(&model) {
                    for (byte, wanted) in (0u64..).zip(bytes) {
                        let found: Vec<_> = held
                            .iter()
                            .filter(|l| l.owner == owner && l.start <= byte && byte <= l.end)
                            .map(|l| l.kind)
                            .collect();
                        let expected = if *wanted == LockKind::Unlock { vec![] } else { vec![*wanted] };
                        assert_eq!(found, expected, "owner {owner} byte {byte} in {held:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_lock_to_the_end_of_any_file() {
        let mut held = Vec::new();
        set_lock(&mut held, lock_of(1, LockKind::Write, 0, u64::MAX));
        set_lock(&mut held, lock_of(1, LockKind::Unlock, 5, u64::MAX));
        assert_eq!(held, [lock_of(1, LockKind::Write, 0, 4)]);
        set_lock(&mut held, lock_of(1, LockKind::Unlock, 0, u64::MAX));
        assert!(held.is_empty());
    }

    #[test]
    fn opens_are_counted_per_answer() {
        let held = Held::default();
        let open = Effect::of(&Request::Open {
            node: node(7),
            write: false,
            truncate: false,
            kill_privileges: false,
        });
        held.handle_answer(open, &Reply::Done);
        held.handle_answer(open, &Reply::Done);
        held.handle_answer(Effect::Close(node(7), 1), &Reply::Done);
        assert_eq!(held.opens(), [(node(7), 1)]);
        assert_eq!(open.undo(&Reply::Done), Some(Request::Close { node: node(7), count: 1 }));
        held.handle_answer(Effect::Close(node(7), 1), &Reply::Done);
        assert!(held.opens().is_empty());
        let lock = lock_of(3, LockKind::Read, 0, 9);
        held.handle_answer(Effect::Lock(node(7), lock), &Reply::Done);
        assert_eq!(held.all_locks(), [(node(7), lock)]);
        held.handle_answer(Effect::Unlock(node(7), LockFamily::Flock, 3), &Reply::Done);
        assert_eq!(held.all_locks().len(), 1);
        held.handle_answer(Effect::Unlock(node(7), LockFamily::Posix, 3), &Reply::Done);
        assert!(held.all_locks().is_empty() && held.handle_lost() == 0);
    }
}
