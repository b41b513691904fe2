//! Several tasks on one file, several clients on one server, and what the kernel is told.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use flexfs_uring::spawn;
use flexfs_wire::attr::SetAttr;

use super::{CALLER, Mount, pattern, run, turns};
use crate::data::OpenMode;
use crate::data::model::Model;

/// Writers of their own parts of a file, and readers of them, while it is flushed over and over.
#[test]
fn writers_of_one_file_do_not_disturb_each_other() {
    for seed in 0..12 {
        run(async move {
            let mount = Rc::new(Mount::new(Arc::new(Model::new(seed, 5)), 4096, 1 << 20));
            let node = mount.create(1);
            let flat = Rc::new(RefCell::new(vec![0_u8; 64_000]));
            mount.write(node, 63_999, &[0]).await;
            let writers: Vec<_> = (0..4_usize)
                .map(|part| {
                    let (mount, flat) = (Rc::clone(&mount), Rc::clone(&flat));
                    spawn(async move {
                        let mut state = seed * 4 + part as u64 + 1;
                        for _ in 0..60 {
                            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                            let at = part * 16_000 + usize::try_from(state >> 40).unwrap() % 15_000;
                            let length = usize::try_from(state >> 20 & 0xfff).unwrap() % 999 + 1;
                            let data = pattern(state, length);
                            mount.write(node, at as u64, &data).await;
                            flat.borrow_mut()[at..at + length].copy_from_slice(&data);
                            let mine = part * 16_000..(part + 1) * 16_000;
                            let read = mount.read(node, mine.start as u64, mine.len()).await;
                            assert!(read == flat.borrow()[mine]);
                        }
                    })
                })
                .collect();
            let flusher = {
                let mount = Rc::clone(&mount);
                spawn(async move {
                    for round in 0..60 {
                        match round % 3 {
                            0 => mount.files.flush(node, None).await.unwrap(),
                            1 => mount.files.core().write_back_old(Duration::ZERO).await,
                            // Layouts are read while changes are under way.
                            _ => mount.files.core().file(node).state().map = None,
                        }
                        turns(3).await;
                    }
                })
            };
            for writer in writers {
                writer.await;
            }
            flusher.await;
            mount.files.fsync(node, None).await.unwrap();
            assert!(mount.server.content(1) == *flat.borrow());
        });
    }
}

#[test]
fn a_small_write_behind_a_full_block_stays_behind() {
    run(async {
        let mount = Rc::new(Mount::new(Arc::new(Model::new(3, 4)), 4096, 1 << 20));
        let node = mount.create(1);
        mount.server.world().away = true;
        mount.write(node, 0, &pattern(1, 4096)).await;
        mount.write(node, 0, b"new").await;
        let flush = {
            let mount = Rc::clone(&mount);
            spawn(async move { mount.files.flush(node, None).await })
        };
        turns(20).await;
        mount.server.world().away = false;
        flush.await.unwrap();
        assert_eq!(&mount.server.content(1)[..3], b"new");
        assert_eq!(mount.read(node, 0, 3).await, b"new");
    });
}

#[test]
fn a_change_of_another_client_is_seen_and_the_kernel_told_once() {
    run(async {
        let server = Arc::new(Model::new(1, 2));
        let here = Mount::new(Arc::clone(&server), 4096, 1 << 20);
        let there = Mount::new(server, 4096, 1 << 20);
        let node = here.create(1);
        here.write(node, 0, &pattern(1, 30_000)).await;
        here.files.flush(node, None).await.unwrap();
        assert_eq!(here.read(node, 0, 40_000).await, pattern(1, 30_000));

        there.files.open(CALLER, node, OpenMode { write: true, ..OpenMode::default() }, None).await.unwrap();
        there.write(node, 10_000, &pattern(2, 30_000)).await;
        there.files.flush(node, None).await.unwrap();
        there.files.close(CALLER, node);

        let mut attr = here.server.world().files[&node.ino].attr;
        assert!(here.files.observe(&mut attr), "the kernel's pages must go");
        assert!(!here.files.observe(&mut attr), "once");
        let mut expected = pattern(1, 10_000);
        expected.extend(pattern(2, 30_000));
        assert_eq!(here.read(node, 0, 50_000).await, expected);
        // Own changes are none of somebody else.
        here.write(node, 5, b"own").await;
        here.files.flush(node, None).await.unwrap();
        let change = SetAttr { size: Some(100), ..SetAttr::default() };
        let (mut attr, _) = here.files.set_attr(CALLER, node, change, None).await.unwrap();
        assert!(!here.files.observe(&mut attr));
        let info = here.files.open(CALLER, node, OpenMode::default(), None).await.unwrap();
        assert!(info.keep_cache);
        // Both ends wrote different bytes of one page: both are there.
        there.write(node, 50, b"there").await;
        here.write(node, 60, b"here").await;
        there.files.flush(node, None).await.unwrap();
        here.files.flush(node, None).await.unwrap();
        assert!(!here.files.open(CALLER, node, OpenMode::default(), None).await.unwrap().keep_cache);
        let read = here.read(node, 50, 14).await;
        assert_eq!((&read[..5], &read[10..]), (&b"there"[..], &b"here"[..]));
    });
}

#[test]
fn copies_in_opposite_directions_end() {
    run(async {
        let mount = Rc::new(Mount::new(Arc::new(Model::new(3, 4)), 4096, 1 << 20));
        let (one, two) = (mount.create(1), mount.create(2));
        for node in [one, two] {
            mount.write(node, 0, &pattern(node.ino.0, 20_000)).await;
        }
        let tasks =
            [(one, two), (two, one)].map(|(source, target)| {
                let mount = Rc::clone(&mount);
                spawn(async move {
                    mount.files.copy_range(CALLER, (source, 0), (target, 10_000), 5_000, None).await
                })
            });
        for task in tasks {
            assert_eq!(task.await, Ok(5_000));
        }
        assert_eq!(mount.read(one, 10_000, 5_000).await, pattern(2, 5_000));
        assert_eq!(mount.read(two, 10_000, 5_000).await, pattern(1, 5_000));
    });
}

#[test]
fn forgotten_files_go_when_nothing_needs_them() {
    run(async {
        let mount = Mount::new(Arc::new(Model::new(1, 1)), 4096, 1 << 20);
        let node = mount.create(1);
        mount.write(node, 0, b"unsent").await;
        mount.files.forget(node.ino);
        assert!(mount.files.core().find(node.ino).is_some(), "open and dirty");
        mount.files.close(CALLER, node);
        turns(20).await;
        assert!(mount.files.core().find(node.ino).is_none());
        assert_eq!(mount.server.content(1), b"unsent");
        assert_eq!(mount.server.world().closes, 1);
        let (other, mut attr) = mount.server.make(2);
        assert!(!mount.files.observe(&mut attr), "looking at an inode keeps nothing of it");
        assert!(mount.files.core().find(other.ino).is_none());
    });
}
