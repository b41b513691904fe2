//! Leases: what is asked for before bytes are read or written, and what a recall leaves.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use flexfs_uring::spawn;
use flexfs_wire::errno::Errno;
use flexfs_wire::lease::Leases;
use flexfs_wire::message::{FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, Request};

use super::{CALLER, Mount, pattern, run, turns};
use crate::data::model::Model;
use crate::data::server::Server as _;
use crate::data::{Got, OpenMode, ReadMode, WriteMode};

fn mount() -> Mount {
    Mount::new(Arc::new(Model::new(1, 2)), 4096, 1 << 20)
}

#[test]
fn a_shared_recall_brings_what_was_written_and_later_writes_ask() {
    run(async {
        let mount = mount();
        let node = mount.create(1);
        mount.write(node, 0, b"one").await;
        assert_eq!(mount.server.content(1), b"");
        // As to a client that is asked to give it back.
        mount.server.world().leases = Leases::NONE;
        mount.files.recalled(node.ino).unwrap().share().await;
        assert_eq!(mount.server.content(1), b"one");
        mount.write(node, 3, b"two").await;
        assert_eq!(mount.server.content(1), b"onetwo");
        mount.server.world().leases = Leases::ALL;
        mount.write(node, 6, b"kept").await;
        assert_eq!(mount.server.content(1), b"onetwo", "granted again");
    });
}

/// The server restarted and is told which files have unwritten bytes. What is written to another one before the recovery has ended would
/// be kept here under a lease the server knows nothing of, and others would read what was before.
#[test]
fn only_what_is_declared_stays_exclusive() {
    run(async {
        let mount = mount();
        let (clean, dirty) = (mount.create(1), mount.create(2));
        for node in [clean, dirty] {
            mount.write(node, 0, b"one").await;
        }
        mount.files.flush(clean, None).await.unwrap();
        assert_eq!(mount.files.declare_dirty(), [dirty]);
        mount.server.world().leases = Leases::NONE;
        mount.write(clean, 3, b"two").await;
        assert_eq!(mount.server.content(1), b"onetwo", "the server hears of it before its program goes on");
        mount.write(dirty, 3, b"two").await;
        assert_eq!(mount.server.content(2), b"");
    });
}

#[test]
fn after_a_recall_nothing_is_believed() {
    run(async {
        let server = Arc::new(Model::new(1, 2));
        let here = Mount::new(Arc::clone(&server), 4096, 1 << 20);
        let there = Mount::new(server, 4096, 1 << 20);
        let node = here.create(1);
        here.write(node, 0, &pattern(1, 10_000)).await;
        let recalled = here.files.recalled(node.ino).unwrap();
        recalled.clone().begin().await;
        assert_eq!(here.server.content(1), pattern(1, 10_000));
        // Reads go on until the recall is answered, and are known to have brought old pages.
        assert_eq!(here.read(node, 4096, 100).await, pattern(1, 10_000)[4096..4196]);
        assert_eq!(recalled.shut(Duration::from_secs(9)), vec![4096..4196]);
        assert_eq!(recalled.shut(Duration::from_secs(9)), []);
        recalled.end().await;
        there.files.open(CALLER, node, OpenMode { write: true, ..OpenMode::default() }, None).await.unwrap();
        there.write(node, 5000, &pattern(2, 10_000)).await;
        there.files.flush(node, None).await.unwrap();
        let mut expected = pattern(1, 5000);
        expected.extend(pattern(2, 10_000));
        assert_eq!(here.read(node, 0, 20_000).await, expected);
    });
}

#[test]
fn reads_wait_while_the_last_pages_go() {
    run(async {
        let mount = Rc::new(mount());
        let node = mount.create(1);
        mount.write(node, 0, b"text").await;
        let recalled = mount.files.recalled(node.ino).unwrap();
        recalled.clone().begin().await;
        assert_eq!(recalled.shut(Duration::from_secs(9)), []);
        let reader = {
            let mount = Rc::clone(&mount);
            spawn(async move { mount.read(node, 0, 9).await })
        };
        turns(20).await;
        assert!(!reader.is_finished());
        // What the kernel writes back because of the recall does not wait, and goes out with it.
        let how = WriteMode { from_pages: true, ..WriteMode::default() };
        mount.files.write(CALLER, node, 4096, b"mapped", how, None).await.unwrap();
        // The kernel asks for the first page, so it has nothing of it.
        mount.files.write(CALLER, node, 4, b"more", how, None).await.unwrap();
        let (first, second) = (4..8, 4096..4102);
        assert!(recalled.are_held(&[first.clone(), 0..4]) && !recalled.are_held(&[first, second]));
        assert_eq!(recalled.shut(Duration::from_secs(9)), vec![4096..4102]);
        recalled.end().await;
        assert_eq!(reader.await, b"textmore\0");
        assert_eq!(mount.server.content(1)[4090..], *b"\0\0\0\0\0\0mapped");
    });
}

/// The kernel holds its page locked, which the recall waits for. After the recall before nothing is known of the file.
#[test]
fn a_write_does_not_wait_for_the_second_of_two_recalls() {
    run(async {
        let mount = mount();
        let node = mount.create(1);
        mount.files.recalled(node.ino).unwrap().begin().await;
        mount.files.recalled(node.ino).unwrap().end().await;
        let second = mount.files.recalled(node.ino).unwrap();
        second.clone().begin().await;
        mount.write(node, 0, b"text").await;
        assert_eq!(mount.server.content(1), b"text");
        second.end().await;
    });
}

/// A read takes longer than a recall waits for it.
#[test]
fn a_read_that_outlasts_a_recall_does_not_end_early() {
    run(async {
        let mount = Rc::new(Mount::new(Arc::new(Model::new(1, 0)), 1 << 20, 1 << 20));
        let node = mount.create(1);
        mount.write(node, 0, &pattern(1, 200_000)).await;
        mount.files.flush(node, None).await.unwrap();
        mount.files.open(CALLER, node, OpenMode::default(), None).await.unwrap();
        mount.server.world().apply(Request::Fallocate { node, mode: 0, offset: 0, length: 1 }).unwrap();
        mount.attr(node).await;
        mount.server.world().away = true;
        let reader = {
            let mount = Rc::clone(&mount);
            spawn(async move { mount.read(node, 131_072, 4096).await })
        };
        turns(20).await;
        let recalled = mount.files.recalled(node.ino).unwrap();
        recalled.clone().begin().await;
        assert_eq!(recalled.try_shut(), None);
        recalled.end().await;
        mount.server.world().away = false;
        assert_eq!(reader.await, pattern(1, 200_000)[131_072..135_168]);
    });
}

/// The session was lost while a recall waited for the server; the new session's recall of the same file comes meanwhile.
#[test]
fn recalls_of_a_file_are_processed_one_after_the_other() {
    run(async {
        let mount = mount();
        let node = mount.create(1);
        let (first, second) =
            (mount.files.recalled(node.ino).unwrap(), mount.files.recalled(node.ino).unwrap());
        first.clone().begin().await;
        assert_eq!(first.try_shut(), Some(Vec::new()));
        let begun = spawn(second.clone().begin());
        turns(20).await;
        assert!(!begun.is_finished());
        first.end().await;
        begun.await;
        assert_eq!(second.try_shut(), Some(Vec::new()));
        second.end().await;
    });
}

/// A recall overtakes the answer that grants what it is about. Until its end it makes nothing of nothing: what an older answer told must
/// not be taken for true.
#[test]
fn a_recall_of_a_lease_that_has_not_come_is_no_lease() {
    run(async {
        let server = Arc::new(Model::new(1, 2));
        let here = Mount::new(Arc::clone(&server), 4096, 1 << 20);
        let there = Mount::new(server, 4096, 1 << 20);
        let node = there.create(1);
        there.write(node, 0, b"old").await;
        there.files.flush(node, None).await.unwrap();
        here.server.world().leases = Leases::NONE;
        here.files.open(CALLER, node, OpenMode::default(), None).await.unwrap();
        let recalled = here.files.recalled(node.ino).unwrap();
        recalled.clone().begin().await;
        there.write(node, 0, b"new").await;
        there.files.flush(node, None).await.unwrap();
        let mut out = [0; 9];
        let how = ReadMode::default();
        let got = here.files.read(CALLER, node, 0, &mut out, how, None).await.unwrap();
        assert_eq!(&out[..got.bytes], b"new");
        assert!(got.is_unheld, "the kernel is not to keep it");
        recalled.end().await;
    });
}

/// Each has its own pages dropped, and waits for no other's.
#[test]
fn every_read_that_no_lease_holds_is_told() {
    run(async {
        let mount = Rc::new(mount());
        let node = mount.create(1);
        mount.write(node, 0, &pattern(1, 100_000)).await;
        mount.files.recalled(node.ino).unwrap().begin().await;
        mount.files.recalled(node.ino).unwrap().end().await;
        mount.server.world().leases = Leases::NONE;
        let readers = [0, 65_536].map(|offset| {
            let mount = Rc::clone(&mount);
            spawn(async move {
                let mut out = [0; 4096];
                mount.files.read(CALLER, node, offset, &mut out, ReadMode::default(), None).await.unwrap()
            })
        });
        for reader in readers {
            assert_eq!(reader.await, Got { bytes: 4096, is_unheld: true });
        }
        mount.server.world().leases = Leases::ALL;
        let mut out = [0; 4096];
        let got = mount.files.read(CALLER, node, 0, &mut out, ReadMode::default(), None).await.unwrap();
        assert!(!got.is_unheld, "granted again");
    });
}

/// This client was cut off while a read waited for a block, and another one has written meanwhile. Who began to read after that waits for
/// the kernel's page that the first read fills.
#[test]
fn what_is_read_across_the_end_of_a_lease_is_read_anew() {
    run(async {
        let mount = Rc::new(Mount::new(Arc::new(Model::new(1, 0)), 1 << 20, 1 << 20));
        let node = mount.create(1);
        mount.write(node, 0, &pattern(1, 200_000)).await;
        mount.files.flush(node, None).await.unwrap();
        mount.read(node, 0, 4096).await;
        mount.server.world().away = true;
        let reader = {
            let mount = Rc::clone(&mount);
            spawn(async move { mount.read(node, 131_072, 4096).await })
        };
        turns(20).await;
        mount.server.recalls().void();
        let (mode, offset, length) = (FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 131_072, 4096);
        mount.server.world().apply(Request::Fallocate { node, mode, offset, length }).unwrap();
        mount.server.world().away = false;
        assert_eq!(reader.await, [0; 4096]);
    });
}

#[test]
fn bytes_of_a_lost_lease_go_out_only_if_nobody_wrote_since() {
    run(async {
        let server = Arc::new(Model::new(1, 2));
        let here = Mount::new(Arc::clone(&server), 4096, 1 << 20);
        let there = Mount::new(server, 4096, 1 << 20);
        let node = here.create(1);
        here.write(node, 0, b"one").await;
        here.server.recalls().void();
        here.files.flush(node, None).await.unwrap();
        assert_eq!(here.server.content(1), b"one", "nobody was there meanwhile");
        here.write(node, 0, b"here").await;
        here.server.recalls().void();
        there.write(node, 0, b"there").await;
        there.files.flush(node, None).await.unwrap();
        assert_eq!(here.files.flush(node, None).await, Err(Errno::EIO));
        assert_eq!(here.files.flush(node, None).await, Ok(()), "told once");
        assert_eq!(here.server.content(1), b"there");
        assert_eq!(here.read(node, 0, 9).await, b"there");
        assert_eq!(here.files.figures().dirty_bytes, 0);
    });
}

#[test]
fn appends_go_to_the_end_wherever_that_is() {
    run(async {
        let server = Arc::new(Model::new(1, 2));
        let here = Mount::new(Arc::clone(&server), 4096, 1 << 20);
        let there = Mount::new(server, 4096, 1 << 20);
        let node = here.create(1);
        let how = WriteMode { append: true, direct: true, ..WriteMode::default() };
        for (mount, bytes) in [(&here, b"a"), (&there, b"b"), (&here, b"c")] {
            // Offset 0: a kernel that does not know of the other's bytes.
            mount.files.write(CALLER, node, 0, bytes, how, None).await.unwrap();
            mount.files.recalled(node.ino).unwrap().begin().await;
            mount.files.recalled(node.ino).unwrap().end().await;
        }
        assert_eq!(here.server.content(1), b"abc");
    });
}
