//! Links against a small server that dies, forgets, falls silent and lies about nothing else: every call is answered,
//! every mutation holds exactly once, in the order its caller saw.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests: a failed step is a failed test"
)]

mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flexfs_mount::cancel::Cancel;
use flexfs_mount::link::{Locate, Remote, Target};
use flexfs_mount::store::{Place, Store};
use flexfs_uring::timer::{sleep, timeout};
use flexfs_uring::{Shard, ShardConfig, spawn};
use flexfs_wire::attr::SetAttr;
use flexfs_wire::block;
use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::message::{Caller, Lock, LockFamily, LockKind, Reply, Request};
use flexfs_wire::seal::Node;
use flexfs_wire::settings::{Compression, Flags};
use flexfs_wire::token::Secret;
use server::Server;

const ME: Caller = Caller { uid: 1, gid: 1 };

fn target(server: &Server, shards: usize, token: &str) -> Target {
    Target {
        meta_addr: server.addr.clone(),
        tls: server.client.clone(),
        token: Secret::new(token.to_owned()),
        volume: "volume".to_owned(),
        client: "test:/mnt".to_owned(),
        flags: Flags::default(),
        soft: None,
        shards,
        cipher: None,
        disk: None,
        locate: None,
        lock_wait_max: Duration::from_secs(30),
    }
}

fn node(ino: u64) -> Node {
    Node { ino: Ino(ino), seal: 1 }
}

fn mutation(ino: u64) -> Request {
    Request::SetAttr { node: node(ino), change: SetAttr::default() }
}

/// Runs `test` on one shard with a session of its own.
fn with_remote<F: Future<Output = ()> + 'static>(test: impl FnOnce(Arc<Remote>, Arc<Server>) -> F) {
    let server = Arc::new(Server::start());
    let remote = Remote::open(target(&server, 1, "good")).unwrap();
    let config = ShardConfig { recv_buffer_bytes: 20_000, ..ShardConfig::default() };
    let future = test(Arc::clone(&remote), Arc::clone(&server));
    Shard::new(&config).unwrap().block_on(async move {
        remote.start(0);
        timeout(Duration::from_secs(40), future).await.expect("the test hangs");
        remote.stop().await;
    });
    assert_eq!(server.world.lock().unwrap().problems, [""; 0]);
}

#[test]
fn a_refusal_keeps_the_servers_words() {
    let server = Server::start();
    let error = Remote::open(target(&server, 1, "bad")).unwrap_err();
    assert_eq!(error.to_string(), "this token is unknown");
    let mut nowhere = target(&server, 1, "good");
    nowhere.meta_addr = "127.0.0.1:1".to_owned();
    let error = Remote::open(nowhere).unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:1 cannot be reached"), "{error}");
}

#[test]
fn calls_numbers_blocks_and_durability() {
    with_remote(|remote, server| async move {
        assert_eq!(remote.call(ME, mutation(5), None).await, Ok(Reply::Done));
        assert_eq!(remote.last_commit().0, 1);
        remote.sync().await.unwrap();
        assert_eq!(server.world.lock().unwrap().durable, 1);
        let mut inos = Vec::new();
        for _ in 0..9000 {
            let node = remote.next_node(None).await.unwrap();
            assert_eq!(node.seal, node.ino.0, "numbers and seals stay together");
            inos.push(node.ino.0);
        }
        inos.sort_unstable();
        inos.dedup();
        assert_eq!(inos.len(), 9000);
        for compression in [Compression::None, Compression::Lz4] {
            let raw: Vec<u8> = (0..=250u8).cycle().take(1_000_000).collect();
            let mut encoded = Vec::new();
            block::seal(&raw, compression, &mut encoded).unwrap();
            let id = remote.next_block().await.unwrap();
            remote.put_block(id, encoded, None).await.unwrap();
            let (segments, stored) = remote.read_block(node(5), id, 2, 3, None).await.unwrap();
            assert_eq!(segments.iter().map(|s| s.stored_bytes as usize).sum::<usize>(), stored.len());
            // The whole segments straight into a slice, the last one, whose length only the block knows, into a vector.
            server.world.lock().unwrap().break_payloads = 2;
            let mut out = vec![0; 15 * 65_536];
            let mut tail = Vec::new();
            let mut places: Vec<Place<'_>> = out.chunks_mut(65_536).map(Place::Slice).collect();
            places.push(Place::Buffer(&mut tail));
            let store = Store::Hosted(Arc::clone(&remote));
            store.read(node(5), id, 0, &mut places, None).await.unwrap();
            out.extend(tail);
            assert!(out == raw);
            let missing = flexfs_wire::id::BlockId(1);
            let mut places = [Place::Buffer(&mut Vec::new())];
            assert_eq!(store.read(node(5), missing, 0, &mut places, None).await, Err(Errno::ENOENT));
        }
        assert!(remote.figures().reconnects >= 2);
    });
}

async fn put_large(remote: &Remote) {
    let mut encoded = Vec::new();
    block::seal(&vec![7; 300_000], Compression::None, &mut encoded).unwrap();
    let id = remote.next_block().await.unwrap();
    remote.put_block(id, encoded, None).await.unwrap();
}

#[test]
fn large_blocks_have_a_link_of_their_own() {
    with_remote(|remote, server| async move {
        remote.call(ME, mutation(5), None).await.unwrap();
        let mut small = Vec::new();
        block::seal(&[7; 1000], Compression::None, &mut small).unwrap();
        let id = remote.next_block().await.unwrap();
        remote.put_block(id, small, None).await.unwrap();
        sleep(Duration::from_millis(300)).await;
        assert_eq!(remote.figures().links, 1, "nothing large so far");
        // The first goes on the link that stands.
        put_large(&remote).await;
        while remote.figures().links < 2 {
            sleep(Duration::from_millis(10)).await;
        }
        put_large(&remote).await;
        server.kill();
        sleep(Duration::from_millis(20)).await;
        server.set_down(false);
        for _ in 0..3 {
            put_large(&remote).await;
            remote.call(ME, mutation(5), None).await.unwrap();
        }
        while remote.figures().links < 2 {
            sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn every_mutation_holds_once_though_the_server_dies_again_and_again() {
    const SHARDS: usize = 2;
    const TASKS: usize = 6;
    let server = Arc::new(Server::start());
    let remote = Remote::open(target(&server, SHARDS, "good")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..SHARDS)
        .map(|index| {
            let (remote, stop) = (Arc::clone(&remote), Arc::clone(&stop));
            std::thread::spawn(move || {
                Shard::new(&ShardConfig::default()).unwrap().block_on(async move {
                    remote.start(index);
                    let tasks: Vec<_> = (0..TASKS)
                        .map(|task| {
                            let (remote, stop) = (Arc::clone(&remote), Arc::clone(&stop));
                            spawn(async move {
                                let mut count = 0;
                                while !stop.load(Ordering::SeqCst) {
                                    remote.call(ME, mutation(task as u64), None).await.unwrap();
                                    remote.call(ME, Request::StatFs, None).await.unwrap();
                                    if task == 0 && count % 50 == 0 {
                                        remote.sync().await.unwrap();
                                    }
                                    if task == 1 && count % 20 == 0 {
                                        // On a link that knows nothing of the calls of the other one.
                                        put_large(&remote).await;
                                    }
                                    count += 1;
                                }
                                count
                            })
                        })
                        .collect();
                    let mut count = 0u64;
                    for task in tasks {
                        count += task.await;
                    }
                    remote.sync().await.unwrap();
                    (count, remote)
                })
            })
        })
        .collect();
    for round in 0..12 {
        std::thread::sleep(Duration::from_millis(60));
        {
            // Something becomes durable that nobody was told of.
            let mut world = server.world.lock().unwrap();
            world.durable = (world.durable + world.seq) / 2;
        }
        server.kill();
        std::thread::sleep(Duration::from_millis(if round % 3 == 0 { 120 } else { 5 }));
        server.set_down(false);
    }
    std::thread::sleep(Duration::from_millis(200));
    stop.store(true, Ordering::SeqCst);
    let deadline = Instant::now() + Duration::from_secs(30);
    while threads.iter().any(|thread| !thread.is_finished()) {
        assert!(Instant::now() < deadline, "a call was never answered: {:?}", remote.figures());
        std::thread::sleep(Duration::from_millis(10));
    }
    let count: u64 = threads.into_iter().map(|thread| thread.join().unwrap().0).sum();
    let world = server.world.lock().unwrap();
    assert_eq!(world.problems, [""; 0]);
    assert!(world.recoveries >= 6, "{}", world.recoveries);
    let mut ids: Vec<u64> = world.log.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids.len() as u64, count, "{:?}", remote.figures());
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len() as u64, count);
    assert!(count > 200, "{count}");
    eprintln!("{count} mutations over {} recoveries: {:?}", world.recoveries, remote.figures());
}

#[test]
fn a_forgotten_session_is_opened_anew_with_its_files() {
    with_remote(|remote, server| async move {
        let open = Request::Open { node: node(7), write: true, truncate: false, kill_privileges: false };
        for _ in 0..2 {
            remote.call(ME, open.clone(), None).await.unwrap();
        }
        remote.call(ME, mutation(7), None).await.unwrap();
        let commit = remote.last_commit();
        let before = remote.next_node(None).await.unwrap().ino;
        // The lease runs out while the server lives: what was answered is still there.
        server.forget_session();
        remote.call(ME, Request::StatFs, None).await.unwrap();
        assert_eq!((remote.generation(), remote.lost_after(commit, 0)), (1, false));
        assert_eq!(server.world.lock().unwrap().opens[&7], 2);
        let after = remote.next_node(None).await.unwrap().ino;
        assert!(after.0 > before.0 + 4000, "old numbers are of no use");
        // Now the server dies too.
        remote.call(ME, mutation(7), None).await.unwrap();
        let commit = remote.last_commit();
        server.kill();
        server.forget_session();
        server.set_down(false);
        remote.call(ME, Request::StatFs, None).await.unwrap();
        assert_eq!(
            (remote.generation(), remote.lost_after(commit, 1), remote.lost_after(commit, 2)),
            (2, true, false)
        );
        assert_eq!(server.world.lock().unwrap().opens[&7], 2);
        remote.sync().await.unwrap();
        remote.call_later(ME, Request::Close { node: node(7), count: 2 });
        remote.call(ME, mutation(7), None).await.unwrap();
        assert_eq!(server.world.lock().unwrap().opens[&7], 0);
    });
}

#[test]
fn what_was_sent_to_a_lost_session_is_in_doubt() {
    with_remote(|remote, server| async move {
        server.world.lock().unwrap().mute = true;
        let asker = Arc::clone(&remote);
        let doubtful = spawn(async move { asker.call(ME, mutation(1), None).await });
        let asker = Arc::clone(&remote);
        let harmless = spawn(async move { asker.call(ME, Request::StatFs, None).await });
        sleep(Duration::from_millis(50)).await;
        server.world.lock().unwrap().mute = false;
        server.forget_session();
        assert_eq!(doubtful.await, Err(Errno::ESTALE));
        assert_eq!(harmless.await, Ok(Reply::Done));
    });
}

#[test]
fn waits_can_be_interrupted() {
    with_remote(|remote, server| async move {
        let lock =
            Lock { family: LockFamily::Posix, kind: LockKind::Write, owner: 1, pid: 1, start: 0, end: 9 };
        let cancel = Arc::new(Cancel::new());
        cancel.arm(4);
        let raiser = Arc::clone(&cancel);
        spawn(async move {
            sleep(Duration::from_millis(30)).await;
            raiser.raise(4);
        });
        let wait = Request::Lock { node: node(1), lock, wait: true };
        assert_eq!(remote.call(ME, wait, Some(&cancel)).await, Err(Errno::EINTR));
        // Away: at once, and what was not sent is not done.
        server.set_down(true);
        sleep(Duration::from_millis(100)).await;
        let asker = Arc::clone(&remote);
        let patient = spawn(async move { asker.call(ME, mutation(1), None).await });
        cancel.arm(6);
        let raiser = Arc::clone(&cancel);
        spawn(async move {
            sleep(Duration::from_millis(30)).await;
            raiser.raise(6);
        });
        let began = Instant::now();
        assert_eq!(remote.call(ME, mutation(2), Some(&cancel)).await, Err(Errno::EINTR));
        assert!(began.elapsed() < Duration::from_millis(500));
        server.set_down(false);
        assert_eq!(patient.await, Ok(Reply::Done));
        assert_eq!(server.world.lock().unwrap().log.len(), 1);
    });
}

#[test]
fn an_interrupted_open_is_given_back() {
    with_remote(|remote, server| async move {
        server.world.lock().unwrap().mute = true;
        let open = Request::Open { node: node(9), write: false, truncate: false, kill_privileges: false };
        let asker = Arc::clone(&remote);
        let opening = spawn(async move { asker.call(ME, open, None).await });
        sleep(Duration::from_millis(30)).await;
        opening.abort();
        server.world.lock().unwrap().mute = false;
        server.set_down(true);
        server.set_down(false);
        remote.call(ME, Request::StatFs, None).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while server.world.lock().unwrap().opens.get(&9) != Some(&0) {
            assert!(Instant::now() < deadline);
            sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn a_revoked_session_answers_eacces() {
    with_remote(|remote, server| async move {
        remote.call(ME, mutation(1), None).await.unwrap();
        server.revoke();
        assert_eq!(remote.call(ME, mutation(1), None).await, Err(Errno::EACCES));
        assert_eq!(remote.call(ME, Request::StatFs, None).await, Err(Errno::EACCES));
        assert_eq!(remote.next_node(None).await, Err(Errno::EACCES));
        assert_eq!(remote.figures().state, "ended");
    });
}

#[test]
fn a_soft_mount_gives_up_and_comes_back() {
    let server = Arc::new(Server::start());
    let soft = Target { soft: Some(Duration::from_millis(200)), ..target(&server, 1, "good") };
    let remote = Remote::open(soft).unwrap();
    Shard::new(&ShardConfig::default()).unwrap().block_on(async move {
        remote.start(0);
        remote.call(ME, mutation(1), None).await.unwrap();
        server.set_down(true);
        assert_eq!(remote.call(ME, Request::StatFs, None).await, Err(Errno::ETIMEDOUT));
        assert_eq!(remote.call(ME, mutation(2), None).await, Err(Errno::ETIMEDOUT));
        server.set_down(false);
        let began = Instant::now();
        while remote.call(ME, Request::StatFs, None).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(5));
            sleep(Duration::from_millis(20)).await;
        }
        remote.leave(Duration::from_secs(2)).await.unwrap();
        assert_eq!(remote.call(ME, Request::StatFs, None).await, Err(Errno::EIO));
        remote.stop().await;
    });
}

#[test]
fn more_calls_than_a_link_takes_wait_their_turn() {
    with_remote(|remote, _server| async move {
        let calls: Vec<_> = (0..5000)
            .map(|number| {
                let remote = Arc::clone(&remote);
                spawn(async move { remote.call(ME, mutation(number), None).await })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await, Ok(Reply::Done));
        }
        assert_eq!(remote.last_commit().0, 5000);
    });
}

#[test]
fn a_silent_server_is_left_for_a_new_link() {
    leaves_a_mute_server(false);
}

/// Recalls that were told again and again kept a link alive on which nothing went the other way: after 30 s the server ended
/// the session, and files were lost with it.
#[test]
fn so_is_one_that_only_sends_notices() {
    leaves_a_mute_server(true);
}

fn leaves_a_mute_server(notifies: bool) {
    with_remote(move |remote, server| async move {
        remote.call(ME, mutation(1), None).await.unwrap();
        server.world.lock().unwrap().notifies = notifies;
        server.world.lock().unwrap().mute = true;
        let asker = Arc::clone(&remote);
        let asked = spawn(async move { asker.call(ME, mutation(2), None).await });
        let began = Instant::now();
        while remote.figures().reconnects == 0 {
            assert!(began.elapsed() < Duration::from_secs(16), "silence was never noticed");
            sleep(Duration::from_millis(100)).await;
            if began.elapsed() > Duration::from_secs(if notifies { 12 } else { 7 }) {
                server.world.lock().unwrap().mute = false;
            }
        }
        server.world.lock().unwrap().mute = false;
        assert_eq!(asked.await, Ok(Reply::Done));
    });
}

/// A wait that nobody answers would hold the mark back, and the server would keep the answers to all calls behind it.
#[test]
fn a_long_wait_for_a_lock_does_not_hold_the_mark() {
    let server = Arc::new(Server::start());
    let short = Target { lock_wait_max: Duration::from_millis(100), ..target(&server, 1, "good") };
    let remote = Remote::open(short).unwrap();
    let world = Arc::clone(&server);
    Shard::new(&ShardConfig::default()).unwrap().block_on(async move {
        remote.start(0);
        let lock =
            Lock { family: LockFamily::Posix, kind: LockKind::Write, owner: 1, pid: 1, start: 0, end: 9 };
        let asker = Arc::clone(&remote);
        let wait = Request::Lock { node: node(1), lock, wait: true };
        let waiting = spawn(async move { asker.call(ME, wait, None).await });
        let mut seen = Vec::new();
        for _ in 0..12 {
            remote.call(ME, mutation(2), None).await.unwrap();
            seen.push(world.world.lock().unwrap().mark);
            sleep(Duration::from_millis(50)).await;
        }
        seen.dedup();
        assert!(seen.len() > 3, "the mark stands still: {seen:?}");
        assert!(!waiting.is_finished(), "a wait that is asked for anew is no end of it");
        waiting.abort();
        remote.stop().await;
    });
    assert_eq!(server.world.lock().unwrap().problems, [""; 0]);
}

/// The operator started the server elsewhere: whoever knows is asked, and nobody has to mount anew.
#[test]
fn a_server_that_moved_is_found() {
    let (old, new) = (Server::start(), Arc::new(Server::start()));
    let there = new.addr.clone();
    let asked = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&asked);
    let locate = Locate(Arc::new(move || {
        noted.store(true, Ordering::SeqCst);
        Ok(there.clone())
    }));
    let remote = Remote::open(Target { locate: Some(locate), ..target(&old, 1, "good") }).unwrap();
    Shard::new(&ShardConfig::default()).unwrap().block_on(async move {
        remote.start(0);
        remote.call(ME, mutation(1), None).await.unwrap();
        old.set_down(true);
        let began = Instant::now();
        while remote.figures().meta_addr != new.addr {
            assert!(began.elapsed() < Duration::from_secs(20), "nobody was asked: {asked:?}");
            sleep(Duration::from_millis(100)).await;
        }
        remote.stop().await;
    });
}
