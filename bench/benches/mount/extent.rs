//! The map of a file's extents: made from a layout, looked up by a read, changed by a write.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{BatchSize, Criterion};
use flexfs_mount::data::layout::Map;
use flexfs_wire::extent::{Extent, Layout};
use flexfs_wire::id::BlockId;

/// Bytes of an extent.
const EXTENT_BYTES: u32 = 64 << 10;
/// Bytes of a read.
const READ_BYTES: u64 = 128 << 10;

pub(crate) fn benches(c: &mut Criterion) {
    for count in [1_u32, 256, 16_384] {
        let mut group = c.benchmark_group(format!("extents/{count}"));
        let map = Map::new(layout(count)).unwrap();
        let size = u64::from(count) * u64::from(EXTENT_BYTES);
        let mut out = vec![0; usize::try_from(READ_BYTES).unwrap()];
        let mut wants = Vec::new();
        let mut at = 0;
        group.bench_function("resolve-128k-read", |b| {
            b.iter(|| {
                at = (at + 7 * READ_BYTES) % size;
                wants.clear();
                map.resolve(black_box(&(at..at + READ_BYTES)), at, &mut out, &mut wants);
                wants.len()
            });
        });
        let mut changed = map.clone();
        let mut version = 1;
        group.bench_function("overwrite-4k", |b| {
            b.iter(|| {
                version += 1;
                at = (at + 7 * READ_BYTES) % size;
                let extent = Extent { offset: at, length: 4_096, block: BlockId(version), block_offset: 0 };
                changed.apply_extents(version, &BTreeMap::from([(at, extent)]));
            });
        });
        group.bench_function("map-from-layout", |b| {
            b.iter_batched(|| layout(count), |layout| Map::new(layout).unwrap(), BatchSize::SmallInput);
        });
        group.finish();
    }
}

fn layout(count: u32) -> Layout {
    let extent = |index: u32| Extent {
        offset: u64::from(index) * u64::from(EXTENT_BYTES),
        length: EXTENT_BYTES,
        block: BlockId(u64::from(index / 64) + 1),
        block_offset: index % 64 * EXTENT_BYTES,
    };
    Layout {
        inline: Vec::new(),
        extents: (0..count).map(extent).collect(),
        start: 0,
        end: u64::MAX,
        version: 1,
    }
}
