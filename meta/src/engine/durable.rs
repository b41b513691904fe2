//! How far a store is durable, for all who wait for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flexfs_wire::id::Commit;

type Listener = Box<dyn Fn(Commit) + Send + Sync>;

/// Watch on the durable sequence of one store. Cheap to clone, safe to share.
#[derive(Clone, Default)]
pub struct Durable(Arc<State>);

/// The side of the store: says how far it is.
#[derive(Debug, Default)]
pub struct Publisher(Durable);

#[derive(Default)]
struct State {
    current: AtomicU64,
    failed: AtomicBool,
    listeners: Mutex<Vec<Listener>>,
    changed: Condvar,
}

impl Durable {
    /// Every commit up to this one is durable.
    #[must_use]
    pub fn current(&self) -> Commit {
        Commit(self.0.current.load(Ordering::Acquire))
    }

    /// Whether the engine failed to make things durable. It will not recover: the process should end and be started
    /// again, clients replay what was not durable.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.0.failed.load(Ordering::Acquire)
    }

    /// Calls `listener` whenever the durable sequence has risen, and once when the engine failed, from the engine's
    /// sync thread: it must be quick and must not call back into the store.
    pub fn listen(&self, listener: impl Fn(Commit) + Send + Sync + 'static) {
        self.listeners().push(Box::new(listener));
    }

    /// Waits until `commit` is durable; false when the time is over or the engine failed. For tests and for shutting down.
    #[must_use]
    pub fn wait(&self, commit: Commit, timeout: Duration) -> bool {
        let listeners = self.listeners();
        let waiting = |_: &mut Vec<Listener>| self.current() < commit && !self.has_failed();
        let result = self.0.changed.wait_timeout_while(listeners, timeout, waiting);
        drop(result);
        self.current() >= commit
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<Listener>> {
        self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Publisher {
    /// A publisher that starts at what was found in the store.
    #[must_use]
    pub fn starting_at(commit: Commit) -> Self {
        let publisher = Self::default();
        publisher.0.0.current.store(commit.0, Ordering::Release);
        publisher
    }

    /// Its watch.
    #[must_use]
    pub fn watch(&self) -> &Durable {
        &self.0
    }

    /// Every commit up to this one is durable. Never goes back.
    pub fn publish(&self, commit: Commit) {
        if self.0.0.current.fetch_max(commit.0, Ordering::AcqRel) < commit.0 {
            self.tell(commit);
        }
    }

    /// The engine failed.
    pub fn fail(&self) {
        if !self.0.0.failed.swap(true, Ordering::AcqRel) {
            self.tell(self.0.current());
        }
    }

    fn tell(&self, commit: Commit) {
        let listeners = self.0.listeners();
        for listener in listeners.iter() {
            listener(commit);
        }
        self.0.0.changed.notify_all();
    }
}

impl std::fmt::Debug for Durable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Durable")
            .field("current", &self.current())
            .field("failed", &self.has_failed())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_and_waiters_hear_of_progress_and_failure() {
        let publisher = Publisher::starting_at(Commit(5));
        let heard = Arc::new(AtomicU64::new(0));
        let ears = Arc::clone(&heard);
        publisher.watch().listen(move |commit| ears.store(commit.0, Ordering::Relaxed));
        assert!(!publisher.watch().wait(Commit(6), Duration::from_millis(1)));
        publisher.publish(Commit(7));
        publisher.publish(Commit(6));
        assert_eq!((heard.load(Ordering::Relaxed), publisher.watch().current()), (7, Commit(7)));
        assert!(publisher.watch().wait(Commit(7), Duration::ZERO));
        publisher.fail();
        assert!(publisher.watch().has_failed());
        assert!(!publisher.watch().wait(Commit(8), Duration::from_secs(60)));
    }
}
