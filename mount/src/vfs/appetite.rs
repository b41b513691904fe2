//! Whether files of a directory are opened when they were looked up: their layouts, with what small ones hold, are then asked for
//! together with them.

use std::sync::atomic::{AtomicU8, Ordering};

/// Most of it: so many layouts are brought in vain before it is gone.
const MOST: u8 = 16;
/// What an open adds; each layout that is brought takes one.
const PER_OPEN: u8 = 2;
/// From here on layouts are wanted: one open alone may be chance.
const SOME: u8 = 4;

/// Grows with opens, and is used up by layouts.
#[derive(Debug, Default)]
pub(crate) struct Appetite(AtomicU8);

impl Appetite {
    /// Whether layouts are wanted.
    pub(crate) fn has_some(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= SOME
    }

    /// A file of the directory was opened for reading.
    pub(crate) fn add(&self) {
        self.change(|now| Some((now + PER_OPEN).min(MOST)));
    }

    /// A layout was brought.
    pub(crate) fn take(&self) {
        self.change(|now| now.checked_sub(1));
    }

    fn change(&self, to: impl FnMut(u8) -> Option<u8>) {
        // Full, or empty, it stays as it is.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_feed_it_and_looking_alone_uses_it_up() {
        let appetite = Appetite::default();
        appetite.add();
        assert!(!appetite.has_some(), "once is chance");
        for _ in 0..100 {
            appetite.add();
            appetite.take();
        }
        assert!(appetite.has_some());
        let brought = (0..100)
            .take_while(|_| {
                let some = appetite.has_some();
                appetite.take();
                some
            })
            .count();
        assert!(brought < usize::from(MOST) && !appetite.has_some());
    }
}
