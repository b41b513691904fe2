//! Numbers of inodes that nothing here uses any more, until the server hears of it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use flexfs_wire::id::Ino;

/// What the kernel forgot, and what was brought ahead and not asked for: its leases are to be given back.
#[derive(Debug, Default)]
pub(crate) struct Left(Mutex<Vec<Ino>>);

impl Left {
    pub(crate) fn add(&self, mut inos: Vec<Ino>) {
        // Most have nothing to say, and several threads would meet here.
        if !inos.is_empty() {
            self.lock().append(&mut inos);
        }
    }

    /// All of them, each once, in order.
    pub(crate) fn take(&self) -> Vec<Ino> {
        let mut inos = std::mem::take(&mut *self.lock());
        inos.sort_unstable();
        inos.dedup();
        inos
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Ino>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_given_back_once() {
        let left = Left::default();
        left.add(vec![Ino(7), Ino(5)]);
        left.add(Vec::new());
        left.add(vec![Ino(7)]);
        assert_eq!(left.take(), [Ino(5), Ino(7)]);
        assert_eq!(left.take(), []);
    }
}
