//! From a hello to a session without I/O, and what is kept of calls on both sides.

use std::hint::black_box;

use criterion::{BatchSize, Criterion};
use flexfs_meta::dedup::{Dedup, Remembered};
use flexfs_meta::session::handshake::{self, Asked};
use flexfs_mount::link::mark::Marks;
use flexfs_wire::frame::{self, Header, Kind};
use flexfs_wire::hello::{self, Hello, Welcome};
use flexfs_wire::id::{Commit, RequestId, SessionId};
use flexfs_wire::limits::PROTOCOL_VERSIONS;
use flexfs_wire::settings::{Access, Flags, ValidateAnswer};

use crate::{greeting, sample};

/// Calls a busy client has unfinished.
const UNFINISHED: u64 = 1_000;

pub(crate) fn benches(c: &mut Criterion) {
    handshakes(c);
    dedup(c);
    marks(c);
}

fn encoded<T: serde::Serialize>(kind: Kind, value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(Header::new(kind, RequestId(0)), value, 0, &mut out).unwrap();
    out
}

/// Hello encoded by the client, read and judged by the server, admin's verdict handled, welcome encoded and decoded.
fn handshakes(c: &mut Criterion) {
    let [(_, open), ..] = greeting::hellos();
    let [(_, welcome), (_, attached), ..] = greeting::welcomes();
    let Welcome::Granted(granted) = &welcome else { panic!("the first sample is a grant") };
    let pin = sample::token().ca_pin;
    let access = || Access {
        token_id: "id".to_owned(),
        settings: granted.settings.clone(),
        scope: "/".to_owned(),
        flags: Flags::default(),
        expires_at: None,
        networks: flexfs_wire::network::Networks::default(),
        limits: flexfs_wire::settings::TokenLimits::default(),
    };
    let round_trip = |access: Access| {
        let bytes = encoded(Kind::Hello, black_box(&open));
        let (hello, used) = handshake::read_hello(&bytes).unwrap().unwrap();
        assert_eq!(used, bytes.len());
        let Asked::Open(opening) = handshake::judge(hello, pin).unwrap() else { panic!("it opens") };
        let question = opening.question("192.0.2.7:40000");
        let admitted = opening.handle_verdict(Ok(ValidateAnswer::Accepted(Box::new(access)))).unwrap();
        let bytes = encoded(Kind::Welcome, &welcome);
        let welcome: Welcome = frame::decode(Kind::Welcome, &bytes[frame::HEADER_BYTES..]).unwrap();
        (question, admitted, welcome)
    };
    c.bench_function("session/open-round-trip", |b| {
        b.iter_batched(access, round_trip, BatchSize::SmallInput)
    });

    let keys = [[9; 32], granted.resume_key];
    let (session, exporter) = (SessionId(3), [4; 32]);
    let claim = |resume: bool| {
        let proof = hello::prove(&granted.resume_key, session, &exporter);
        let versions = PROTOCOL_VERSIONS;
        let hello = if resume {
            Hello::Resume { versions, session, proof }
        } else {
            Hello::Attach { versions, session, proof }
        };
        let bytes = encoded(Kind::Hello, &hello);
        let (hello, _) = handshake::read_hello(&bytes).unwrap().unwrap();
        let Asked::Claim(claiming) = handshake::judge(hello, pin).unwrap() else { panic!("it claims") };
        let (proven, index) = claiming.handle_sessions(keys.iter(), &exporter).unwrap();
        assert_eq!((proven.resume, index), (resume, 1));
        let bytes = encoded(Kind::Welcome, &attached);
        frame::decode::<Welcome>(Kind::Welcome, &bytes[frame::HEADER_BYTES..]).unwrap()
    };
    c.bench_function("session/attach-round-trip", |b| b.iter(|| claim(black_box(false))));
    c.bench_function("session/resume-round-trip", |b| b.iter(|| claim(black_box(true))));
}

/// One call of a client that has a thousand unfinished: is it a resend, remember it, take the mark, give rows to prune.
fn dedup(c: &mut Criterion) {
    let session = SessionId(3);
    let mut dedup = Dedup::default();
    let mut next = 0;
    let mut step = || {
        next += 1;
        let request = RequestId(next);
        let known = dedup.is_finished(session, request) || dedup.get(session, request).is_some();
        assert!(!known && !dedup.is_full(session));
        dedup.insert(session, request, Remembered::Stored { commit: Commit(next), fresh: true });
        dedup.finish(session, RequestId(next.saturating_sub(UNFINISHED)));
        dedup.take_obsolete(4)
    };
    (0..2 * UNFINISHED).for_each(|_| drop(step()));
    c.bench_function("session/dedup-step-1000-unfinished", |b| b.iter(&mut step));
}

/// An id for a call, the mark of its frame, and its end.
fn marks(c: &mut Criterion) {
    let marks = Marks::new(16);
    let mut step = || {
        let id = marks.take_once(3);
        let mark = marks.mark();
        marks.finish(3, None);
        assert!(mark <= id.0);
    };
    c.bench_function("session/mark-step-16-shards", |b| b.iter(&mut step));
}
