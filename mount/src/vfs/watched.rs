//! Work that may wait in the kernel, and what is done when it waits for too long. The work itself goes on.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flexfs_uring::clock;

/// How often is looked for work that waits.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Looks without anything to look at before the watcher sleeps: waking it costs more than some looks.
const EMPTY_LOOKS: u32 = 200;

/// What is done for work that waits.
type Late<'a> = Box<dyn FnOnce() + Send + 'a>;

/// See the module.
#[derive(Default)]
pub(crate) struct Watched {
    state: Mutex<State>,
    awake: Condvar,
}

#[derive(Default)]
struct State {
    going_on: BTreeMap<u64, (Instant, Late<'static>)>,
    last: u64,
    asleep: bool,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("going_on", &self.lock().going_on.len()).finish()
    }
}

impl Watched {
    /// Does `work`. If it takes longer than `patience`, `late` is called meanwhile, once.
    pub(crate) fn run<T>(&self, patience: Duration, late: Late<'static>, work: impl FnOnce() -> T) -> T {
        let id = {
            let mut state = self.lock();
            state.last += 1;
            let id = state.last;
            state.going_on.insert(id, (clock::now() + patience, late));
            if state.asleep || patience < LOOK_EVERY {
                self.awake.notify_one();
            }
            id
        };
        let output = work();
        self.lock().going_on.remove(&id);
        output
    }

    /// Watches until `is_over`. Takes a thread.
    pub(crate) fn watch(&self, is_over: impl Fn() -> bool) {
        let mut empty = 0;
        while !is_over() {
            let mut state = self.lock();
            if state.going_on.is_empty() && empty >= EMPTY_LOOKS {
                state.asleep = true;
                // Woken now and then to see whether it is over.
                let long = LOOK_EVERY * EMPTY_LOOKS;
                let (mut state, _) =
                    self.awake.wait_timeout(state, long).unwrap_or_else(PoisonError::into_inner);
                state.asleep = false;
                if !state.going_on.is_empty() {
                    empty = 0;
                }
                continue;
            }
            empty = if state.going_on.is_empty() { empty + 1 } else { 0 };
            let now = clock::now();
            let due: Vec<u64> =
                state.going_on.iter().filter(|(_, (until, _))| *until <= now).map(|(id, _)| *id).collect();
            let late: Vec<Late<'_>> =
                due.iter().filter_map(|id| state.going_on.remove(id)).map(|(_, late)| late).collect();
            if late.is_empty() {
                let next =
                    state.going_on.values().map(|(until, _)| until.saturating_duration_since(now)).min();
                let pause = next.unwrap_or(LOOK_EVERY).min(LOOK_EVERY);
                drop(self.awake.wait_timeout(state, pause));
                continue;
            }
            drop(state);
            for late in late {
                late();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::*;

    #[test]
    fn what_waits_is_helped_once_and_what_does_not_never() {
        let (watched, over) = (Arc::new(Watched::default()), Arc::new(AtomicBool::new(false)));
        let helped = Arc::new(AtomicU32::new(0));
        let watcher = {
            let (watched, over) = (Arc::clone(&watched), Arc::clone(&over));
            std::thread::spawn(move || watched.watch(|| over.load(Ordering::SeqCst)))
        };
        let help = || -> Late<'static> {
            let helped = Arc::clone(&helped);
            Box::new(move || {
                helped.fetch_add(1, Ordering::SeqCst);
            })
        };
        assert_eq!(watched.run(Duration::from_secs(60), help(), || 7), 7);
        assert_eq!(helped.load(Ordering::SeqCst), 0);
        watched.run(Duration::from_millis(1), help(), || {
            while helped.load(Ordering::SeqCst) == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(LOOK_EVERY * 4);
        });
        assert_eq!(helped.load(Ordering::SeqCst), 1);
        over.store(true, Ordering::SeqCst);
        watcher.join().unwrap();
    }
}
