//! The shards of a mount: one pinned thread with one ring per core, and a way to run something on each.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::Context as _;
use crossbeam::channel::{Sender, bounded};
use event_listener::Event;
use flexfs_uring::cpu::{self, Share};
use flexfs_uring::{Shard, ShardConfig, ShardHandle, StartError};

/// Most shards; every one has links of its own at the server.
const SHARDS_MAX: usize = 64;
/// Submission entries of a ring: an entry of every FUSE request and its network operations, several times.
const SQ_ENTRIES: u32 = 512;

/// The shards of a mount.
#[derive(Debug)]
pub struct Shards {
    list: Vec<One>,
    stop: Arc<Stop>,
    possible: usize,
}

#[derive(Debug)]
struct One {
    share: Share,
    handle: ShardHandle,
    thread: Option<JoinHandle<()>>,
}

/// Ends the shards.
#[derive(Debug, Default)]
struct Stop {
    raised: AtomicBool,
    event: Event,
}

impl Stop {
    async fn wait(&self) {
        while !self.raised.load(Ordering::SeqCst) {
            let listener = self.event.listen();
            if !self.raised.load(Ordering::SeqCst) {
                listener.await;
            }
        }
    }
}

impl Shards {
    /// Starts the threads and their rings, one for each CPU this process may use.
    ///
    /// # Errors
    /// When a ring cannot be made; the text says what to do.
    pub fn start() -> anyhow::Result<Self> {
        let possible = cpu::possible().context("cannot read the list of CPUs")?;
        let allowed = cpu::allowed().context("cannot read the CPUs this process may use")?;
        let shares = cpu::shares(&possible, &allowed, SHARDS_MAX);
        anyhow::ensure!(!shares.is_empty(), "this process may run on no CPU");
        let mut shards = Self { list: Vec::new(), stop: Arc::default(), possible: possible.len() };
        for share in shares {
            let one = shards.start_one(share)?;
            shards.list.push(one);
        }
        Ok(shards)
    }

    /// Number of shards.
    #[must_use]
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// CPUs that may ever come online: FUSE wants a queue for each.
    #[must_use]
    pub fn possible_cpus(&self) -> usize {
        self.possible
    }

    /// Queues a shard serves.
    #[must_use]
    pub fn qids(&self, index: usize) -> &[u16] {
        &self.list[index].share.qids
    }

    /// Handles of the shards and the CPUs they are pinned to.
    #[must_use]
    pub fn handles(&self) -> Vec<(u32, ShardHandle)> {
        self.list.iter().map(|one| (one.share.cpu, one.handle.clone())).collect()
    }

    /// Spawns a task on a shard.
    pub fn spawn<F, Fut>(&self, index: usize, make: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        if !self.list[index].handle.spawn_with(make) {
            tracing::debug!(index, "a task came after the end of its shard");
        }
    }

    /// Runs something on a shard and waits for it. Not to be called on a shard.
    ///
    /// # Errors
    /// When the shard ended before it was done.
    pub fn run<T, F, Fut>(&self, index: usize, make: F) -> anyhow::Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        let (sender, receiver) = bounded(1);
        self.spawn(index, move || async move {
            let output = make().await;
            // Nobody listens when the caller has given up.
            drop(sender.send(output));
        });
        receiver.recv().map_err(|_| anyhow::anyhow!("shard {index} ended before it was done"))
    }

    /// Ends all shards and waits for their threads.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.raised.store(true, Ordering::SeqCst);
        self.stop.event.notify(usize::MAX);
        for one in &mut self.list {
            if let Some(thread) = one.thread.take()
                && thread.join().is_err()
            {
                tracing::error!(cpu = one.share.cpu, "a shard panicked");
            }
        }
    }

    fn start_one(&self, share: Share) -> anyhow::Result<One> {
        let (sender, receiver) = bounded(1);
        let stop = Arc::clone(&self.stop);
        let cpu = share.cpu;
        let thread = std::thread::Builder::new()
            .name(format!("shard-{cpu}"))
            .spawn(move || run_shard(cpu, &stop, &sender))
            .context("cannot start a thread")?;
        let handle = receiver.recv().context("a shard died while it started")??;
        Ok(One { share, handle, thread: Some(thread) })
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        self.end();
    }
}

fn run_shard(cpu: u32, stop: &Stop, started: &Sender<Result<ShardHandle, StartError>>) {
    let config = ShardConfig { cpu: Some(cpu), sq_entries: SQ_ENTRIES, ..ShardConfig::default() };
    match Shard::new(&config) {
        Ok(shard) => {
            drop(started.send(Ok(shard.handle())));
            shard.block_on(stop.wait());
        }
        Err(error) => drop(started.send(Err(error))),
    }
}
