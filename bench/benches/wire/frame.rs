//! Cutting received bytes into frames: meta's half on plaintext, the mount's half from sealed records on.

use std::hint::black_box;
use std::io;
use std::task::{Context, Poll, Waker};

use criterion::{BatchSize, Criterion, Throughput};
use flexfs_meta::net::inbound::{Assembler, Event};
use flexfs_mount::link::rx::{Rx, Source};
use flexfs_wire::frame::{self, Header, Kind};
use flexfs_wire::id::{BlockId, RequestId};
use flexfs_wire::limits::SEGMENT_BYTES;
use flexfs_wire::message::{Call, Caller, Request};
use flexfs_wire::record::{Opener, PLAIN_BYTES_MAX, Sealer};

use crate::{sample, tls};

/// Frames of a burst.
const FRAMES: u64 = 256;
/// Payload of a block that is put.
const PAYLOAD_BYTES: usize = 16 * SEGMENT_BYTES as usize;

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame");
    let burst = sample::frames(FRAMES);
    group.throughput(Throughput::Elements(FRAMES));
    group.bench_function("split-256-at-once", |b| b.iter(|| split(&burst, burst.len())));
    group.bench_function("split-256-in-1000-byte-pieces", |b| b.iter(|| split(&burst, 1_000)));
    assert_eq!((split(&burst, burst.len()), split(&burst, 1_000)), (FRAMES, FRAMES));

    let put = Call::new(Caller { uid: 0, gid: 0 }, Request::PutBlock { block: BlockId(5) });
    let mut large = Vec::new();
    frame::encode(Header::new(Kind::Request, RequestId(1)), &put, PAYLOAD_BYTES, &mut large).unwrap();
    large.resize(large.len() + PAYLOAD_BYTES, 7);
    assert_eq!(split(&large, PLAIN_BYTES_MAX), 1);
    group.throughput(Throughput::Bytes(PAYLOAD_BYTES as u64));
    group.bench_function("split-1m-payload-in-records", |b| b.iter(|| split(&large, PLAIN_BYTES_MAX)));

    group.throughput(Throughput::Elements(FRAMES));
    let secrets = tls::default_secrets();
    for (name, per_record) in [("one-record-each", 1), ("full-records", FRAMES)] {
        let sealed = sealed(&secrets, per_record);
        group.bench_function(format!("receive-256-sealed-{name}"), |b| {
            b.iter_batched(
                || {
                    Rx::new(
                        Pieces(Some(sealed.clone())),
                        Opener::new(0, &secrets).unwrap(),
                        Vec::new(),
                        Vec::new(),
                        flexfs_uring::clock::now(),
                    )
                },
                |mut rx| receive(&mut rx),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// Feeds `bytes` in pieces; the number of whole frames.
fn split(bytes: &[u8], piece: usize) -> u64 {
    let mut assembler = Assembler::new();
    let mut frames = 0;
    for piece in bytes.chunks(piece) {
        let mut plain = piece;
        loop {
            match assembler.next(&mut plain).unwrap() {
                Event::Frame { body, payload, .. } => {
                    black_box((body, payload));
                    frames += 1;
                }
                Event::Room(_) => assembler.room(Vec::new()),
                Event::More => break,
            }
        }
    }
    frames
}

/// Everything in one piece, as a large receive buffer holds it.
struct Pieces(Option<Vec<u8>>);

impl Source for Pieces {
    type Piece = Vec<u8>;

    fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<io::Result<Option<Vec<u8>>>> {
        Poll::Ready(Ok(self.0.take()))
    }
}

/// The burst as answers, so many to a call of the sealer.
fn sealed(secrets: &rustls::ConnectionTrafficSecrets, per_record: u64) -> Vec<u8> {
    let mut sealer = Sealer::new(0, secrets).unwrap();
    let (mut out, mut plain) = (Vec::new(), Vec::new());
    for number in 1..=FRAMES {
        frame::encode(Header::new(Kind::Reply, RequestId(number)), &sample::found(), 0, &mut plain).unwrap();
        if number.is_multiple_of(per_record) {
            sealer.seal(&[&plain], &mut out).unwrap();
            plain.clear();
        }
    }
    out
}

fn receive(rx: &mut Rx<Pieces>) -> u64 {
    let mut cx = Context::from_waker(Waker::noop());
    for number in 1..=FRAMES {
        let Poll::Ready(header) = rx.poll_frame(&mut cx) else { panic!("all of it is there") };
        assert_eq!(header.unwrap().request, RequestId(number));
        black_box(rx.body());
    }
    FRAMES
}
