//! What the limits of a token and the quotas of a volume hold back, and whom they leave alone.

use std::time::{Duration, Instant};

use flexfs_wire::block::{self, Index};
use flexfs_wire::errno::Errno;
use flexfs_wire::hello::{Reason, Welcome};
use flexfs_wire::id::BlockId;
use flexfs_wire::message::{Inline, Lock, LockFamily, LockKind, Notice, Reply, Request, Write};
use flexfs_wire::name::Name;
use flexfs_wire::seal::Node;
use flexfs_wire::settings::{Compression, Flags};
use flexfs_wire::token::Token;

use super::blocks::{grant, noise, refer};
use crate::client::Session;
use crate::client::cluster::{Cluster, within};

fn id_of(token: &str) -> String {
    Token::parse(token).unwrap().id.to_string()
}

fn open(cluster: &Cluster, token: &str) -> Session {
    cluster.try_open(token, Flags::default()).unwrap()
}

fn refusal(cluster: &Cluster, token: &str) -> (Reason, String) {
    match cluster.try_open(token, Flags::default()) {
        Err(refusal) => refusal,
        Ok(_) => panic!("one more session than the token permits"),
    }
}

/// Sends without a look at answers; the numbers.
fn begin(session: &mut Session, requests: impl IntoIterator<Item = Request>) -> Vec<u64> {
    let send = |request| {
        let id = session.number();
        session.link.request(id, request, &[]);
        id
    };
    requests.into_iter().map(send).collect()
}

/// Waits for the answers, with a sign of life now and then; bytes of blocks that came with them.
fn collect(session: &mut Session, numbers: Vec<u64>) -> usize {
    let (mut beat, mut bytes) = (Instant::now(), 0);
    for id in numbers {
        let (answer, payload) = session.link.answer(id);
        assert!(answer.result.is_ok(), "{:?}", answer.result);
        bytes += payload.len();
        if beat.elapsed() > Duration::from_secs(2) {
            assert_eq!(session.get(Request::Heartbeat), Reply::Done);
            beat = Instant::now();
        }
    }
    bytes
}

/// The sum of a counter over all cores.
fn counted(cluster: &Cluster, name: &str, label: &str) -> u64 {
    let text = cluster.scrape();
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn no_more_sessions_than_the_token_permits() {
    let mut cluster = Cluster::start();
    let token = cluster.another_token(&["--maxSessions", "2"]);
    let (mut first, mut second) = (open(&cluster, &token), open(&cluster, &token));
    let (reason, text) = refusal(&cluster, &token);
    let command = format!("configure.flexfs update volume-token {} --maxSessions 3", id_of(&token));
    assert!(reason == Reason::Busy && text.contains("2 sessions") && text.contains(&command), "{text}");
    assert!(matches!(first.another(false).1, Welcome::Attached { .. }), "a session that stands");
    cluster.open();
    first.get(Request::Leave);
    let mut third = open(&cluster, &token);

    // Those that come back after a restart count. It waits for the session without a limit for a whole lease.
    cluster.kill_meta();
    cluster.start_meta();
    std::thread::scope(|scope| {
        for session in [&mut second, &mut third] {
            scope.spawn(|| session.recover(Vec::new()));
        }
    });
    assert_eq!(refusal(&cluster, &token).0, Reason::Busy);

    // Who dies frees its place when its lease ends.
    drop(third);
    let died = Instant::now();
    assert_eq!(refusal(&cluster, &token).0, Reason::Busy);
    let again = within(Duration::from_secs(30), || {
        second.get(Request::Heartbeat);
        cluster.try_open(&token, Flags::default()).ok()
    });
    assert!(died.elapsed() > Duration::from_secs(5), "{:?}", died.elapsed());

    cluster.configure(&["update", "volume-token", &id_of(&token), "--maxSessions", "3"]);
    let _more = within(Duration::from_secs(2), || cluster.try_open(&token, Flags::default()).ok());
    // Fewer: nobody is thrown out.
    cluster.configure(&["update", "volume-token", &id_of(&token), "--maxSessions", "1"]);
    within(Duration::from_secs(2), || (cluster.try_open(&token, Flags::default()).is_err()).then_some(()));
    for mut session in [second, again] {
        session.get(Request::Heartbeat);
    }
}

/// Slowest and middle of some calls, one after the other.
fn latency(session: &mut Session, during: Duration) -> (Duration, Duration) {
    let (start, mut took) = (Instant::now(), Vec::new());
    while start.elapsed() < during {
        let call = Instant::now();
        session.get(Request::StatFs);
        took.push(call.elapsed());
        std::thread::sleep(Duration::from_millis(2));
    }
    took.sort_unstable();
    (took[took.len() / 2], took[took.len() - 1])
}

/// Keeps many requests under way; how many were answered within `during`, the first two seconds left out.
fn hammer(mut session: Session, during: Duration) -> u32 {
    const REST: Duration = Duration::from_secs(2);
    let (start, mut answered) = (Instant::now(), 0);
    let mut under_way: std::collections::VecDeque<u64> =
        begin(&mut session, (0..200).map(|_| Request::StatFs)).into();
    while start.elapsed() < REST + during {
        let next = under_way.pop_front().unwrap();
        assert!(session.link.answer(next).0.result.is_ok());
        answered += u32::from(start.elapsed() >= REST);
        under_way.extend(begin(&mut session, [Request::StatFs]));
    }
    answered
}

#[test]
fn a_limited_token_has_its_rate_and_others_do_not_notice() {
    const RATE: u32 = 50;
    const DURING: Duration = Duration::from_secs(10);
    let cluster = Cluster::start();
    let token = cluster.another_token(&["--opsPerSecond", &RATE.to_string()]);
    let mut other = cluster.open();
    let (before, _) = latency(&mut other, Duration::from_secs(2));
    // Two sessions share the rate.
    let hammers = [open(&cluster, &token), open(&cluster, &token)]
        .map(|session| std::thread::spawn(move || hammer(session, DURING)));
    let (middle, slowest) = latency(&mut other, DURING);
    let answered = hammers.map(|hammer| hammer.join().unwrap());
    let sum = answered.iter().sum::<u32>();
    println!(
        "{answered:?} answers in {DURING:?} at {RATE}/s; the other's call: {before:?} before, {middle:?}, at most {slowest:?}"
    );
    // Answers that were under way when the clock began and ended belong to both; the machine is slow at times.
    assert!((RATE * 7..RATE * 11).contains(&sum), "{answered:?}");
    assert!(answered.iter().all(|one| *one > sum / 4), "one has it all: {answered:?}");
    assert!(middle < before * 5 + Duration::from_millis(20), "{before:?} before, {middle:?} now");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert!(counted(&cluster, "flexfs_meta_requests_delayed", "ops") > 200);
}

#[test]
fn a_lease_lives_on_while_its_session_is_held_back() {
    let cluster = Cluster::start();
    let token = cluster.another_token(&["--opsPerSecond", "1"]);
    let mut other = cluster.open();
    let file = other.make(other.root(), "f", 0o100_666).node;
    let mut limited = open(&cluster, &token);
    let node = limited.lookup("f").unwrap().node;
    // As many as a client has under way, the largest answers among them; a lease of the file with the first.
    let look = begin(&mut limited, [Request::GetAttr { node }]);
    limited.link.answer(look[0]);
    let layout = Request::ReadLayout { node, start: 0, end: u64::MAX };
    let held = begin(&mut limited, (0..900).map(|_| layout.clone()));
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(16) {
        let beat = Instant::now();
        assert_eq!(limited.get(Request::Heartbeat), Reply::Done);
        other.get(Request::Heartbeat);
        assert!(beat.elapsed() < Duration::from_secs(1), "{:?}", beat.elapsed());
        std::thread::sleep(Duration::from_secs(2));
    }
    let answered = held.iter().filter(|id| limited.link.answered(**id).is_some()).count();
    assert!((8..40).contains(&answered), "{answered} answers in {:?} at 1/s", start.elapsed());

    // Whoever needs what it has cached gets it, at once; and what it has to do for that is not held back.
    let changing = begin(&mut other, [Request::SetAttr { node: file, change: Default::default() }]);
    let ids: Vec<u64> = within(Duration::from_secs(5), || {
        limited.link.pump().unwrap();
        limited.link.notices.drain(..).find_map(|notice| match notice {
            Notice::Recall { recalls } => Some(recalls.iter().map(|recall| recall.id).collect()),
            _ => None,
        })
    });
    let start = Instant::now();
    let request = limited.make_request(limited.root(), "g", 0o100_600);
    let made = begin(&mut limited, [request]);
    assert!(limited.link.answer(made[0]).0.result.is_ok());
    assert_eq!(limited.get(Request::Recalled { ids }), Reply::Done);
    assert!(other.link.answer(changing[0]).0.result.is_ok());
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert!(!cluster.log().contains("session ended"));
}

#[test]
fn changed_limits_hold_at_once() {
    let cluster = Cluster::start();
    let token = cluster.another_token(&["--opsPerSecond", "1"]);
    let id = id_of(&token);
    let mut session = open(&cluster, &token);
    let held = begin(&mut session, (0..300).map(|_| Request::StatFs));
    session.link.answer(held[1]);
    cluster.configure(&["update", "volume-token", &id, "--opsPerSecond", "0"]);
    let start = Instant::now();
    for number in &held[2..] {
        assert!(session.link.answer(*number).0.result.is_ok());
    }
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    cluster.configure(&["update", "volume-token", &id, "--opsPerSecond", "5"]);
    std::thread::sleep(Duration::from_secs(1));
    let start = Instant::now();
    for number in begin(&mut session, (0..16).map(|_| Request::StatFs)) {
        session.link.answer(number);
    }
    assert!(start.elapsed() > Duration::from_millis(1500), "{:?}", start.elapsed());
    // A restarted server knows them without admin.
    let mut cluster = cluster;
    cluster.kill_admin();
    cluster.kill_meta();
    cluster.start_meta();
    session.recover(Vec::new());
    let start = Instant::now();
    for number in begin(&mut session, (0..5).map(|_| Request::StatFs)) {
        session.link.answer(number);
    }
    assert!(start.elapsed() > Duration::from_millis(1500), "{:?}", start.elapsed());
}

#[test]
fn a_wait_that_is_held_back_can_be_cancelled() {
    let cluster = Cluster::start();
    let token = cluster.another_token(&["--opsPerSecond", "1"]);
    let mut holder = cluster.open();
    let file = holder.make(holder.root(), "f", 0o100_666).node;
    let lock = |owner, wait| Request::Lock {
        node: file,
        lock: Lock { family: LockFamily::Posix, kind: LockKind::Write, owner, pid: 1, start: 0, end: 0 },
        wait,
    };
    holder.get(lock(1, false));
    let mut limited = open(&cluster, &token);
    begin(&mut limited, (0..50).map(|_| Request::StatFs));
    let waiting = begin(&mut limited, [lock(2, true)]);
    let start = Instant::now();
    let cancel = Request::CancelWait { request: flexfs_wire::id::RequestId(waiting[0]) };
    assert_eq!(limited.get(cancel), Reply::Done);
    assert_eq!(limited.link.answer(waiting[0]).0.result, Err(Errno::EINTR));
    // What lets go of things does not wait either.
    let unlock = Request::Unlock { node: file, family: LockFamily::Posix, owner: 2 };
    assert_eq!(limited.get(unlock), Reply::Done);
    assert_eq!(limited.get(Request::Leave), Reply::Done);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn bytes_of_blocks_have_a_rate() {
    const RATE: u64 = 1 << 20;
    const BYTES: usize = 256 * 1024;
    let cluster = Cluster::start();
    let token = cluster.another_token(&["--bytesPerSecond", "1M"]);
    let mut session = open(&cluster, &token);
    let file = session.make(session.root(), "f", 0o100_600).node;
    let range = grant(&mut session);
    let raw = noise(BYTES);
    let mut stored = Vec::new();
    block::seal(&raw, Compression::None, &mut stored).unwrap();
    let start = Instant::now();
    let rate_of = |bytes: usize, start: Instant| bytes as f64 / start.elapsed().as_secs_f64() / RATE as f64;
    let puts: Vec<u64> = (0..32)
        .map(|number| {
            let id = session.number();
            let block = BlockId(range.start + number);
            session.link.request(id, Request::PutBlock { block }, &stored);
            id
        })
        .collect();
    // What moves no bytes of blocks does not wait behind them.
    for _ in 0..10 {
        let call = Instant::now();
        session.get(Request::StatFs);
        assert!(call.elapsed() < Duration::from_secs(1), "{:?}", call.elapsed());
    }
    collect(&mut session, puts);
    // 8 MiB, of which one is the burst and the last leaves a debt.
    let written = rate_of(32 * stored.len(), start);
    println!("written at {written:.2} of the rate");
    assert!((0.6..1.25).contains(&written), "{written}");

    let block = BlockId(range.start);
    refer(&mut session, file, block, raw.len(), stored.len());
    let start = Instant::now();
    let segment = Index::parse(&stored).unwrap().stored_range(0, 1).unwrap().len();
    let read = |first, count| Request::ReadBlock { node: file, block, first, count };
    // More is asked for than is there, and refused: that costs nothing.
    for id in begin(&mut session, (0..4).map(|_| read(0, 128))) {
        assert_eq!(session.link.answer(id).0.result, Err(Errno::EINVAL));
    }
    let reads = begin(&mut session, (0..80).map(|number| read(number % 4, 1)));
    let bytes = collect(&mut session, reads);
    assert_eq!(bytes, 80 * segment);
    let read = rate_of(bytes, start);
    println!("read at {read:.2} of the rate");
    assert!((0.5..1.25).contains(&read), "{read}");
    assert!(counted(&cluster, "flexfs_meta_requests_delayed", "bytes") > 50);
    assert_eq!(counted(&cluster, "flexfs_meta_requests_delayed", "ops"), 0);
}

/// What a file has inline has the rate of blocks: a client could else write and read as much as it likes in small pieces.
#[test]
fn inline_bytes_have_the_rate_of_blocks() {
    const RATE: usize = 512 << 10;
    const BYTES: usize = 16 << 10;
    const FILES: usize = 64;
    let cluster = Cluster::start();
    let token = cluster.another_token(&["--bytesPerSecond", "512K"]);
    let mut session = open(&cluster, &token);
    let root = session.root();
    let files: Vec<Node> =
        (0..FILES).map(|number| session.make(root, &format!("f{number}"), 0o100_666).node).collect();
    let inline = Inline { offset: 0, bytes: noise(BYTES) };
    let write = |node: &Node| Request::Write {
        node: *node,
        write: Write { inline: Some(inline.clone()), ..Write::default() },
    };
    let rate_of = |bytes: usize, start: Instant| bytes as f64 / start.elapsed().as_secs_f64() / RATE as f64;
    let start = Instant::now();
    let written = begin(&mut session, [&files[..], &files, &files].concat().iter().map(write));
    // What brings no bytes of files does not wait behind them.
    for _ in 0..10 {
        let call = Instant::now();
        session.get(Request::StatFs);
        assert!(call.elapsed() < Duration::from_secs(1), "{:?}", call.elapsed());
    }
    collect(&mut session, written);
    // 3 MiB, of which a sixth is the burst and the last leaves a debt.
    let rate = rate_of(3 * FILES * BYTES, start);
    println!("written at {rate:.2} of the rate");
    assert!((0.5..1.3).contains(&rate), "{rate}");

    let layout = |node: &Node| Request::ReadLayout { node: *node, start: 0, end: u64::MAX };
    let open =
        |node: &Node| Request::Open { node: *node, write: false, truncate: false, kill_privileges: false };
    let start = Instant::now();
    let asked = begin(&mut session, files.iter().map(layout).chain(files.iter().map(open)));
    let mut beat = Instant::now();
    for id in asked {
        let shown = match session.link.answer(id).0.result {
            Ok(Reply::Layout(layout) | Reply::Opened { layout: Some(layout), .. }) => layout.inline,
            other => panic!("{other:?}"),
        };
        assert_eq!(shown, inline.bytes);
        if beat.elapsed() > Duration::from_secs(2) {
            assert_eq!(session.get(Request::Heartbeat), Reply::Done);
            beat = Instant::now();
        }
    }
    let rate = rate_of(2 * FILES * BYTES, start);
    println!("read at {rate:.2} of the rate");
    assert!((0.5..1.25).contains(&rate), "{rate}");
    assert!(counted(&cluster, "flexfs_meta_requests_delayed", "bytes") > 200);

    // Somebody waits for a lease of this session: nothing of it is held back.
    let mut other = cluster.open();
    let wanted = other.lookup("f0").unwrap().node;
    let held = begin(&mut session, files.iter().map(layout).chain(files.iter().map(write)));
    let changing = begin(&mut other, [Request::SetAttr { node: wanted, change: Default::default() }]);
    let start = Instant::now();
    let mut recalls = Vec::new();
    while recalls.is_empty() {
        session.link.pump().unwrap();
        recalls = session.recalls();
    }
    for id in held {
        assert!(session.link.answer(id).0.result.is_ok());
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let ids = recalls.iter().map(|recall| recall.id).collect();
    assert_eq!(session.get(Request::Recalled { ids }), Reply::Done);
    assert!(other.link.answer(changing[0]).0.result.is_ok());
}

#[test]
fn quotas_of_a_running_volume_can_be_changed() {
    let cluster = Cluster::start();
    let mut session = cluster.open();
    let root = session.root();
    let file = session.make(root, "f", 0o100_600).node;
    let mut number = 0;
    let mut make = |session: &mut Session| {
        number += 1;
        let request = session.make_request(root, &format!("file-{number}"), 0o100_600);
        session.call(request).result
    };
    let soon = Duration::from_secs(2);
    // The root and `f`.
    cluster.configure(&["update", "volume", "main", "--maxInodes", "2"]);
    within(soon, || (make(&mut session) == Err(Errno::ENOSPC)).then_some(()));
    let Reply::StatFs(figures) = session.get(Request::StatFs) else { panic!() };
    assert_eq!((figures.inodes_total, figures.inodes_free), (2, 0));
    // What grows nothing goes on.
    assert!(session.write_inline(file, b"x").result.is_ok());
    cluster.configure(&["update", "volume", "main", "--maxInodes", "0"]);
    within(soon, || make(&mut session).is_ok().then_some(()));

    let block_bytes = session.granted.settings.block_size as usize;
    let range = grant(&mut session);
    let mut stored = Vec::new();
    block::seal(&noise(block_bytes), Compression::None, &mut stored).unwrap();
    for number in 0..2 {
        let put = Request::PutBlock { block: BlockId(range.start + number) };
        assert_eq!(session.call_with(put, &stored).0.result, Ok(Reply::Done));
    }
    refer(&mut session, file, BlockId(range.start), block_bytes, stored.len());
    cluster.configure(&["update", "volume", "main", "--maxBlocks", "1"]);
    let full = |session: &mut Session| {
        let Reply::StatFs(figures) = session.get(Request::StatFs) else { panic!() };
        figures.bytes_total == block_bytes as u64
    };
    within(soon, || full(&mut session).then_some(()));
    let other = session.lookup("f").unwrap();
    assert_eq!(other.attr.size, block_bytes as u64);
    let grow = Request::Fallocate { node: file, mode: 0, offset: 0, length: 2 * block_bytes as u64 };
    assert_eq!(session.fail(grow.clone()), Errno::ENOSPC);
    cluster.configure(&["update", "volume", "main", "--maxBlocks", "8"]);
    within(soon, || session.call(grow.clone()).result.is_ok().then_some(()));
    let name = Name::new(b"f").unwrap();
    session.get(Request::Remove { parent: root, name, dir: false });
}
