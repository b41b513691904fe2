//! What programs have closed, and is not at the server yet: how much, and whether its disk has room for it.
//!
//! Who closed a file hears of no error any more, so bytes are sent behind him only while they are certain to be taken. *Small*
//! files go inline, and the server keeps room for them on a full disk (`meta`: `engine/room.rs`). *Large* ones become blocks, and
//! are sent behind only while the server has lately said that it has plenty of room; else their programs wait.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flexfs_wire::limits::INLINE_BYTES_MAX;

/// Small files on their way at once, each of `INLINE_BYTES_MAX` at most: what a server with a full disk must have room for, for
/// each of its clients.
const SMALL_MAX: usize = 512;
/// Large files on their way at once: 16 for each block that is sent at once.
const LARGE_MAX: usize = 256;
/// Bytes of large files on their way at once: half a second of a 1 Gbit/s network, and what sixteen clients send then is a
/// quarter of `ROOM_BYTES_MIN`.
pub(crate) const LARGE_BYTES_MAX: u64 = 64 << 20;
/// Bytes that the volume must have room for: what a disk that takes 1 GB/s is filled with by all clients until this one knows of
/// it. The figure is two seconds old here at most, and was one and a half at the server.
const ROOM_BYTES_MIN: u64 = 4 << 30;
/// How old a figure may be, counted from the question.
const ROOM_AGE_MAX: Duration = Duration::from_secs(2);
/// From which age on a new one is asked for: files that are closed one after the other do not wait for it.
const ROOM_AGE: Duration = Duration::from_millis(500);

const _: () = assert!((SMALL_MAX * INLINE_BYTES_MAX) as u64 <= LARGE_BYTES_MAX);

/// What is on its way of one file that its program has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// Up to `INLINE_BYTES_MAX`.
    Small,
    /// So many bytes.
    Large(u64),
}

/// See the module. Of all files of a mount.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    small: AtomicUsize,
    large: AtomicUsize,
    bytes: AtomicU64,
    /// What the server said, and when it was asked.
    room: Mutex<Option<(Instant, u64)>>,
    asking: AtomicBool,
}

impl Promises {
    /// Makes one more for a small file, if there may be more of them. `had`: what is promised of it already.
    pub(crate) fn take_small(&self, had: Option<Promise>) -> Option<Promise> {
        // What was large and became small is counted as it was.
        had.or_else(|| take(&self.small, SMALL_MAX).then_some(Promise::Small))
    }

    /// The same for a file with `bytes` that are not at the server, where its disk has room.
    pub(crate) fn take_large(&self, had: Option<Promise>, bytes: u64, now: Instant) -> Option<Promise> {
        if !self.has_room(now) {
            return None;
        }
        let counted = match had {
            Some(Promise::Large(counted)) => Some(counted),
            Some(Promise::Small) | None => None,
        };
        if counted.is_none() && !take(&self.large, LARGE_MAX) {
            return None;
        }
        let counted = counted.unwrap_or(0);
        let more = bytes.saturating_sub(counted);
        let fits = |sum: u64| (sum + more <= LARGE_BYTES_MAX).then_some(sum + more);
        if self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            if counted == 0 {
                self.large.fetch_sub(1, Ordering::Relaxed);
            }
            return None;
        }
        if had == Some(Promise::Small) {
            self.end(Promise::Small);
        }
        Some(Promise::Large(counted + more))
    }

    /// One was kept, or broken.
    pub(crate) fn end(&self, promise: Promise) {
        match promise {
            Promise::Small => self.small.fetch_sub(1, Ordering::Relaxed),
            Promise::Large(bytes) => {
                self.bytes.fetch_sub(bytes, Ordering::Relaxed);
                self.large.fetch_sub(1, Ordering::Relaxed)
            }
        };
    }

    /// Whether the server's disk is known to have room.
    fn has_room(&self, now: Instant) -> bool {
        self.room().is_some_and(|(asked, bytes)| {
            now.saturating_duration_since(asked) < ROOM_AGE_MAX && bytes >= ROOM_BYTES_MIN
        })
    }

    /// Whether the server is to be asked for its room, by who is told so: until `learn`.
    pub(crate) fn begin_asking(&self, now: Instant) -> bool {
        let is_old = self.room().is_none_or(|(asked, _)| now.saturating_duration_since(asked) >= ROOM_AGE);
        is_old && !self.asking.swap(true, Ordering::SeqCst)
    }

    /// What the server said that was asked then; nothing, if it did not answer.
    pub(crate) fn learn(&self, asked: Instant, bytes: Option<u64>) {
        if let Some(bytes) = bytes {
            *self.room() = Some((asked, bytes));
        }
        self.asking.store(false, Ordering::SeqCst);
    }

    fn room(&self) -> MutexGuard<'_, Option<(Instant, u64)>> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take(count: &AtomicUsize, most: usize) -> bool {
    let one_more = |count: usize| (count < most).then_some(count + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Instant {
        flexfs_uring::clock::now()
    }

    #[test]
    fn large_ones_are_made_while_room_is_known() {
        let (promises, start) = (Promises::default(), now());
        assert_eq!(promises.take_large(None, 1, start), None, "nothing is known");
        assert!(promises.begin_asking(start) && !promises.begin_asking(start), "one asks");
        promises.learn(start, None);
        assert!(promises.begin_asking(start), "there was no answer");
        promises.learn(start, Some(ROOM_BYTES_MIN - 1));
        assert_eq!(promises.take_large(None, 1, start), None, "not enough");
        promises.learn(start, Some(ROOM_BYTES_MIN));
        assert!(promises.take_large(None, 1, start).is_some());
        assert!(!promises.begin_asking(start) && promises.begin_asking(start + ROOM_AGE));
        assert!(promises.take_large(None, 1, start + ROOM_AGE).is_some(), "old, and good");
        assert_eq!(promises.take_large(None, 1, start + ROOM_AGE_MAX), None);
    }

    #[test]
    fn bytes_and_files_have_a_bound_and_are_given_back() {
        let (promises, start) = (Promises::default(), now());
        promises.learn(start, Some(u64::MAX));
        let take = |had, bytes| promises.take_large(had, bytes, start);
        let one = take(None, LARGE_BYTES_MAX - 10);
        assert_eq!(one, Some(Promise::Large(LARGE_BYTES_MAX - 10)));
        assert_eq!((take(one, LARGE_BYTES_MAX - 20), take(None, 11)), (one, None));
        let all = take(one, LARGE_BYTES_MAX).unwrap();
        assert_eq!(take(None, 1), None);
        promises.end(all);
        // One that was small is counted as what it is now.
        let small = promises.take_small(None);
        let large = take(small, 5).unwrap();
        assert_eq!((promises.small.load(Ordering::Relaxed), large), (0, Promise::Large(5)));
        assert_eq!(promises.take_small(Some(large)), Some(large));
        promises.end(large);
        let made: Vec<_> = (0..=LARGE_MAX).map_while(|_| take(None, 1)).collect();
        assert_eq!(made.len(), LARGE_MAX);
        made.into_iter().for_each(|one| promises.end(one));
        let counts = (promises.large.load(Ordering::Relaxed), promises.bytes.load(Ordering::Relaxed));
        assert_eq!(counts, (0, 0));
    }
}
