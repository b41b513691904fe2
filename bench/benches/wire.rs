//! What every request pays in the protocol: tokens, frames, messages.
#![forbid(unsafe_code)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flexfs_wire::attr::Attr;
use flexfs_wire::frame::{self, HEADER_BYTES, Header, Kind};
use flexfs_wire::id::{Commit, Ino, RequestId};
use flexfs_wire::message::{Answer, Call, Caller, Entry, Reply, Request};
use flexfs_wire::name::Name;
use flexfs_wire::seal::{Node, Sealer};
use flexfs_wire::time::Time;
use flexfs_wire::token::{CaPin, Secret, Token, TokenId, TokenKind};

fn tokens(c: &mut Criterion) {
    let token = Token {
        kind: TokenKind::Volume,
        id: TokenId([1; 16]),
        secret: Secret::new([2; 32]),
        ca_pin: CaPin([3; 16]),
    };
    let text = token.to_text();
    let hash = token.secret_hash();
    c.bench_function("token/parse", |b| b.iter(|| Token::parse(black_box(text.as_str()))));
    c.bench_function("token/verify", |b| b.iter(|| black_box(&token).verify_hash(black_box(&hash))));
}

fn messages(c: &mut Criterion) {
    let node = Node { ino: Ino(42), seal: 7 };
    let request = Request::Lookup { parent: node, name: Name::new(b"a-file-name.txt").expect("a name") };
    let call = Call { caller: Caller { uid: 1000, gid: 100 }, request };
    let attr = Attr {
        ino: Ino(42),
        mode: 0o100_644,
        nlink: 1,
        uid: 1000,
        gid: 100,
        rdev: 0,
        size: 1 << 20,
        blocks: 2048,
        atime: Time::default(),
        mtime: Time::default(),
        ctime: Time::default(),
        btime: Time::default(),
        version: 3,
    };
    let answer =
        Answer { commit: Commit(9), at: Time::default(), result: Ok(Reply::Entry(Entry { node, attr })) };
    let mut group = c.benchmark_group("message");
    group.throughput(Throughput::Elements(1));
    let mut out = Vec::with_capacity(4096);
    group.bench_function("call/encode", |b| {
        b.iter(|| {
            out.clear();
            frame::encode(Header::new(Kind::Request, RequestId(1)), black_box(&call), 0, &mut out)
        });
    });
    group.bench_function("call/decode", |b| {
        b.iter(|| frame::decode::<Call>(Kind::Request, black_box(&out[HEADER_BYTES..])));
    });
    let mut reply = Vec::with_capacity(4096);
    group.bench_function("answer/encode", |b| {
        b.iter(|| {
            reply.clear();
            frame::encode(Header::new(Kind::Reply, RequestId(1)), black_box(&answer), 0, &mut reply)
        });
    });
    group.bench_function("answer/decode", |b| {
        b.iter(|| frame::decode::<Answer>(Kind::Reply, black_box(&reply[HEADER_BYTES..])));
    });
    let sealer = Sealer::new([7; 16], Ino::ROOT);
    group.bench_function("node/verify", |b| b.iter(|| sealer.verify(black_box(node))));
    group.finish();
}

criterion_group!(benches, tokens, messages);
criterion_main!(benches);
