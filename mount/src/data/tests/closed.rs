//! What a program that closes a file waits for.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::lease::Leases;
use flexfs_wire::seal::Node;

use super::{CALLER, Mount, pattern, run, turns};
use crate::data::OpenMode;
use crate::data::model::Model;
use crate::data::server::Server as _;

fn mount() -> Mount {
    Mount::new(Arc::new(Model::new(1, 2)), 4096, 1 << 20)
}

#[test]
fn a_small_file_is_closed_before_its_bytes_are_at_the_server() {
    run(async {
        let mount = mount();
        let node = mount.create(1);
        mount.write(node, 0, b"few").await;
        mount.files.flush_closed(node, None).await.unwrap();
        assert_eq!(mount.server.content(1), b"");
        assert_eq!(mount.read(node, 0, 9).await, b"few");
        // As to a client that is asked to give it back.
        mount.files.recalled(node.ino).unwrap().share().await;
        assert_eq!(mount.server.content(1), b"few");
        // What others may ask the server for is waited for.
        let shared = mount.create(3);
        mount.server.recalls().void();
        mount.server.world().leases = Leases::NONE;
        mount.write(shared, 0, b"few").await;
        mount.files.flush_closed(shared, None).await.unwrap();
        assert_eq!(mount.server.content(3), b"few");
    });
}

/// Room for whatever comes.
const PLENTY: u64 = 1 << 40;

#[test]
fn a_large_file_is_closed_before_its_bytes_are_at_the_server_that_has_room() {
    run(async {
        let mount = mount();
        mount.server.world().free_bytes = PLENTY;
        let close_one = async |ino: u64| {
            let node = mount.create(ino);
            mount.write(node, 0, &pattern(ino, 20_000)).await;
            mount.server.world().away = true;
            let mut closing = Box::pin(mount.files.flush_closed(node, None));
            let is_behind = now_or_never(closing.as_mut()).is_some();
            mount.server.world().away = false;
            if !is_behind {
                closing.await.unwrap();
                assert_eq!(mount.server.content(ino), pattern(ino, 20_000));
            }
            is_behind
        };
        assert!(!close_one(1).await, "its room is not known");
        turns(50).await;
        assert!(close_one(2).await);
        assert_eq!(mount.server.content(2), b"");
        assert_eq!(mount.read(Node::unsealed(Ino(2)), 0, 20_000).await, pattern(2, 20_000));
        turns(100).await;
        assert_eq!(mount.server.content(2), pattern(2, 20_000), "nobody needs to ask for it");
        // Another who looks gets it.
        assert!(close_one(3).await);
        mount.files.recalled(Ino(3)).unwrap().share().await;
        assert_eq!(mount.server.content(3), pattern(3, 20_000));
        // The disk gets full.
        mount.server.world().free_bytes = 1 << 30;
        flexfs_uring::timer::sleep(Duration::from_millis(600)).await;
        close_one(4).await;
        turns(50).await;
        assert!(!close_one(5).await, "an error would not be heard");
    });
}

#[test]
fn a_file_that_is_cut_after_it_was_closed_is_not_counted_any_more() {
    run(async {
        let mount = Mount::new(Arc::new(Model::new(1, 2)), 4096, 64 << 20);
        for ino in 1..=600 {
            let node = mount.create(ino);
            mount.write(node, 0, b"few").await;
            mount.files.flush_closed(node, None).await.unwrap();
            assert_eq!(mount.server.content(ino), b"", "{ino}");
            let mode = OpenMode { write: true, truncate: true, ..OpenMode::default() };
            mount.files.open(CALLER, node, mode, None).await.unwrap();
        }
    });
}

#[test]
fn what_takes_the_place_of_another_is_at_the_server_before() {
    run(async {
        let mount = mount();
        mount.server.world().free_bytes = PLENTY;
        for (ino, bytes) in [(1, 3), (2, 20_000), (3, 20_000)] {
            let node = mount.create(ino);
            mount.write(node, 0, &pattern(ino, bytes)).await;
            mount.files.flush_closed(node, None).await.unwrap();
            turns(50).await;
        }
        let node = mount.create(4);
        mount.write(node, 0, b"few").await;
        mount.files.flush_closed(node, None).await.unwrap();
        mount.files.settle(Some(node.ino), None).await.unwrap();
        assert_eq!(mount.server.content(4), b"few");
        // Which it is may not be known.
        let node = mount.create(5);
        mount.write(node, 0, b"few").await;
        mount.files.flush_closed(node, None).await.unwrap();
        mount.files.settle(None, None).await.unwrap();
        assert_eq!(mount.server.content(5), b"few");
        // It stays what it was when the new bytes are lost.
        let node = mount.create(6);
        mount.write(node, 0, b"few").await;
        mount.server.world().write_errors = vec![Errno::ENOSPC];
        assert_eq!(mount.files.settle(Some(node.ino), None).await, Err(Errno::ENOSPC));
        assert_eq!(
            mount.files.settle(Some(node.ino), None).await,
            Err(Errno::ENOSPC),
            "it is still not told"
        );
        assert_eq!(mount.files.flush(node, None).await, Err(Errno::ENOSPC));
        mount.files.settle(Some(node.ino), None).await.unwrap();
    });
}

/// What it gives in a few turns.
fn now_or_never<T>(future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

#[test]
fn only_so_many_closed_files_are_behind() {
    run(async {
        let mount = Mount::new(Arc::new(Model::new(1, 2)), 4096, 64 << 20);
        let mut sent = Vec::new();
        for ino in 1..=600 {
            let node = mount.create(ino);
            mount.write(node, 0, b"few").await;
            mount.files.flush_closed(node, None).await.unwrap();
            sent.push(!mount.server.content(ino).is_empty());
        }
        assert_eq!(sent.iter().position(|sent| *sent), Some(512));
        mount.files.sync_all().await.unwrap();
        assert!((1..=600).all(|ino| mount.server.content(ino) == b"few"));
        // All of it is over, and there is room again.
        let node = mount.create(700);
        mount.write(node, 0, b"few").await;
        mount.files.flush_closed(node, None).await.unwrap();
        assert_eq!(mount.server.content(700), b"");
    });
}
