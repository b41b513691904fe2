//! The table of operations in flight. A slot owns the memory the kernel uses and outlives the future that waits.
//!
//! `user_data` of an operation is `generation << 32 | index`. The generation is new for every use of an index, so a
//! late completion can never reach the next operation. An orphan is a slot whose future was dropped: it keeps its
//! memory until the last completion and then frees everything by itself.

use std::collections::VecDeque;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use io_uring::cqueue;
use slab::Slab;

use crate::fuse::Place;
use crate::mailbox::Mailbox;
use crate::socket::RawAddress;

/// Generations stay below this, which leaves the upper half of `user_data` for [`WAKE`] and [`IGNORED`].
const GENERATION_LIMIT: u32 = 1 << 31;

/// `user_data` of a wake-up that another ring posted here; it means nothing but "look into the mailbox".
pub(crate) const WAKE: u64 = u64::MAX;

/// `user_data` of operations whose completion nobody waits for (cancellations).
pub(crate) const IGNORED: u64 = u64::MAX - 1;

/// One completion: the result (negative errno on failure) and the IORING_CQE_F_* flags.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Completion {
    pub(crate) res: i32,
    pub(crate) flags: u32,
}

/// Memory an operation in flight refers to. Everything here has an address that moving the value does not change.
#[expect(dead_code, reason = "what is held is held for the kernel; only bytes and peers are ever read back")]
pub(crate) enum Hold {
    /// The operation refers to no memory (provided buffers belong to the pool).
    Nothing,
    /// A buffer on the heap.
    Bytes(Vec<u8>),
    /// A socket address.
    Address(Box<RawAddress>),
    /// One or two paths.
    Paths(CString, Option<CString>),
    /// Header and payload of a FUSE entry.
    Place(Rc<Place>),
    /// The shard that a MSG_RING wakes; its mailbox keeps the ring's descriptor number from being reused.
    Peer(Arc<Mailbox>),
}

/// Names the kind only: buffers may hold secrets.
impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Bytes(_) => "Bytes",
            Self::Address(_) => "Address",
            Self::Paths(..) => "Paths",
            Self::Place(_) => "Place",
            Self::Peer(_) => "Peer",
        })
    }
}

/// What a result means when nobody is left to take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing to undo.
    Plain,
    /// A result that is not negative is a new descriptor, to be closed.
    Descriptor,
    /// A wake-up of another shard; a failure is repeated through its eventfd.
    Wakeup,
}

/// Names one use of one slot; equals the operation's `user_data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotKey(u64);

impl SlotKey {
    fn new(index: usize, generation: u32) -> Self {
        // The table never holds 2^32 slots: each stands for an operation in flight.
        Self(u64::from(generation) << 32 | (index as u64 & u64::from(u32::MAX)))
    }

    pub(crate) fn user_data(self) -> u64 {
        self.0
    }

    fn index(self) -> usize {
        lower_half(self.0)
    }

    fn generation(self) -> u64 {
        self.0 >> 32
    }
}

/// The table index in the lower 32 bits of a key.
#[expect(clippy::cast_possible_truncation, reason = "the value is masked to 32 bits")]
pub(crate) fn lower_half(key: u64) -> usize {
    (key & u64::from(u32::MAX)) as usize
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    hold: Hold,
    /// Keeps the descriptor number from being closed and reused between queueing and submission.
    _fd: Option<Arc<OwnedFd>>,
    kind: Kind,
    waker: Option<Waker>,
    /// The completion not yet taken; only multishot operations ever have more than one.
    first: Option<Completion>,
    rest: VecDeque<Completion>,
    /// The last completion has arrived: the kernel has let go of the memory.
    finished: bool,
    orphan: bool,
}

/// What the shard must do after a completion was filed.
pub(crate) enum Filed {
    /// Wake whoever waits.
    Wake(Waker),
    /// Nobody will take it: undo its effects. The hold comes with the last completion.
    Discard(Completion, Kind, Option<Hold>),
    /// Nothing.
    Kept,
}

/// All slots of a shard.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    slab: Slab<Slot>,
    generation: u32,
}

impl Slots {
    /// Takes a slot for an operation that is about to be queued.
    pub(crate) fn insert(&mut self, hold: Hold, fd: Option<Arc<OwnedFd>>, kind: Kind) -> SlotKey {
        self.generation = (self.generation + 1) % GENERATION_LIMIT;
        let generation = self.generation;
        let slot = Slot {
            generation,
            hold,
            _fd: fd,
            kind,
            waker: None,
            first: None,
            rest: VecDeque::new(),
            finished: false,
            // Nobody waits for a wake-up: it is an orphan from birth.
            orphan: kind == Kind::Wakeup,
        };
        SlotKey::new(self.slab.insert(slot), generation)
    }

    fn slot(&mut self, key: SlotKey) -> Option<&mut Slot> {
        self.slab.get_mut(key.index()).filter(|slot| u64::from(slot.generation) == key.generation())
    }

    /// Files a completion under its operation.
    pub(crate) fn file(&mut self, user_data: u64, completion: Completion) -> Filed {
        let key = SlotKey(user_data);
        let Some(slot) = self.slot(key) else {
            debug_assert!(false, "completion {user_data:#x} belongs to no operation");
            return Filed::Kept;
        };
        slot.finished = !cqueue::more(completion.flags);
        if slot.orphan {
            let kind = slot.kind;
            let hold = if slot.finished { Some(self.slab.remove(key.index()).hold) } else { None };
            return Filed::Discard(completion, kind, hold);
        }
        match slot.first {
            None => slot.first = Some(completion),
            Some(_) => slot.rest.push_back(completion),
        }
        slot.waker.take().map_or(Filed::Kept, Filed::Wake)
    }

    /// Takes the oldest completion, or leaves `waker` to be told of the next. With the last completion the slot is
    /// freed and its memory comes back.
    pub(crate) fn take(&mut self, key: SlotKey, waker: Option<&Waker>) -> Option<(Completion, Option<Hold>)> {
        let slot = self.slot(key)?;
        let Some(completion) = slot.first.take() else {
            if let Some(waker) = waker
                && !slot.waker.as_ref().is_some_and(|old| old.will_wake(waker))
            {
                slot.waker = Some(waker.clone());
            }
            return None;
        };
        slot.first = slot.rest.pop_front();
        let last = slot.finished && slot.first.is_none();
        Some((completion, last.then(|| self.slab.remove(key.index()).hold)))
    }

    /// The future of this operation is gone. Returns what is already there to be undone, and whether the kernel is
    /// still at work and should be asked to stop.
    pub(crate) fn orphan(&mut self, key: SlotKey) -> (Vec<Completion>, Kind, bool) {
        let Some(slot) = self.slot(key) else { return (Vec::new(), Kind::Plain, false) };
        slot.orphan = true;
        slot.waker = None;
        let kind = slot.kind;
        let left = slot.first.take().into_iter().chain(slot.rest.drain(..)).collect();
        let running = !slot.finished;
        if !running {
            drop(self.slab.remove(key.index()));
        }
        (left, kind, running)
    }

    /// Whether the operation has completed for good, without taking anything.
    pub(crate) fn peek(&mut self, key: SlotKey) -> Option<Completion> {
        self.slot(key).and_then(|slot| slot.first)
    }

    /// Operations the kernel still works on, as (those a cancellation reaches, FUSE entries, which it does not).
    pub(crate) fn in_flight(&self) -> (usize, usize) {
        let running = || self.slab.iter().filter(|(_, slot)| !slot.finished);
        let places = running().filter(|(_, slot)| matches!(slot.hold, Hold::Place(_))).count();
        (running().count() - places, places)
    }

    /// Number of slots taken, whoever waits for them.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.slab.len()
    }

    /// Gives up memory that the kernel may still write to: leaked, which is safe, where freeing would not be.
    /// Returns how many operations that were.
    pub(crate) fn leak_unfinished(&mut self) -> usize {
        let slots = std::mem::take(&mut self.slab);
        let mut leaked = 0;
        for (_, slot) in slots {
            if !slot.finished {
                leaked += 1;
                match slot.hold {
                    // Its descriptor is let go all the same: the device must be released.
                    Hold::Place(place) => place.abandon(),
                    hold => std::mem::forget(hold),
                }
            }
        }
        leaked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MORE: u32 = 2; // IORING_CQE_F_MORE

    fn completion(res: i32, flags: u32) -> Completion {
        Completion { res, flags }
    }

    #[test]
    fn a_late_completion_does_not_reach_the_next_use_of_the_index() {
        let mut slots = Slots::default();
        let old = slots.insert(Hold::Nothing, None, Kind::Plain);
        slots.file(old.user_data(), completion(1, 0));
        assert!(slots.take(old, None).unwrap().1.is_some());
        let new = slots.insert(Hold::Nothing, None, Kind::Plain);
        assert_eq!(old.index(), new.index());
        assert!(slots.take(old, None).is_none());
        assert_ne!(old, new);
        assert_eq!(slots.in_flight(), (1, 0));
    }

    #[test]
    fn an_orphan_keeps_its_memory_until_the_last_completion() {
        let mut slots = Slots::default();
        let key = slots.insert(Hold::Bytes(vec![1]), None, Kind::Plain);
        slots.file(key.user_data(), completion(1, MORE));
        let (left, _, running) = slots.orphan(key);
        assert_eq!(left.len(), 1);
        assert!(running);
        assert!(matches!(slots.file(key.user_data(), completion(2, MORE)), Filed::Discard(_, _, None)));
        assert_eq!(slots.count(), 1);
        let Filed::Discard(last, _, Some(Hold::Bytes(bytes))) =
            slots.file(key.user_data(), completion(-125, 0))
        else {
            panic!("the memory must come with the last completion");
        };
        assert_eq!((last.res, bytes), (-125, vec![1]));
        assert_eq!(slots.count(), 0);
    }

    #[test]
    fn completions_of_a_multishot_keep_their_order() {
        let mut slots = Slots::default();
        let key = slots.insert(Hold::Nothing, None, Kind::Plain);
        for res in 0..4 {
            slots.file(key.user_data(), completion(res, if res < 3 { MORE } else { 0 }));
        }
        for res in 0..4 {
            let (taken, hold) = slots.take(key, None).unwrap();
            assert_eq!((taken.res, hold.is_some()), (res, res == 3));
        }
        assert_eq!(slots.count(), 0);
    }
}
