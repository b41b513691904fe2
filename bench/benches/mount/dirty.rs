//! The map of dirty bytes: streams, scattered pages, and reading over them.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use flexfs_mount::data::dirty::Dirty;

/// Bytes of a region: the volume's block size.
const REGION_BYTES: u32 = 4 << 20;
/// Bytes of a write.
const WRITE_BYTES: u64 = 4_096;
/// Writes of one measured run: half a region, so that nothing leaves.
const WRITES: u64 = 512;

/// The page of a write, by its number.
type Order = fn(u64) -> u64;

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("dirty");
    group.throughput(Throughput::Bytes(WRITES * WRITE_BYTES));
    let data = vec![7; usize::try_from(WRITE_BYTES).unwrap()];
    // A stream; every other page; every other page in an order that is not the file's.
    let orders: [(&str, Order); 3] = [
        ("stream-512x4k", |number| number),
        ("every-other-512x4k", |number| number * 2),
        ("shuffled-512x4k", |number| number * 331 % WRITES * 2),
    ];
    for (name, page) in orders {
        group.bench_function(format!("write-{name}"), |b| {
            b.iter_batched(
                || (Dirty::default(), Vec::new()),
                |(mut dirty, mut full)| {
                    for number in 0..WRITES {
                        dirty.write(REGION_BYTES, page(number) * WRITE_BYTES, black_box(&data), &mut full);
                    }
                    assert!(full.is_empty() && dirty.bytes() == WRITES * WRITE_BYTES);
                    dirty
                },
                BatchSize::LargeInput,
            );
        });
    }
    let (mut dirty, mut full) = (Dirty::default(), Vec::new());
    for number in 0..WRITES {
        dirty.write(REGION_BYTES, number * 2 * WRITE_BYTES, &data, &mut full);
    }
    group.throughput(Throughput::Elements(1));
    let mut at = 0;
    group.bench_function("lookup-128k-over-512-pieces", |b| {
        b.iter(|| {
            at = (at + 7 * WRITE_BYTES) % (WRITES * 2 * WRITE_BYTES);
            let mut found = 0;
            dirty.each_in(REGION_BYTES, at..at + (128 << 10), |_, bytes| found += bytes.len());
            found
        });
    });
    group.finish();
}
