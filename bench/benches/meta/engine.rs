//! Commits of the engines: changes per batch, synced and not, and many commits that share one sync.

use std::time::Duration;

use criterion::{Criterion, Throughput};
use flexfs_meta::engine::fjall::{Fjall, Options};
use flexfs_meta::engine::memory::Memory;
use flexfs_meta::engine::{Batch, Store};
use flexfs_uring::clock;

/// Bytes of a value: about those of an inode.
const VALUE_BYTES: usize = 64;
/// Commits made before the sync is waited for, as calls of many clients do.
const GROUP: u64 = 64;
/// Longest wait for a disk.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn benches(c: &mut Criterion) {
    for changes in [1, 64, 1_024] {
        let mut group = c.benchmark_group(format!("engine/{changes}-changes"));
        group.throughput(Throughput::Elements(changes));
        let mut memory = Writer::new(Memory::eager(), changes);
        group.bench_function("memory", |b| b.iter_custom(|count| memory.run(count, u64::MAX)));
        drop(memory);
        let folder = tempfile::tempdir().unwrap();
        let store = Fjall::open(folder.path(), Options::default()).unwrap();
        let mut fjall = Writer::new(store, changes);
        group.bench_function("fjall", |b| b.iter_custom(|count| fjall.run(count, u64::MAX)));
        group.bench_function("fjall-synced", |b| b.iter_custom(|count| fjall.run(count, 1)));
        group.bench_function("fjall-synced-by-64", |b| b.iter_custom(|count| fjall.run(count, GROUP)));
        group.finish();
    }
}

struct Writer<S> {
    store: S,
    changes: u64,
    next: u64,
}

impl<S: Store> Writer<S> {
    fn new(store: S, changes: u64) -> Self {
        Self { store, changes, next: 0 }
    }

    /// Time of `count` commits; each `sync_every`th waits until it is durable, and so does the last when any does.
    fn run(&mut self, count: u64, sync_every: u64) -> Duration {
        let mut batches: Vec<Batch> = (0..count).map(|_| self.batch()).collect();
        let start = clock::now();
        for (number, batch) in (1..).zip(batches.drain(..)) {
            let commit = self.store.commit(batch).unwrap();
            if sync_every != u64::MAX && (number == count || number.is_multiple_of(sync_every)) {
                assert!(self.store.durable().wait(commit, PATIENCE));
            }
        }
        clock::now() - start
    }

    /// Keys spread over a table of a million rows; the store's size stays bounded.
    fn batch(&mut self) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..self.changes {
            self.next += 1;
            let row = self.next.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44;
            batch.put([&[7][..], &row.to_be_bytes()].concat(), vec![7; VALUE_BYTES]);
        }
        batch
    }
}
