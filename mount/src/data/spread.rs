//! Work on large blocks, spread over shards: one program that writes keeps one shard busy with its requests, and has others check,
//! encrypt and copy what is on its way. (Reads ahead stay where they are wanted: spread, they cost a tenth more and came no sooner.)

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use flexfs_uring::ShardHandle;

/// Shards that work for one: each has a link to the server for it.
const NEIGHBOURS: usize = 4;

/// The shards of this mount.
#[derive(Debug, Default)]
pub(super) struct Spread {
    places: RwLock<Vec<Arc<Place>>>,
}

#[derive(Debug)]
struct Place {
    shard: ShardHandle,
    /// Tasks in progress.
    busy: AtomicUsize,
}

/// A task in progress.
struct Task(Arc<Place>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Spread {
    /// The current shard takes part from now on.
    pub(super) fn join(&self) {
        let place = Place { shard: flexfs_uring::handle(), busy: AtomicUsize::new(0) };
        self.places.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(place));
    }

    /// Spawns what `make` makes on the shard with the least to do. When that ends, `make` or its future is dropped without having run.
    pub(super) fn spawn<F, Fut>(&self, make: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let Some((place, is_current)) = self.choose() else { return drop(flexfs_uring::spawn(make())) };
        place.busy.fetch_add(1, Ordering::Relaxed);
        let task = Task(Arc::clone(&place));
        let run = move || {
            let future = make();
            async move {
                future.await;
                drop(task);
            }
        };
        if is_current {
            drop(flexfs_uring::spawn(run()));
        } else {
            place.shard.spawn_with(run);
        }
    }

    /// The place with the least to do among the current shard, which has the program's requests besides, and those behind it; and whether
    /// it is the current one.
    fn choose(&self) -> Option<(Arc<Place>, bool)> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        let current = places.iter().position(|place| place.shard.is_current())?;
        let load = |behind: &usize| {
            let place = &places[(current + behind) % places.len()];
            place.busy.load(Ordering::Relaxed) + usize::from(*behind == 0)
        };
        let behind = (1..places.len().min(NEIGHBOURS)).chain([0]).min_by_key(load)?;
        Some((Arc::clone(&places[(current + behind) % places.len()]), behind == 0))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use flexfs_uring::{Shard, ShardConfig, yield_now};

    use super::*;

    fn shard() -> Shard {
        Shard::new(&ShardConfig { recv_buffers: 0, ..ShardConfig::default() }).unwrap()
    }

    #[test]
    fn work_goes_to_who_has_the_least() {
        let spread = Arc::new(Spread::default());
        let (ready, is_ready) = mpsc::channel();
        let (end, ends) = mpsc::channel::<()>();
        let other = {
            let spread = Arc::clone(&spread);
            thread::spawn(move || {
                shard().block_on(async move {
                    spread.join();
                    ready.send(()).unwrap();
                    while ends.try_recv().is_err() {
                        yield_now().await;
                    }
                });
            })
        };
        is_ready.recv().unwrap();
        let (tell, told) = mpsc::channel();
        shard().block_on(async {
            // Not of those that take part: what it has is done here.
            let here = thread::current().id();
            let say = |tell: &mpsc::Sender<thread::ThreadId>| {
                let tell = tell.clone();
                move || async move { tell.send(thread::current().id()).unwrap() }
            };
            spread.spawn(say(&tell));
            yield_now().await;
            assert_eq!(told.try_recv(), Ok(here));
            spread.join();
            spread.spawn(say(&tell));
            assert_ne!(told.recv().unwrap(), here, "the other has no requests to serve");
            let (hold, held) = mpsc::channel::<()>();
            spread.spawn(move || async move { held.recv().unwrap() });
            spread.spawn(say(&tell));
            spread.spawn(say(&tell));
            let mut seen = Vec::new();
            while seen.len() < 2 {
                yield_now().await;
                seen.extend(told.try_recv());
                if seen.len() == 1 {
                    let _ = hold.send(());
                }
            }
            assert_eq!(seen[0], here, "the other is busy");
        });
        end.send(()).unwrap();
        other.join().unwrap();
    }

    #[test]
    fn a_shard_that_has_ended_takes_nothing_along() {
        let spread = Arc::new(Spread::default());
        let joined = Arc::clone(&spread);
        thread::spawn(move || shard().block_on(async move { joined.join() })).join().unwrap();
        shard().block_on(async {
            spread.join();
            let (tell, told) = mpsc::channel::<()>();
            spread.spawn(move || async move { drop(tell) });
            assert_eq!(told.recv(), Err(mpsc::RecvError), "dropped");
            assert!(
                spread.places.read().unwrap().iter().all(|place| place.busy.load(Ordering::Relaxed) == 0)
            );
        });
    }
}
