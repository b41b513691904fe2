//! Who waits for whose lease, and for how long.

use std::time::{Duration, Instant};

use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::message::{Call, Caller, Inline, Make, Notice, Reply, Request, Write};
use flexfs_wire::name::Name;
use flexfs_wire::seal::Node;
use flexfs_wire::time::Time;

use crate::client::Session;
use crate::client::cluster::Cluster;

/// Long, beside the 50 ms that a write waits for another one.
const LONG: Duration = Duration::from_millis(300);

fn write(node: Node, byte: u8) -> Request {
    let inline = Some(Inline { offset: 0, bytes: vec![byte] });
    Request::Write { node, write: Write { inline, ..Write::default() } }
}

/// Sends a call and does not wait.
fn begin(session: &mut Session, request: Request) -> u64 {
    let id = session.number();
    session.link.request(id, request, &[]);
    id
}

/// Waits for a recall: the ids of all that came.
fn hear(session: &mut Session) -> Vec<u64> {
    let mut ids = Vec::new();
    while ids.is_empty() {
        for notice in session.link.notices.drain(..) {
            if let Notice::Recall { recalls } = notice {
                ids.extend(recalls.iter().map(|recall| recall.id));
            }
        }
        if ids.is_empty() {
            session.link.pump().unwrap();
        }
    }
    ids
}

/// Ids of recalls that have come.
fn recalls(session: &mut Session) -> Vec<u64> {
    let notices = session.link.notices.drain(..);
    let recalls = notices.filter_map(|notice| match notice {
        Notice::Recall { recalls } => Some(recalls),
        _ => None,
    });
    recalls.flatten().map(|recall| recall.id).collect()
}

fn answer(session: &mut Session, ids: Vec<u64>) {
    assert_eq!(session.get(Request::Recalled { ids }), Reply::Done);
}

/// Two sessions that share a file.
fn share(one: &mut Session, two: &mut Session) -> Node {
    let file = one.make(one.root(), "f", 0o100_666).node;
    for session in [one, two] {
        // Past `Session::call`, which gives back at once what it was granted.
        let look = begin(session, Request::GetAttr { node: file });
        assert!(session.link.answer(look).0.result.is_ok());
    }
    file
}

#[test]
fn a_write_waits_for_who_only_reads() {
    let cluster = Cluster::start();
    let (mut one, mut two) = (cluster.open(), cluster.open());
    let file = share(&mut one, &mut two);
    let acquired = begin(&mut two, Request::Acquire { node: file });
    let asked = hear(&mut one);
    // Its kernel holds pages for this, which the recall has to wait for.
    let written = begin(&mut one, write(file, 1));
    let start = Instant::now();
    while start.elapsed() < LONG {
        one.link.is_silent(Duration::from_millis(50));
        assert!(one.link.answered(written).is_none(), "`two` has not given back what it reads");
    }
    let ids = hear(&mut two);
    answer(&mut two, ids);
    assert!(one.link.answer(written).0.result.is_ok());
    assert!(two.link.answered(acquired).is_none());
    answer(&mut one, asked);
    assert!(two.link.answer(acquired).0.result.is_ok());
}

#[test]
fn two_writes_do_not_wait_for_each_other() {
    let cluster = Cluster::start();
    let (mut one, mut two) = (cluster.open(), cluster.open());
    let file = share(&mut one, &mut two);
    let first = begin(&mut one, write(file, 1));
    let asked = hear(&mut two);
    // Each client answers its recall when its own write is done.
    let second = begin(&mut two, write(file, 2));
    assert!(two.link.answer(second).0.result.is_ok());
    assert!(one.link.answered(first).is_none());
    answer(&mut two, asked);
    assert!(one.link.answer(first).0.result.is_ok());
}

/// Sends a call of a client that has told its program already; the handle is known before.
fn make_behind(session: &mut Session, parent: Node, text: &str, (ino, seal): (Ino, u64), told: Time) -> u64 {
    let make = Make { ino, mode: 0o100_644, umask: 0, rdev: 0, target: Vec::new(), open: false };
    let request = Request::Make { parent, name: Some(Name::new(text.as_bytes()).unwrap()), make };
    let id = session.number();
    let call = Call { told: Some(told), ..Call::new(Caller { uid: 0, gid: 0 }, request) };
    session.link.request_call(id, &call, &[]);
    // Named before it is made.
    let early = begin(session, Request::GetAttr { node: Node { ino, seal } });
    let made = session.link.answer(id).0.result.unwrap();
    let Reply::Entry(entry) = made else { panic!("{made:?}") };
    assert_eq!((entry.node, entry.attr.mtime), (Node { ino, seal }, told));
    assert!(session.link.answer(early).0.result.is_ok());
    id
}

#[test]
fn nobody_looks_into_a_new_directory_without_asking_who_made_it() {
    let cluster = Cluster::start();
    let (mut one, mut two) = (cluster.open(), cluster.open());
    let Reply::Inodes { range, seals } = one.get(Request::GrantInodes { count: 10 }) else { panic!() };
    let seals: Vec<u64> = seals.as_chunks().0.iter().map(|seal| u64::from_le_bytes(*seal)).collect();
    assert_eq!(seals.len() as u64, range.count);
    let mut numbers = (range.start..).map(Ino).zip(seals);
    let name = |text: &str| Name::new(text.as_bytes()).unwrap();
    for (round, look) in ["lookup", "list", "stat", "make", "remove"].into_iter().enumerate() {
        // Past `Session::make`, which gives back at once what it was granted.
        let (ino, _) = numbers.next().unwrap();
        let make = Make { ino, mode: 0o040_777, umask: 0, rdev: 0, target: Vec::new(), open: false };
        let dir = name(&format!("d{round}"));
        let request = Request::Make { parent: one.root(), name: Some(dir.clone()), make };
        let id = begin(&mut one, request);
        let made = one.link.answer(id).0;
        let told = Time { secs: made.at.secs - 7, nanos: 5 };
        let Reply::Entry(entry) = made.result.unwrap() else { panic!() };
        let parent = entry.node;
        let request = match look {
            "lookup" => Request::Lookup { parent, name: name("file") },
            "list" => Request::ReadDir { node: parent, cookie: 0, bytes_max: 4096, plus: false },
            "stat" => Request::GetAttr { node: parent },
            "make" => {
                let make = Make {
                    ino: Ino(two.number()),
                    mode: 0o100_600,
                    umask: 0,
                    rdev: 0,
                    target: Vec::new(),
                    open: false,
                };
                Request::Make { parent, name: Some(name("file")), make }
            }
            _ => Request::Remove { parent: two.root(), name: dir, dir: true },
        };
        let asked = begin(&mut two, request);
        let ids = hear(&mut one);
        make_behind(&mut one, parent, "file", numbers.next().unwrap(), told);
        two.link.is_silent(Duration::from_millis(50));
        assert!(two.link.answered(asked).is_none(), "{look}: `one` has not said that all is here");
        answer(&mut one, ids);
        // Of the file, too, if it is looked at.
        let mut said = two.link.answered(asked);
        while said.is_none() {
            one.link.is_silent(Duration::from_millis(10));
            let more: Vec<u64> = recalls(&mut one);
            answer(&mut one, more);
            two.link.is_silent(Duration::from_millis(10));
            said = two.link.answered(asked);
        }
        match (look, said.unwrap().result) {
            ("lookup", Ok(Reply::Entry(entry))) => assert_eq!(entry.attr.mtime, told),
            ("list", Ok(Reply::Entries { entries, .. })) => assert_eq!(entries.len(), 1),
            ("stat", Ok(Reply::Attr(attr))) => assert_eq!(attr.size, 1),
            ("make", Err(Errno::EEXIST)) | ("remove", Err(Errno::ENOTEMPTY)) => {}
            (_, other) => panic!("{look}: {other:?}"),
        }
    }
}
