//! Calls that were answered and are not durable yet: what this client replays when the server dies (design 7).
//!
//! One per session, behind a short lock that only mutations take. A call is kept as the bytes it was sent as: the body of
//! a `Replay` frame is commit, time and that same encoding one behind the other, for postcard puts nothing in between.

use std::collections::BTreeMap;

use flexfs_wire::frame::{FrameError, HEADER_BYTES, Header, Kind};
use flexfs_wire::id::{Commit, RequestId};
use flexfs_wire::limits::{BODY_BYTES_MAX, UNSTABLE_BYTES_MAX as BYTES_MAX};
use flexfs_wire::message::Call;
use flexfs_wire::time::Time;

/// Calls kept before new mutations wait for the disk: a second of the fastest server.
const COUNT_MAX: usize = 128 * 1024;
/// What one entry takes besides its body: key, lengths, tree node.
const ENTRY_BYTES: usize = 96;

#[derive(Debug)]
struct Kept {
    request: RequestId,
    at: Time,
    body: Vec<u8>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Unstable {
    /// Ordered as the server applied them. One commit may hold several calls (the server groups them).
    calls: BTreeMap<(Commit, RequestId), Kept>,
    bytes: usize,
    durable: Commit,
}

impl Unstable {
    /// A mutation was answered. `body` is the encoded `Call`.
    pub fn handle_answer(&mut self, request: RequestId, commit: Commit, at: Time, body: Vec<u8>) {
        if commit > self.durable {
            self.bytes += body.len() + ENTRY_BYTES;
            self.calls.insert((commit, request), Kept { request, at, body });
        }
    }

    /// Commits up to `durable` are on disk.
    pub fn handle_durable(&mut self, durable: Commit) {
        if durable <= self.durable {
            return;
        }
        self.durable = durable;
        while let Some(first) = self.calls.first_entry()
            && first.key().0 <= durable
        {
            self.bytes -= first.remove().body.len() + ENTRY_BYTES;
        }
    }

    /// The server has applied and synced every replayed call, under commits of its own.
    pub fn handle_recovered(&mut self) -> usize {
        self.bytes = 0;
        let count = self.calls.len();
        self.calls.clear();
        count
    }

    /// Whether new mutations are to wait until more is durable.
    pub fn is_full(&self) -> bool {
        self.calls.len() >= COUNT_MAX || self.bytes >= BYTES_MAX
    }

    /// How many are kept.
    pub fn count(&self) -> usize {
        self.calls.len()
    }

    /// Appends `Replay` frames of calls behind `after`, ascending, until `out` has about `bytes_max` bytes. Returns where
    /// to go on, `None` at the end.
    ///
    /// # Errors
    /// `TooLarge`: cannot happen for a body that once was a request, whose bound is the same less a few bytes.
    pub fn poll_replay(
        &self,
        after: (Commit, RequestId),
        mark: u64,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<(Commit, RequestId)>, FrameError> {
        use std::ops::Bound::{Excluded, Unbounded};
        for ((commit, request), kept) in self.calls.range((Excluded(after), Unbounded)) {
            let mut header = Header::new(Kind::Replay, kept.request);
            header.mark = mark;
            encode_replay(header, *commit, kept.at, &kept.body, out)?;
            if out.len() >= bytes_max {
                return Ok(Some((*commit, *request)));
            }
        }
        Ok(None)
    }
}

/// Appends a frame whose body is `Replay { commit, at, call }`, with `call` already encoded.
fn encode_replay(
    mut header: Header,
    commit: Commit,
    at: Time,
    call: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), FrameError> {
    let head = postcard_head(commit, at);
    let body_bytes = head.len() + call.len();
    header.body_bytes = u32::try_from(body_bytes)
        .ok()
        .filter(|_| body_bytes <= BODY_BYTES_MAX)
        .ok_or(FrameError::TooLarge((HEADER_BYTES + body_bytes) as u64))?;
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(&head);
    out.extend_from_slice(call);
    Ok(())
}

fn postcard_head(commit: Commit, at: Time) -> Vec<u8> {
    let mut framed = Vec::new();
    // Encoding two numbers into a Vec cannot fail; an empty head would be refused by the server, not misread.
    let _ =
        flexfs_wire::frame::encode(Header::new(Kind::Replay, RequestId(0)), &(commit, at), 0, &mut framed);
    framed.drain(..HEADER_BYTES.min(framed.len()));
    framed
}

/// The encoded body of a `Request` frame.
///
/// # Errors
/// `TooLarge`: more than a frame's body may have.
pub fn encode_call(call: &Call) -> Result<Vec<u8>, FrameError> {
    let mut framed = Vec::with_capacity(HEADER_BYTES + 128);
    flexfs_wire::frame::encode(Header::new(Kind::Request, RequestId(0)), call, 0, &mut framed)?;
    framed.drain(..HEADER_BYTES);
    Ok(framed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flexfs_wire::frame;
    use flexfs_wire::id::Ino;
    use flexfs_wire::message::{Caller, Replay, Request};
    use flexfs_wire::name::Name;
    use flexfs_wire::seal::Node;

    fn call(number: u64) -> Call {
        Call {
            caller: Caller { uid: 1000, gid: 100 },
            told: None,
            request: Request::Remove {
                parent: Node { ino: Ino(number), seal: 7 },
                name: Name::new(b"name").unwrap(),
                dir: false,
            },
        }
    }

    fn keep(unstable: &mut Unstable, request: u64, commit: u64) {
        let body = encode_call(&call(request)).unwrap();
        let at = Time { secs: -5, nanos: 9 };
        unstable.handle_answer(RequestId(request), Commit(commit), at, body);
    }

    fn replays(unstable: &Unstable, bytes_max: usize) -> Vec<(u64, Replay)> {
        let mut found = Vec::new();
        let mut after = Some((Commit(0), RequestId(0)));
        while let Some(from) = after {
            let mut out = Vec::new();
            after = unstable.poll_replay(from, 3, bytes_max, &mut out).unwrap();
            let mut rest = out.as_slice();
            while let Some(head) = rest.first_chunk() {
                let header = Header::decode(head).unwrap();
                assert_eq!((header.kind, header.mark), (Kind::Replay, 3));
                let (body, next) = rest[HEADER_BYTES..].split_at(header.rest_bytes());
                found.push((header.request.0, frame::decode(Kind::Replay, body).unwrap()));
                rest = next;
            }
        }
        found
    }

    #[test]
    fn replays_come_in_order_of_commit_as_the_contract_encodes_them() {
        let mut unstable = Unstable::default();
        for (request, commit) in [(5, 30), (9, 10), (7, 20), (8, 20), (1, 0)] {
            keep(&mut unstable, request, commit);
        }
        for bytes_max in [1, 100, 1 << 20] {
            let found = replays(&unstable, bytes_max);
            let order: Vec<_> = found.iter().map(|(id, replay)| (*id, replay.commit.0)).collect();
            assert_eq!(order, [(9, 10), (7, 20), (8, 20), (5, 30)]);
            assert!(found.iter().all(|(id, replay)| replay.call == call(*id) && replay.at.secs == -5));
        }
    }

    #[test]
    fn what_is_durable_is_let_go() {
        let mut unstable = Unstable::default();
        for number in 1..=10 {
            keep(&mut unstable, number, number);
        }
        unstable.handle_durable(Commit(4));
        unstable.handle_durable(Commit(2));
        assert_eq!(unstable.count(), 6);
        keep(&mut unstable, 11, 3);
        assert_eq!(unstable.count(), 6, "an answer may come behind the news that it is durable");
        assert_eq!(replays(&unstable, 1).first().unwrap().0, 5);
        unstable.handle_durable(Commit(100));
        assert_eq!((unstable.count(), unstable.bytes), (0, 0));
    }

    #[test]
    fn it_is_bounded() {
        let mut unstable = Unstable::default();
        let body = vec![0; BYTES_MAX / 4];
        for number in 1..=4 {
            assert!(!unstable.is_full());
            unstable.handle_answer(RequestId(number), Commit(number), Time::default(), body.clone());
        }
        assert!(unstable.is_full());
        assert_eq!(unstable.handle_recovered(), 4);
        assert!(!unstable.is_full());
    }
}
