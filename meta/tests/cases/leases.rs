//! Who waits for whose lease, and for how long.

use std::time::{Duration, Instant};

use flexfs_wire::message::{Inline, Notice, Reply, Request, Write};
use flexfs_wire::seal::Node;

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
