//! What a mount remembers of its session, without I/O: opens and locks, calls to be replayed, the mark of its frames.

use std::collections::{BTreeMap, BTreeSet};

use flexfs_mount::link::held::{Effect, Held};
use flexfs_mount::link::mark::Marks;
use flexfs_mount::link::unstable::{Unstable, encode_call};
use flexfs_wire::frame::{self, HEADER_BYTES, Header, Kind};
use flexfs_wire::id::{Commit, Ino, RequestId};
use flexfs_wire::message::{Call, Caller, Lock, LockFamily, LockKind, Replay, Reply, Request};
use flexfs_wire::seal::Node;
use flexfs_wire::time::Time;

use crate::fabricate::fabricate;
use crate::model::{Claim, Locks};
use crate::source::Source;

/// The first byte chooses which.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    match source.below(3) {
        0 => held(source),
        1 => unstable(source),
        _ => marks(source),
    }
}

/// Answers of opens, closes and locks, against counts and a map of bytes.
fn held(mut source: Source<'_>) {
    let (held, mut opens, mut locks) = (Held::default(), BTreeMap::new(), Locks::default());
    for _ in 0..300 {
        if source.is_empty() {
            break;
        }
        let (what, ino) = (source.byte(), u64::from(source.byte() % 3));
        let node = Node { ino: Ino(ino), seal: 1 };
        match what & 7 {
            0 | 1 => {
                let open = Request::Open { node, write: false, truncate: false, kill_privileges: false };
                held.handle_answer(Effect::of(&open), &Reply::Done);
                *opens.entry(ino).or_insert(0u32) += 1;
            }
            2 => {
                let count = u32::from(what >> 4);
                held.handle_answer(Effect::of(&Request::Close { node, count }), &Reply::Done);
                let left = opens.get(&ino).map_or(0, |open| open.saturating_sub(count));
                opens.insert(ino, left);
            }
            3 => {
                let (family, owner) = (family(what), u64::from(what >> 5 & 1));
                held.handle_answer(Effect::of(&Request::Unlock { node, family, owner }), &Reply::Done);
                locks.unlock_owner(ino, 0, family, owner);
            }
            _ => {
                let range = source.byte();
                let start = u64::from(range & 15);
                let end = if range >= 0xf0 { u64::MAX } else { start + u64::from(range >> 4 & 7) };
                let kind = [LockKind::Read, LockKind::Write, LockKind::Unlock][source.below(3)];
                let lock =
                    Lock { family: family(what), kind, owner: u64::from(what >> 5 & 1), pid: 1, start, end };
                held.handle_answer(Effect::of(&Request::Lock { node, lock, wait: false }), &Reply::Done);
                locks.lay(&Claim { ino, session: 0, lock });
            }
        }
        opens.retain(|_, open| *open > 0);
    }
    let found: BTreeMap<u64, u32> = held.opens().into_iter().map(|(node, open)| (node.ino.0, open)).collect();
    assert_eq!(found, opens);
    check_locks(&held, &locks);
    held.handle_lost();
    assert!(held.all_locks().is_empty());
}

/// The locks are the model's, and no two of one owner overlap.
fn check_locks(held: &Held, said: &Locks) {
    let all = held.all_locks();
    let mut found = Locks::default();
    for (node, lock) in &all {
        let twin = |(other, old): &&(Node, Lock)| {
            (other.ino, old.family, old.owner) == (node.ino, lock.family, lock.owner)
                && old.start <= lock.end
                && lock.start <= old.end
        };
        assert_eq!(all.iter().filter(twin).count(), 1, "{lock:?} overlaps in {all:?}");
        found.lay(&Claim { ino: node.ino.0, session: 0, lock: *lock });
    }
    assert_eq!(found.of_session(0), said.of_session(0));
}

fn family(what: u8) -> LockFamily {
    if what & 0x10 == 0 { LockFamily::Posix } else { LockFamily::Flock }
}

/// Answered calls come out as replays in the order of their commits, each once, until they are durable.
fn unstable(mut source: Source<'_>) {
    let (mut unstable, mut kept, mut durable) = (Unstable::default(), BTreeMap::new(), 0);
    for number in 1..=100u64 {
        if source.is_empty() {
            break;
        }
        match source.below(8) {
            0..=4 => {
                let Some(request) = fabricate::<Request>(&mut source) else { continue };
                let call = Call::new(Caller { uid: 1, gid: 2 }, request);
                let Ok(body) = encode_call(&call) else { continue };
                let commit = u64::from(source.byte());
                let at = Time { secs: i64::from(source.byte()) - 100, nanos: 3 };
                unstable.handle_answer(RequestId(number), Commit(commit), at, body);
                if commit > durable {
                    kept.insert((commit, number), Replay { commit: Commit(commit), at, call });
                }
            }
            5 | 6 => {
                let up_to = u64::from(source.byte());
                unstable.handle_durable(Commit(up_to));
                durable = durable.max(up_to);
                kept.retain(|(commit, _), _| *commit > durable);
            }
            _ => {
                assert_eq!(unstable.handle_recovered(), kept.len());
                kept.clear();
            }
        }
        assert_eq!(unstable.count(), kept.len());
    }
    let bytes_max = usize::from(source.short()) + 1;
    let (mut found, mut after) = (Vec::new(), Some((Commit(0), RequestId(0))));
    while let Some(from) = after {
        let mut out = Vec::new();
        after = unstable.poll_replay(from, 9, bytes_max, &mut out).expect("small calls");
        let mut rest = out.as_slice();
        while let Some(head) = rest.first_chunk::<HEADER_BYTES>() {
            let header = Header::decode(head).expect("our own frame");
            assert_eq!((header.kind, header.mark), (Kind::Replay, 9));
            let (body, next) = rest[HEADER_BYTES..].split_at(header.rest_bytes());
            found
                .push((header.request.0, frame::decode::<Replay>(Kind::Replay, body).expect("our own body")));
            rest = next;
        }
    }
    let said: Vec<_> = kept.into_iter().map(|((_, number), replay)| (number, replay)).collect();
    assert_eq!(found, said);
}

/// No unfinished call is below a mark, and marks never go back.
fn marks(mut source: Source<'_>) {
    let marks = Marks::new(3);
    let (mut open, mut last) = ([const { BTreeSet::new() }; 3], 0);
    while !source.is_empty() {
        let (what, shard) = (source.byte(), source.below(3));
        match what & 3 {
            0 => drop(open[shard].insert(marks.take_once(shard).0)),
            1 => drop(marks.take()),
            _ => {
                let index = usize::from(what >> 2) % open[shard].len().max(1);
                if let Some(id) = open[shard].iter().nth(index).copied() {
                    open[shard].remove(&id);
                }
                marks.finish(shard, open[shard].first().map(|id| RequestId(*id)));
            }
        }
        let (mark, lowest) = (marks.mark(), open.iter().filter_map(BTreeSet::first).min());
        assert!(lowest.is_none_or(|lowest| mark <= *lowest), "{lowest:?} is below the mark {mark}");
        assert!(mark >= last, "the mark went back from {last} to {mark}");
        last = mark;
    }
}
