//! Each operation of the namespace, on volumes of a thousand and of a million inodes, over both engines.

use std::cell::{OnceCell, RefCell};
use std::ops::Range;
use std::time::Duration;

use criterion::Criterion;
use flexfs_meta::engine::Store;
use flexfs_meta::engine::fjall::{Fjall, Options};
use flexfs_meta::engine::memory::Memory;
use flexfs_uring::clock;

use crate::mode;
use crate::operation::{Operation, all};
use crate::volume::Volume;

/// Operations that are prepared together: few beside the volume's size, many beside the clock's cost.
const TOGETHER: u64 = 64;

/// Directories and files in each.
type Size = (usize, usize);

pub(crate) fn benches(c: &mut Criterion) {
    let sizes: [(&str, Size); 2] = if mode::is_measured() {
        [("1k", (10, 100)), ("1m", (1_000, 1_000))]
    } else {
        [("1k", (3, 5)), ("1m", (5, 10))]
    };
    for (name, size) in sizes {
        operations(c, &format!("namespace/memory/{name}"), size, Memory::eager);
        let folder = tempfile::tempdir().unwrap();
        let open = || Fjall::open(folder.path(), Options::default()).unwrap();
        operations(c, &format!("namespace/fjall/{name}"), size, open);
    }
}

/// All operations on one volume, which is filled when the first of them is really run.
fn operations<S: Store>(c: &mut Criterion, name: &str, (dirs, files): Size, open: impl Fn() -> S) {
    let volume: OnceCell<RefCell<Volume<S>>> = OnceCell::new();
    let mut group = c.benchmark_group(name);
    for operation in all::<S>() {
        let mut next = 0;
        group.bench_function(operation.name, |b| {
            let volume = volume.get_or_init(|| RefCell::new(Volume::fill(open(), dirs, files)));
            b.iter_custom(|count| {
                let last = next + count;
                let mut taken = Duration::ZERO;
                while next < last {
                    let end = last.min(next + TOGETHER);
                    taken += run(&operation, &mut volume.borrow_mut(), next..end);
                    next = end;
                }
                taken
            });
        });
    }
    group.finish();
}

fn run<S: Store>(operation: &Operation<S>, volume: &mut Volume<S>, numbers: Range<u64>) -> Duration {
    let prepare = |number| (operation.prepare)(volume, number);
    let requests: Vec<_> = numbers.clone().map(prepare).collect();
    let start = clock::now();
    for request in &requests {
        (operation.run)(volume, request);
    }
    let taken = clock::now() - start;
    for number in numbers {
        (operation.undo)(volume, number);
    }
    taken
}
