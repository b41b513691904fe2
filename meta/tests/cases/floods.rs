//! Too much of everything: requests without reading the answers, bodies as long as they can be, waits without end,
//! connections that say nothing. Memory stays bounded, and whoever behaves is served meanwhile.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use flexfs_wire::errno::Errno;
use flexfs_wire::frame::{Header, Kind};
use flexfs_wire::hello::Welcome;
use flexfs_wire::id::{Commit, RequestId};
use flexfs_wire::message::{Call, Caller, Lock, LockFamily, LockKind, Replay, Reply, Request, XattrMode};
use flexfs_wire::seal::Node;
use flexfs_wire::settings::Flags;
use flexfs_wire::time::Time;

use crate::client::cluster::{Cluster, within};
use crate::client::witness::Witness;
use crate::client::{Link, Session};

/// Requests one client sends on a link without a look at the answers: more than the server takes at once.
const FLOOD: u64 = 1500;

/// Says how memory went, and that it did not go beyond `most_mib` more than before.
fn memory(what: &str, before: u64, cluster: &Cluster, most_mib: u64) {
    let now = cluster.rss_kib();
    println!("{what}: {} MiB before, {} MiB now", before >> 10, now >> 10);
    assert!(
        now.saturating_sub(before) >> 10 < most_mib,
        "{what}: {} MiB more",
        now.saturating_sub(before) >> 10
    );
}

/// Sends until the server takes no more, from a thread of its own that gives the link back.
fn pour(
    mut link: Link,
    frames: impl Iterator<Item = Vec<u8>> + Send + 'static,
) -> std::thread::JoinHandle<Link> {
    std::thread::spawn(move || {
        link.is_patient(Duration::from_secs(4));
        for frame in frames {
            // Full, or ended by the server.
            if link.send_raw(&frame).is_err() {
                break;
            }
        }
        link
    })
}

fn frame(kind: Kind, id: u64, body: &impl serde::Serialize) -> Vec<u8> {
    let mut out = Vec::new();
    flexfs_wire::frame::encode(Header::new(kind, RequestId(id)), body, 0, &mut out).unwrap();
    out
}

fn call(request: Request) -> Call {
    Call::new(Caller { uid: 0, gid: 0 }, request)
}

#[test]
fn a_deaf_client_fills_its_own_share_only() {
    const LINKS: u64 = 6;
    let cluster = Cluster::start();
    let mut session = cluster.open();
    let root = session.root();
    let dir = session.make(root, "large", 0o040_700).node;
    // One answer lists all of it: some 500 KiB.
    for number in 0..1200 {
        let request = session.make_request(dir, &format!("{number:0250}"), 0o100_600);
        let id = session.number();
        session.link.request(id, request, &[]);
        if number % 200 == 0 {
            assert!(session.link.answer(id).0.result.is_ok());
        }
    }
    session.get(Request::Heartbeat);
    let witness = Witness::start(cluster.open());
    let before = cluster.rss_kib();
    let list = call(Request::ReadDir { node: dir, cookie: 0, bytes_max: u32::MAX, plus: true });
    let pours: Vec<_> = (0..LINKS)
        .map(|number| {
            let (link, _) = session.another(false);
            let list = list.clone();
            pour(link, (0..FLOOD).map(move |id| frame(Kind::Request, 10_000 + number * FLOOD + id, &list)))
        })
        .collect();
    let deaf: Vec<Link> = pours.into_iter().map(|pour| pour.join().unwrap()).collect();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        session.get(Request::Heartbeat);
        std::thread::sleep(Duration::from_millis(100));
    }
    memory("six deaf links", before, &cluster, LINKS * 60);
    witness.end("six deaf links");
    drop(deaf);
    within(Duration::from_secs(20), || {
        session.get(Request::Heartbeat);
        (cluster.log().matches("link ended").count() >= 6).then_some(())
    });
    memory("after they are gone", before, &cluster, LINKS * 60);
}

fn long_name(node: Node) -> Call {
    let name = vec![b'x'; 200_000];
    call(Request::SetXattr { node, name, value: Vec::new(), mode: XattrMode::Any })
}

/// While a volume recovers, requests wait and replays are gathered: that must not become a way to fill its memory.
#[test]
fn long_bodies_do_not_pile_up_in_a_recovery() {
    const LINKS: u64 = 3;
    let mut cluster = Cluster::start();
    let mut hostile = cluster.open();
    let mut other = cluster.open();
    let file = other.make(other.root(), "f", 0o100_600).node;
    let node = hostile.lookup("f").unwrap().node;
    cluster.kill_meta();
    cluster.start_meta();
    let before = cluster.rss_kib();
    let (first, welcome) = hostile.another(true);
    assert!(matches!(welcome, Welcome::Recovering { .. }), "{welcome:?}");
    let body = long_name(node);
    let replay = Replay { commit: Commit(u64::MAX), at: Time::default(), call: body.clone() };
    let mut pours = vec![pour(first, (0..2000).map(move |id| frame(Kind::Replay, 50_000 + id, &replay)))];
    for number in 0..LINKS {
        let (link, _) = hostile.another(false);
        let body = body.clone();
        pours.push(pour(
            link,
            (0..1000).map(move |id| frame(Kind::Request, 60_000 + number * 1000 + id, &body)),
        ));
    }
    std::thread::sleep(Duration::from_secs(3));
    memory("long bodies in a recovery", before, &cluster, 200);
    let start = Instant::now();
    other.recover(Vec::new());
    println!("the other client recovered in {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    assert!(other.write_inline(file, b"on we go").result.is_ok());
    for pour in pours {
        drop(pour.join().unwrap());
    }
    memory("long bodies in a recovery, after it", before, &cluster, 300);
}

/// The same when it serves.
#[test]
fn long_bodies_do_not_pile_up() {
    let cluster = Cluster::start();
    let mut session = cluster.open();
    let witness = Witness::start(cluster.open());
    let node = session.make(session.root(), "f", 0o100_600).node;
    let before = cluster.rss_kib();
    let pours: Vec<_> = (0..3)
        .map(|number| {
            let (link, _) = session.another(false);
            let body = long_name(node);
            pour(link, (0..1000).map(move |id| frame(Kind::Request, 10_000 + number * 1000 + id, &body)))
        })
        .collect();
    for pour in pours {
        let link = pour.join().unwrap();
        memory("long bodies", before, &cluster, 200);
        drop(link);
    }
    witness.end("long bodies");
}

/// The same where each has to wait its turn: what waits is bounded, too.
#[test]
fn long_bodies_of_a_limited_token_do_not_pile_up() {
    let cluster = Cluster::start();
    let token = cluster.another_token(&["--opsPerSecond", "1"]);
    let start = Instant::now();
    let session = cluster.try_open(&token, Flags::default()).unwrap();
    let mut other = cluster.open();
    let node = other.make(other.root(), "f", 0o100_600).node;
    let witness = Witness::start(other);
    let before = cluster.rss_kib();
    let pours: Vec<_> = (0..3)
        .map(|number| {
            let (link, _) = session.another(false);
            let body = long_name(node);
            // One is taken each second, so sending never comes to an end.
            let ids = (0..1000).take_while(move |_| start.elapsed() < Duration::from_secs(8));
            pour(link, ids.map(move |id| frame(Kind::Request, 10_000 + number * 1000 + id, &body)))
        })
        .collect();
    let links: Vec<Link> = pours.into_iter().map(|pour| pour.join().unwrap()).collect();
    memory("long bodies of a limited token", before, &cluster, 200);
    let now = cluster.rss_kib();
    assert!(now > before + 20 * 1024, "nothing waits: {before} KiB before, {now} KiB now");
    witness.end("long bodies of a limited token");
    drop(links);
}

fn lock(node: Node, owner: u64, kind: LockKind, byte: u64, wait: bool) -> Call {
    let lock = Lock { family: LockFamily::Posix, kind, owner, pid: 1, start: byte, end: byte };
    call(Request::Lock { node, lock, wait })
}

/// Each owner holds a byte and waits for the one of its neighbour: the search for deadlocks walks the whole chain.
#[test]
fn waits_in_a_long_chain_stop_nobody() {
    const OWNERS: u64 = 1000;
    let cluster = Cluster::start();
    let mut session = cluster.open();
    let file = session.make(session.root(), "f", 0o100_600).node;
    for owner in 0..OWNERS {
        session.link.request_call(1000 + owner, &lock(file, owner, LockKind::Write, owner, false), &[]);
    }
    assert_eq!(session.link.answer(1000 + OWNERS - 1).0.result, Ok(Reply::Done));
    let witness = Witness::start(cluster.open());
    let before = cluster.rss_kib();
    let (mut waiting, _) = session.another(false);
    for owner in 1..OWNERS {
        waiting.request_call(10_000 + owner, &lock(file, owner, LockKind::Write, owner - 1, true), &[]);
    }
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        session.get(Request::Heartbeat);
        std::thread::sleep(Duration::from_millis(100));
    }
    memory("a thousand waits", before, &cluster, 50);
    witness.end("a thousand waits in a chain");
    // They end with their link: who comes then finds what was waited for as it was.
    drop(waiting);
    session.get(Request::Heartbeat);
    let mut other = cluster.open();
    let taken = lock(other.lookup("f").unwrap().node, 1, LockKind::Write, 5, false);
    assert_eq!(other.fail(taken.request), Errno::EAGAIN);
}

/// Far more waits than a link has credit for, on one lock; then the lock is let go.
#[test]
fn a_crowd_that_waits_is_let_in_and_holds_up_nobody() {
    const LINKS: u64 = 4;
    let cluster = Cluster::start();
    let mut session = cluster.open();
    let mut holder = cluster.open();
    let file = holder.make(holder.root(), "f", 0o100_600).node;
    let node = session.lookup("f").unwrap().node;
    holder.get(lock(file, 1, LockKind::Write, 0, false).request);
    let witness = Witness::start(cluster.open());
    let before = cluster.rss_kib();
    let mut pours = Vec::new();
    for number in 0..LINKS {
        let (link, _) = session.another(false);
        pours.push(pour(
            link,
            (0..FLOOD).map(move |id| {
                let id = 10_000 + number * FLOOD + id;
                frame(Kind::Request, id, &lock(node, id, LockKind::Read, 0, true))
            }),
        ));
    }
    let mut links: Vec<Link> = pours.into_iter().map(|pour| pour.join().unwrap()).collect();
    memory("a crowd of waits", before, &cluster, 60);
    session.get(Request::Heartbeat);
    let start = Instant::now();
    holder.get(lock(file, 1, LockKind::Unlock, 0, false).request);
    for (number, link) in (0..LINKS).zip(&mut links) {
        // Also those that were beyond the credit: they are read now.
        for id in 0..FLOOD {
            assert_eq!(link.answer(10_000 + number * FLOOD + id).0.result, Ok(Reply::Done));
        }
        session.get(Request::Heartbeat);
    }
    println!("{} waits let in within {:?}", LINKS * FLOOD, start.elapsed());
    witness.end("a crowd of waits");
}

/// A connection from an address that is not the one good clients come from.
fn stranger(addr: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketAddrV4, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 2), 0)).unwrap();
    let SocketAddr::V4(addr) = addr else { panic!("{addr}") };
    connect(&socket, &addr).unwrap();
    TcpStream::from(socket)
}

#[test]
fn half_open_connections_keep_nobody_out() {
    let cluster = Cluster::start();
    let before = cluster.rss_kib();
    let mut crowd: Vec<TcpStream> = (0..400).map(|_| stranger(cluster.addr)).collect();
    for (index, socket) in crowd.iter_mut().enumerate() {
        // The beginning of a TLS hello, or nothing.
        if index % 2 == 0 {
            use std::io::Write as _;
            let _ = socket.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
        }
    }
    let start = Instant::now();
    for _ in 0..5 {
        let mut session: Session = cluster.try_open(&cluster.token, Flags::default()).unwrap();
        session.get(Request::Leave);
    }
    println!("five sessions beside 400 half-open connections in {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    memory("400 half-open connections", before, &cluster, 60);
    for socket in crowd {
        use std::io::Read as _;
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut rest = Vec::new();
        let _ = (&socket).read_to_end(&mut rest);
    }
    assert!(start.elapsed() < Duration::from_secs(30), "silent connections stay");
}
