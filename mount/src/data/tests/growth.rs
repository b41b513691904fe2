//! Bounds: memory, calls, what is sent how.

use std::rc::Rc;
use std::sync::Arc;

use flexfs_uring::spawn;

use super::{CALLER, Mount, pattern, run, turns};
use crate::data::OpenMode;
use crate::data::model::Model;

const KIB: usize = 1024;

#[test]
fn writers_wait_for_memory_and_go_on() {
    run(async {
        let server = Arc::new(Model::new(1, 0));
        server.world().away = true;
        let mount = Rc::new(Mount::new(server, 256 << 10, 2 << 20));
        let node = mount.create(1);
        let writer = {
            let mount = Rc::clone(&mount);
            spawn(async move {
                for number in 0..200_u64 {
                    let at = number * 64 * KIB as u64;
                    mount.write(node, at, &pattern(number, 64 * KIB)).await;
                }
            })
        };
        turns(2_000).await;
        assert!(!writer.is_finished());
        let figures = mount.files.figures();
        assert!(figures.dirty_bytes < figures.cache_limit, "{figures:?}");
        assert!(figures.dirty_bytes > figures.cache_limit / 2, "{figures:?}");
        mount.server.world().away = false;
        writer.await;
        mount.files.fsync(node, None).await.unwrap();
        assert_eq!(mount.files.figures().dirty_bytes, 0);
        let content = mount.server.content(1);
        for number in [0_usize, 77, 199] {
            assert!(content[number * 64 * KIB..(number + 1) * 64 * KIB] == pattern(number as u64, 64 * KIB));
        }
        // Full blocks went out while it wrote, a bounded number at a time.
        let world = mount.server.world();
        assert!((50..60).contains(&world.puts), "{}", world.puts);
        assert!(world.putting_max <= mount.files.core().budget.puts_max());
    });
}

#[test]
fn scattered_small_files_are_relieved() {
    run(async {
        let mount = Mount::new(Arc::new(Model::new(5, 1)), 256 << 10, 2 << 20);
        // Nobody closes or flushes; no block is ever full: only relief gives memory back.
        for ino in 1..=400 {
            let node = mount.create(ino);
            mount.write(node, 0, &pattern(ino, 10 * KIB)).await;
        }
        mount.files.sync_all().await.unwrap();
        for ino in [1, 200, 400] {
            assert!(mount.server.content(ino) == pattern(ino, 10 * KIB));
        }
    });
}

#[test]
fn a_small_file_costs_one_message_and_no_block() {
    run(async {
        let mount = Mount::new(Arc::new(Model::new(1, 0)), 256 << 10, 2 << 20);
        let node = mount.create(1);
        mount.write(node, 0, b"small").await;
        mount.write(node, 5, b" file").await;
        mount.files.flush(node, None).await.unwrap();
        mount.files.close(CALLER, node);
        {
            let world = mount.server.world();
            assert_eq!((world.writes, world.inline_writes, world.puts, world.layout_reads), (1, 1, 0, 0));
        }
        mount.files.forget(node.ino);
        mount.files.open(CALLER, node, OpenMode::default(), None).await.unwrap();
        assert_eq!(mount.read(node, 0, 100).await, b"small file");
        // It grows: what was inline stays.
        mount.write(node, 10, &pattern(9, 100 * KIB)).await;
        mount.files.flush(node, None).await.unwrap();
        let world = mount.server.world();
        assert_eq!((world.inline_writes, world.puts, world.layout_reads, world.block_reads), (1, 1, 0, 0));
        assert_eq!(world.files[&node.ino].inline, b"small file");
    });
}

#[test]
fn scattered_writes_share_a_block() {
    run(async {
        let mount = Mount::new(Arc::new(Model::new(1, 0)), 256 << 10, 2 << 20);
        let node = mount.create(1);
        for number in 0..40_u64 {
            mount.write(node, number * 1_000_003, &pattern(number, 4 * KIB)).await;
        }
        mount.files.flush(node, None).await.unwrap();
        {
            let world = mount.server.world();
            assert_eq!((world.puts, world.writes), (1, 1));
        }
        for number in [0, 20, 39] {
            assert_eq!(mount.read(node, number * 1_000_003, 4 * KIB).await, pattern(number, 4 * KIB));
        }
    });
}

#[test]
fn sequential_readers_are_read_ahead_and_random_ones_are_not() {
    run(async {
        let mount = Mount::new(Arc::new(Model::new(1, 0)), 1 << 20, 64 << 20);
        let node = mount.create(1);
        let content = pattern(7, 8 << 20);
        mount.write(node, 0, &content).await;
        mount.files.flush(node, None).await.unwrap();
        for at in (0..content.len()).step_by(128 * KIB) {
            assert!(mount.read(node, at as u64, 128 * KIB).await == content[at..at + 128 * KIB]);
            turns(4).await;
        }
        // 128 segments in pieces of up to 16, and the first reads.
        let ahead = mount.server.world().block_reads;
        assert!(ahead <= 24, "{ahead}");
        assert!(mount.files.figures().hits > 100);
        let other = Mount::new(Arc::clone(&mount.server), 1 << 20, 64 << 20);
        other.files.open(CALLER, node, OpenMode::default(), None).await.unwrap();
        for number in 1..60 {
            let at = number * 37 % 120 * 64 * KIB + 8 * KIB;
            assert!(other.read(node, at as u64, 4 * KIB).await == content[at..at + 4 * KIB]);
        }
        let random = mount.server.world().block_reads - ahead;
        assert!(random <= 60, "{random}");
    });
}

#[test]
fn readers_of_one_segment_share_its_fetch() {
    run(async {
        let mount = Rc::new(Mount::new(Arc::new(Model::new(1, 0)), 256 << 10, 2 << 20));
        let node = mount.create(1);
        mount.write(node, 0, &pattern(3, 200 * KIB)).await;
        mount.files.flush(node, None).await.unwrap();
        let other = Rc::new(Mount::new(Arc::clone(&mount.server), 256 << 10, 2 << 20));
        other.files.open(CALLER, node, OpenMode::default(), None).await.unwrap();
        mount.server.world().delay_max = 5;
        let readers: Vec<_> = (0..8)
            .map(|number| {
                let other = Rc::clone(&other);
                spawn(async move { other.read(node, 70 * KIB as u64 + number * 100, 50).await })
            })
            .collect();
        for (number, reader) in readers.into_iter().enumerate() {
            let at = 70 * KIB + number * 100;
            assert_eq!(reader.await, pattern(3, 200 * KIB)[at..at + 50]);
        }
        assert_eq!(mount.server.world().block_reads, 1);
    });
}

#[test]
fn layouts_of_closed_files_go_after_a_while() {
    run(async {
        let mount = Mount::new(Arc::new(Model::new(1, 0)), 256 << 10, 16 << 20);
        let (open, closed) = (mount.create(1), mount.create(2));
        for node in [open, closed] {
            mount.write(node, 0, &pattern(node.ino.0, 12 * KIB)).await;
            mount.files.flush(node, None).await.unwrap();
        }
        mount.files.close(CALLER, closed);
        for _ in 0..20 {
            mount.files.core().grow_older();
        }
        let kept = mount.files.figures().cache_bytes;
        assert!((12 * 1024..24 * 1024).contains(&kept), "{kept}");
        assert!(mount.read(closed, 0, 20 * KIB).await == pattern(2, 12 * KIB));
    });
}

#[test]
fn idle_files_are_small() {
    run(async {
        let mount = Mount::new(Arc::new(Model::new(1, 0)), 256 << 10, 16 << 20);
        for ino in 1..=3_000 {
            let node = mount.create(ino);
            mount.write(node, 0, &pattern(ino, 12 * KIB)).await;
            mount.files.close(CALLER, node);
        }
        // 36 MB of inline bytes went by; layouts that are kept stay within their part of the budget.
        let figures = mount.files.figures();
        assert!(figures.cache_bytes <= (16 << 20) / 16 + 64 * 13 * 1024, "{figures:?}");
        let node = flexfs_wire::seal::Node::unsealed(flexfs_wire::id::Ino(5));
        assert!(mount.read(node, 0, 20 * KIB).await == pattern(5, 12 * KIB));
    });
}
