//! Numbers granted to this client: inode numbers for `Make`, block ids for `PutBlock`. Each shard draws from a range of
//! its own, so no lock is shared, and the next range is asked for before the last one is used up.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use event_listener::Event;
use flexfs_wire::errno::Errno;
use flexfs_wire::id::Range;

/// One kind of numbers of one shard.
#[derive(Debug)]
pub(crate) struct Grant {
    /// How many are asked for at once.
    count: u64,
    current: Cell<Range>,
    next: Cell<Range>,
    /// Seals of inode numbers, in the order the numbers are taken in.
    seals: RefCell<VecDeque<u64>>,
    asking: Cell<bool>,
    /// Why the last asking gave nothing.
    failure: Cell<Option<Errno>>,
    arrived: Event,
}

const EMPTY: Range = Range { start: 0, count: 0 };

impl Grant {
    /// Empty.
    pub(crate) fn new(count: u64) -> Self {
        Self {
            count,
            current: Cell::new(EMPTY),
            next: Cell::new(EMPTY),
            seals: RefCell::default(),
            asking: Cell::new(false),
            failure: Cell::new(None),
            arrived: Event::new(),
        }
    }

    /// How many to ask for.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// A number and its seal, if there is one. Block ids have no seals.
    pub(crate) fn take(&self) -> Option<(u64, u64)> {
        let mut range = self.current.get();
        if range.count == 0 {
            range = self.next.replace(EMPTY);
        }
        let number = (range.count > 0).then_some(range.start);
        self.current.set(Range { start: range.start + 1, count: range.count.saturating_sub(1) });
        number.map(|number| (number, self.seals.borrow_mut().pop_front().unwrap_or(0)))
    }

    /// Whether to ask for more now. True makes the caller the one who asks; he ends with `handle_range` or `handle_failed`.
    pub(crate) fn poll_ask(&self) -> bool {
        let low = self.next.get().count == 0 && self.current.get().count < self.count / 4;
        let ask = low && !self.asking.replace(true);
        if ask {
            self.failure.set(None);
        }
        ask
    }

    /// Numbers came; inode numbers with their seals.
    pub(crate) fn handle_range(&self, range: Range, seals: impl IntoIterator<Item = u64>) {
        self.seals.borrow_mut().extend(seals);
        if self.current.get().count == 0 {
            self.current.set(range);
        } else {
            self.next.set(range);
        }
        self.end_asking();
    }

    /// Asking gave nothing; whoever waits for it gets the errno.
    pub(crate) fn handle_failed(&self, errno: Errno) {
        self.failure.set(Some(errno));
        self.end_asking();
    }

    fn end_asking(&self) {
        self.asking.set(false);
        self.arrived.notify(usize::MAX);
    }

    /// The session that they were granted to is gone.
    pub(crate) fn clear(&self) {
        self.current.set(EMPTY);
        self.next.set(EMPTY);
        self.seals.borrow_mut().clear();
    }

    /// Waits until whoever asks is done.
    ///
    /// # Errors
    /// Why he got nothing.
    pub(crate) async fn arrived(&self) -> Result<(), Errno> {
        let listener = self.arrived.listen();
        if self.asking.get() {
            listener.await;
        }
        self.failure.get().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_once_and_are_asked_for_early() {
        let grant = Grant::new(8);
        assert!(grant.take().is_none() && grant.poll_ask() && !grant.poll_ask());
        grant.handle_range(Range { start: 100, count: 8 }, 1..9);
        let first: Vec<_> = (0..6).filter_map(|_| grant.take()).collect();
        assert_eq!(first, [(100, 1), (101, 2), (102, 3), (103, 4), (104, 5), (105, 6)]);
        assert!(!grant.poll_ask(), "a quarter is left");
        assert_eq!(grant.take(), Some((106, 7)));
        assert!(grant.poll_ask());
        grant.handle_range(Range { start: 500, count: 8 }, 11..19);
        assert!(!grant.poll_ask());
        assert_eq!(
            [grant.take(), grant.take(), grant.take()],
            [Some((107, 8)), Some((500, 11)), Some((501, 12))]
        );
        grant.clear();
        assert_eq!(grant.take(), None);
        grant.handle_range(Range { start: 9, count: 1 }, []);
        assert_eq!(grant.take(), Some((9, 0)), "what was cleared is of no use to what comes");
    }
}
