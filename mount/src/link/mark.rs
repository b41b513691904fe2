//! The mark every frame to the server carries: all calls below it are finished here, the server may forget their
//! answers. Calls of all links share one row of ids, so the mark is a minimum over links, taken without a lock.
//!
//! A link publishes a lower bound of its unfinished ids *before* it takes a new one, and a mark is made by reading the
//! next id first and the bounds after. So an id below the mark was either published by its link before the mark
//! read that link's bound (and then the bound holds it back), or is finished.

use std::sync::atomic::{AtomicU64, Ordering};

use flexfs_wire::id::RequestId;

/// No call is unfinished.
const NONE: u64 = u64::MAX;

/// Ids and bounds of one session.
#[derive(Debug)]
pub struct Marks {
    next: AtomicU64,
    /// Per link: no unfinished call of it has a lower id.
    lowest: Box<[AtomicU64]>,
}

impl Marks {
    /// For so many links. Ids begin at 1.
    pub fn new(links: usize) -> Self {
        Self {
            next: AtomicU64::new(1),
            lowest: std::iter::repeat_with(|| AtomicU64::new(NONE)).take(links.max(1)).collect(),
        }
    }

    /// A new id for a call of link `link` whose answer the server is to remember.
    pub fn take_once(&self, link: usize) -> RequestId {
        let lowest = &self.lowest[link];
        if lowest.load(Ordering::SeqCst) == NONE {
            lowest.store(self.next.load(Ordering::SeqCst), Ordering::SeqCst);
        }
        self.take()
    }

    /// A new id for any other call.
    pub fn take(&self) -> RequestId {
        RequestId(self.next.fetch_add(1, Ordering::SeqCst))
    }

    /// The lowest unfinished id of link `link` now, by its own count.
    pub fn finish(&self, link: usize, lowest: Option<RequestId>) {
        self.lowest[link].store(lowest.map_or(NONE, |id| id.0), Ordering::SeqCst);
    }

    /// The mark of a frame sent now.
    pub fn mark(&self) -> u64 {
        let next = self.next.load(Ordering::SeqCst);
        self.lowest.iter().fold(next, |mark, lowest| mark.min(lowest.load(Ordering::SeqCst)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_unfinished_call_holds_the_mark() {
        let marks = Marks::new(2);
        assert_eq!(marks.mark(), 1);
        let first = marks.take_once(0);
        let second = marks.take_once(1);
        assert_eq!((first, second), (RequestId(1), RequestId(2)));
        assert_eq!(marks.take(), RequestId(3));
        assert_eq!(marks.mark(), 1);
        marks.finish(0, None);
        assert_eq!(marks.mark(), 2);
        marks.finish(1, None);
        assert_eq!(marks.mark(), 4);
    }

    #[test]
    fn no_unfinished_call_is_ever_below_the_mark() {
        let marks = Marks::new(3);
        std::thread::scope(|scope| {
            for link in 0..2 {
                let marks = &marks;
                scope.spawn(move || {
                    for _ in 0..20_000 {
                        let id = marks.take_once(link);
                        assert!(marks.mark() <= id.0);
                        marks.finish(link, None);
                    }
                });
            }
            scope.spawn(|| {
                let mut before = 0;
                for _ in 0..20_000 {
                    // Other links' unfinished calls cannot be seen from here; that marks never fall can.
                    let mark = marks.mark();
                    assert!(mark >= before);
                    before = mark;
                }
            });
        });
    }
}
