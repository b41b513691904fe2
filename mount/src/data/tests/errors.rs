//! What is said, to whom and how often, when something fails.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use flexfs_uring::spawn;
use flexfs_wire::attr::SetAttr;
use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::seal::Node;

use super::{CALLER, Mount, pattern, run, turns};
use crate::cancel::Cancel;
use crate::data::file::Progress;
use crate::data::model::Model;
use crate::data::{OpenMode, ReadMode, WriteMode};

const KIB: usize = 1024;

fn mount() -> Mount {
    Mount::new(Arc::new(Model::new(1, 1)), 256 << 10, 4 << 20)
}

#[test]
fn a_failed_writeback_is_reported_once_to_a_writer_and_once_to_a_flush() {
    run(async {
        for (sent, errno) in
            [(Errno::ENOSPC, Errno::ENOSPC), (Errno::EDQUOT, Errno::EDQUOT), (Errno::EPROTO, Errno::EIO)]
        {
            let mount = mount();
            let node = mount.create(1);
            mount.write(node, 0, &pattern(1, 100 * KIB)).await;
            mount.files.flush(node, None).await.unwrap();
            mount.write(node, 100 * KIB as u64, &pattern(2, 100 * KIB)).await;
            mount.server.world().write_errors.push(sent);
            mount.files.core().write_back_old(Duration::ZERO).await;
            assert_eq!(
                mount.files.write(CALLER, node, 0, b"x", WriteMode::default(), None).await,
                Err(errno)
            );
            assert_eq!(mount.attr(node).await.size, 100 * KIB as u64, "lost bytes are gone");
            mount.write(node, 3, b"y").await;
            assert_eq!(mount.files.fsync(node, None).await, Err(errno));
            assert_eq!(mount.files.flush(node, None).await, Ok(()));
            assert_eq!(mount.files.figures().dirty_bytes, 0);
            assert_eq!(mount.files.figures().errors, 1);
            // What was written meanwhile is there.
            assert_eq!(mount.read(node, 3, 1).await, b"y");
            assert_eq!(mount.server.content(1)[3], b'y');
        }
    });
}

/// A `close` and a `fsync` wait for the same bytes: that the one was told is not enough for the other.
#[test]
fn all_that_wait_for_lost_bytes_are_told() {
    run(async {
        let mount = Rc::new(mount());
        let node = mount.create(1);
        mount.write(node, 0, b"lost").await;
        mount.server.world().write_errors.push(Errno::ENOSPC);
        let closing = {
            let mount = Rc::clone(&mount);
            spawn(async move { mount.files.flush(node, None).await })
        };
        let syncing = {
            let mount = Rc::clone(&mount);
            spawn(async move { mount.files.fsync(node, None).await })
        };
        // Why, who comes first.
        assert!(closing.await.is_err() && syncing.await.is_err());
        assert_eq!(mount.files.fsync(node, None).await, Ok(()), "told");
    });
}

#[test]
fn a_failed_put_loses_its_own_block_only() {
    run(async {
        let mount = mount();
        let node = mount.create(1);
        mount.write(node, 0, &pattern(1, 256 * KIB)).await;
        mount.files.flush(node, None).await.unwrap();
        mount.server.world().put_errors.push(Errno::EIO);
        mount.write(node, 256 * KIB as u64, &pattern(2, 256 * KIB)).await;
        turns(60).await;
        let mut out = [0; 1];
        assert_eq!(
            mount.files.write(CALLER, node, 0, &[1], WriteMode::default(), None).await,
            Err(Errno::EIO)
        );
        mount.write(node, 512 * KIB as u64, &pattern(3, 256 * KIB)).await;
        assert_eq!(mount.files.flush(node, None).await, Err(Errno::EIO));
        let content = mount.server.content(1);
        assert!(
            content[..256 * KIB] == pattern(1, 256 * KIB) && content[512 * KIB..] == pattern(3, 256 * KIB)
        );
        assert!(content[256 * KIB..512 * KIB].iter().all(|byte| *byte == 0));
        assert_eq!(
            mount.files.read(CALLER, node, 0, &mut out, ReadMode::default(), None).await.unwrap().bytes,
            1
        );
    });
}

#[test]
fn sync_all_fails_and_the_file_still_reports() {
    run(async {
        let mount = mount();
        let (bad, good) = (mount.create(1), mount.create(2));
        mount.write(bad, 0, b"bad").await;
        mount.write(good, 0, b"good").await;
        mount.server.world().write_errors.push(Errno::ENOSPC);
        assert_eq!(mount.files.sync_all().await, Err(Errno::ENOSPC));
        let reports = [mount.files.flush(bad, None).await, mount.files.flush(good, None).await];
        assert_eq!(reports.iter().filter(|report| report.is_err()).count(), 1);
        assert_eq!(mount.files.sync_all().await, Ok(()));
    });
}

#[test]
fn a_lost_session_makes_blocks_and_writes_begin_anew() {
    run(async {
        let mount = mount();
        let node = mount.create(1);
        {
            let mut world = mount.server.world();
            world.put_errors.push(Errno::ESTALE);
            world.write_errors.push(Errno::ESTALE);
        }
        mount.write(node, 0, &pattern(1, 300 * KIB)).await;
        mount.files.fsync(node, None).await.unwrap();
        assert!(mount.server.content(1) == pattern(1, 300 * KIB));
        let small = mount.create(2);
        mount.server.world().write_errors.push(Errno::ESTALE);
        mount.write(small, 0, b"small").await;
        mount.files.fsync(small, None).await.unwrap();
        assert_eq!(mount.server.content(2), b"small");
        // A handle that stays stale is no lost session.
        mount.write(small, 0, b"gone").await;
        mount.server.world().write_errors.extend([Errno::ESTALE; 9]);
        assert_eq!(mount.files.flush(small, None).await, Err(Errno::EIO));
    });
}

#[test]
fn a_small_block_goes_along_with_its_write() {
    run(async {
        let mount = mount();
        let node = mount.create(1);
        mount.write(node, 0, &pattern(1, 300 * KIB)).await;
        mount.files.fsync(node, None).await.unwrap();
        let (stored, carried) = {
            let world = mount.server.world();
            (world.blocks.len(), world.carried)
        };
        assert!(stored as u64 > carried, "full ones are sent ahead");
        // Scattered bytes are one block, which nothing is sent ahead for.
        mount.server.world().put_errors.push(Errno::EIO);
        for (index, offset) in [5, 70_000, 299 * KIB as u64].into_iter().enumerate() {
            mount.write(node, offset, &pattern(index as u64 + 2, 1000)).await;
        }
        mount.files.fsync(node, None).await.unwrap();
        assert_eq!(mount.server.world().carried, carried + 1);
        let mut content = pattern(1, 300 * KIB);
        for (index, offset) in [5, 70_000, 299 * KIB].into_iter().enumerate() {
            content[offset..offset + 1000].copy_from_slice(&pattern(index as u64 + 2, 1000));
        }
        content.truncate(300 * KIB);
        assert!(mount.server.content(1)[..300 * KIB] == content);
        // One whose write is refused for the session's sake is sealed anew under another number.
        mount.server.world().write_errors.push(Errno::ESTALE);
        mount.write(node, 9, b"once more").await;
        mount.files.fsync(node, None).await.unwrap();
        assert_eq!(mount.server.world().carried, carried + 2);
        assert_eq!(&mount.server.content(1)[9..18], b"once more");
    });
}

#[test]
fn a_caller_that_leaves_does_not_stop_the_flush() {
    run(async {
        let mount = Rc::new(mount());
        let node = mount.create(1);
        mount.write(node, 0, &pattern(1, 300 * KIB)).await;
        mount.server.world().away = true;
        let cancel = Rc::new(Cancel::new());
        cancel.arm(8);
        let flush = {
            let (mount, cancel) = (Rc::clone(&mount), Rc::clone(&cancel));
            spawn(async move { mount.files.flush(node, Some(&cancel)).await })
        };
        turns(20).await;
        assert!(!flush.is_finished());
        cancel.raise_running();
        assert_eq!(flush.await, Err(Errno::EINTR));
        mount.server.world().away = false;
        turns(200).await;
        assert!(mount.server.content(1) == pattern(1, 300 * KIB));
        assert_eq!(mount.files.figures().dirty_bytes, 0);
    });
}

/// Each operation, with a server that does not answer and a caller that is killed.
#[test]
fn every_wait_can_be_stopped() {
    run(async {
        let mount = Rc::new(Mount::new(Arc::new(Model::new(1, 0)), 256 << 10, 1 << 20));
        let (node, other) = (mount.create(1), mount.create(2));
        mount.write(node, 0, &pattern(1, 200 * KIB)).await;
        mount.write(other, 0, &pattern(2, 200 * KIB)).await;
        mount.files.sync_all().await.unwrap();
        mount.server.world().away = true;
        mount.files.core().file(other).state().map = None;
        for operation in 0..12 {
            // Something is on its way already, and its file's order is held.
            mount.files.write(CALLER, node, 0, b"dirty", WriteMode::default(), None).await.unwrap();
            let cancel = Rc::new(Cancel::new());
            cancel.arm(8);
            let task = {
                let (mount, cancel) = (Rc::clone(&mount), Rc::clone(&cancel));
                spawn(async move {
                    let (files, cancel) = (&mount.files, Some(&*cancel));
                    let mut out = vec![0; 100 * KIB];
                    let size = SetAttr { size: Some(5), ..SetAttr::default() };
                    match operation {
                        0 => files.flush(node, cancel).await.err(),
                        1 => files.fsync(node, cancel).await.err(),
                        2 => files
                            .read(CALLER, node, KIB as u64, &mut out, ReadMode::default(), cancel)
                            .await
                            .err(),
                        3 => files.read(CALLER, other, 0, &mut out, ReadMode::default(), cancel).await.err(),
                        4 => files
                            .read(CALLER, Node::unsealed(Ino(3)), 0, &mut out, ReadMode::default(), cancel)
                            .await
                            .err(),
                        5 => files.set_attr(CALLER, node, size, cancel).await.err(),
                        6 => files.set_attr(CALLER, Node::unsealed(Ino(3)), size, cancel).await.err(),
                        7 => files.fallocate(CALLER, node, 0, 0, 9, cancel).await.err(),
                        8 => files.copy_range(CALLER, (other, 0), (node, 0), 9, cancel).await.err(),
                        9 => files.seek(CALLER, other, 0, true, cancel).await.err(),
                        10 => files.open(CALLER, other, OpenMode::default(), cancel).await.err(),
                        _ => loop {
                            let end = files.core().file(node).state().size();
                            let data = pattern(1, 50 * KIB);
                            if let Err(errno) =
                                files.write(CALLER, node, end, &data, WriteMode::default(), cancel).await
                            {
                                break Some(errno);
                            }
                        },
                    }
                })
            };
            turns(60).await;
            assert!(!task.is_finished(), "operation {operation}");
            cancel.raise_running();
            assert_eq!(task.await, Some(Errno::EINTR), "operation {operation}");
        }
        // When the server is back, all that was begun ends.
        mount.server.world().away = false;
        turns(500).await;
        assert_eq!(mount.files.sync_all().await, Ok(()));
        assert_eq!(mount.files.figures().dirty_bytes, 0);
    });
}

#[test]
fn an_abandoned_truncating_open_is_given_back() {
    run(async {
        let mount = Rc::new(mount());
        let node = mount.create(1);
        mount.write(node, 0, b"text").await;
        mount.server.world().away = true;
        let cancel = Rc::new(Cancel::new());
        cancel.arm(8);
        let mode = OpenMode { write: true, truncate: true, kill_privileges: false };
        let open = {
            let (mount, cancel) = (Rc::clone(&mount), Rc::clone(&cancel));
            spawn(async move { mount.files.open(CALLER, node, mode, Some(&cancel)).await })
        };
        turns(20).await;
        cancel.raise_running();
        assert_eq!(open.await, Err(Errno::EINTR));
        assert_eq!(mount.server.world().closes, 0);
        mount.server.world().away = false;
        turns(100).await;
        assert_eq!(mount.server.world().closes, 1);
        assert_eq!(mount.attr(node).await.size, 0, "the server did it, and the dirty bytes went too");
        assert_eq!(mount.files.core().file(node).state().opens, 1);
    });
}

#[test]
fn damaged_bytes_are_fetched_once_more() {
    run(async {
        let mount = mount();
        let node = mount.create(1);
        mount.write(node, 0, &pattern(1, 100 * KIB)).await;
        mount.files.flush(node, None).await.unwrap();
        mount.server.world().damaged_reads = 1;
        assert!(mount.read(node, 0, 100 * KIB).await == pattern(1, 100 * KIB));
        let other = Mount::new(Arc::clone(&mount.server), 256 << 10, 4 << 20);
        mount.server.world().damaged_reads = 9;
        let mut out = [0; 9];
        assert_eq!(
            other.files.read(CALLER, node, 70_000, &mut out, ReadMode::default(), None).await,
            Err(Errno::EIO)
        );
        mount.server.world().damaged_reads = 0;
        assert_eq!(
            other.files.read(CALLER, node, 70_000, &mut out, ReadMode::default(), None).await.unwrap().bytes,
            9
        );
    });
}

#[test]
fn a_page_that_is_damaged_comes_with_its_segment_and_one_that_cannot_come_alone_too() {
    run(async {
        let mount = mount();
        let node = mount.create(1);
        mount.write(node, 0, &pattern(1, 200 * KIB)).await;
        mount.files.flush(node, None).await.unwrap();
        let other = Mount::new(Arc::clone(&mount.server), 256 << 10, 4 << 20);
        let read = async |at: usize| {
            let bytes = other.read(node, at as u64, 100).await;
            assert!(bytes == pattern(1, 200 * KIB)[at..at + 100]);
            let world = mount.server.world();
            (world.page_reads, world.block_reads)
        };
        assert_eq!(read(70_000).await, (1, 0));
        mount.server.world().damaged_reads = 1;
        assert_eq!(read(80_000).await, (1, 1));
        assert_eq!(read(90_000).await, (1, 1), "the segment stays");
        mount.server.world().whole_only = true;
        assert_eq!(read(140_000).await, (1, 2));
        assert_eq!(read(150_000).await, (1, 2));
    });
}

#[test]
fn a_collected_block_makes_the_layout_be_read_again() {
    run(async {
        let mount = mount();
        let node = mount.create(1);
        mount.write(node, 0, &pattern(1, 100 * KIB)).await;
        mount.files.flush(node, None).await.unwrap();
        // Another client writes over it; the block is collected before this one hears of it.
        let other = Mount::new(Arc::clone(&mount.server), 256 << 10, 4 << 20);
        other.files.open(CALLER, node, OpenMode::default(), None).await.unwrap();
        other.write(node, 0, &pattern(2, 100 * KIB)).await;
        other.files.flush(node, None).await.unwrap();
        assert!(mount.read(node, 0, 100 * KIB).await == pattern(2, 100 * KIB));
        // And one that is simply not there.
        mount.server.world().blocks.clear();
        let mut out = [0; 9];
        assert_eq!(
            mount.files.read(CALLER, node, 10, &mut out, ReadMode::default(), None).await,
            Err(Errno::EIO)
        );
    });
}

#[test]
fn a_flight_whose_task_died_is_taken_up() {
    run(async {
        let mount = mount();
        let node = mount.create(1);
        mount.write(node, 0, &pattern(1, 300 * KIB)).await;
        // As a shard that ends leaves it: begun, and nobody at work.
        mount.server.world().away = true;
        turns(5).await;
        let file = mount.files.core().file(node);
        {
            let mut state = file.state();
            let pieces = state.dirty.take();
            state.launch(pieces, Progress::Waiting);
        }
        mount.server.world().away = false;
        mount.files.core().write_back_old(Duration::from_secs(3600)).await;
        assert!(mount.server.content(1) == pattern(1, 300 * KIB));
    });
}
