//! Tokens, frames, messages, records, segments.

use std::hint::black_box;

use flexfs_meta::net::inbound::{Assembler, Event};
use flexfs_wire::block::{self, Index, open_segment};
use flexfs_wire::frame::{self, HEADER_BYTES, Header, Kind};
use flexfs_wire::id::RequestId;
use flexfs_wire::limits::SEGMENT_BYTES;
use flexfs_wire::message::{Answer, Call};
use flexfs_wire::record::{Opener, PLAIN_BYTES_MAX, Sealer};
use flexfs_wire::settings::Compression;
use flexfs_wire::token::Token;
use rustls::ConnectionTrafficSecrets;
use rustls::crypto::cipher::{AeadKey, Iv};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Case, repeated};
use crate::sample;

/// Calls of cheap paths.
const MANY: u64 = 1_000;
/// Calls of paths that move kilobytes.
const FEW: u64 = 20;
/// Frames of a burst.
const FRAMES: u64 = 256;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case { name: "token/parse", calls: MANY, prepare: token_parse },
        Case { name: "token/verify-hash", calls: MANY, prepare: token_verify },
        Case { name: "frame/split", calls: FRAMES, prepare: split },
        Case { name: "record/seal-64", calls: MANY, prepare: || record_seal(MANY, 64) },
        Case { name: "record/seal-16k", calls: FEW, prepare: || record_seal(FEW, PLAIN_BYTES_MAX) },
        Case { name: "record/open-64", calls: MANY, prepare: || record_open(MANY, 64) },
        Case { name: "record/open-16k", calls: FEW, prepare: || record_open(FEW, PLAIN_BYTES_MAX) },
        Case { name: "segment/seal-none", calls: FEW, prepare: || segment_seal(Compression::None) },
        Case { name: "segment/seal-lz4", calls: FEW, prepare: || segment_seal(Compression::Lz4) },
        Case { name: "segment/open-none", calls: FEW, prepare: || segment_open(Compression::None) },
        Case { name: "segment/open-lz4", calls: FEW, prepare: || segment_open(Compression::Lz4) },
    ];
    cases.extend(messages());
    cases
}

fn messages() -> Vec<Case> {
    vec![
        Case { name: "frame/encode-lookup", calls: MANY, prepare: || encode(MANY, Kind::Request, call(0)) },
        Case { name: "frame/decode-lookup", calls: MANY, prepare: || decode(MANY, Kind::Request, call(0)) },
        Case { name: "frame/encode-make", calls: MANY, prepare: || encode(MANY, Kind::Request, call(1)) },
        Case { name: "frame/decode-make", calls: MANY, prepare: || decode(MANY, Kind::Request, call(1)) },
        Case { name: "frame/encode-write-16k", calls: FEW, prepare: || encode(FEW, Kind::Request, call(3)) },
        Case { name: "frame/decode-write-16k", calls: FEW, prepare: || decode(FEW, Kind::Request, call(3)) },
        Case { name: "frame/encode-entry", calls: MANY, prepare: || encode(MANY, Kind::Reply, answer(1)) },
        Case { name: "frame/decode-entry", calls: MANY, prepare: || decode(MANY, Kind::Reply, answer(1)) },
        Case {
            name: "frame/encode-600-entries",
            calls: FEW,
            prepare: || encode(FEW, Kind::Reply, answer(3)),
        },
        Case {
            name: "frame/decode-600-entries",
            calls: FEW,
            prepare: || decode(FEW, Kind::Reply, answer(3)),
        },
    ]
}

fn call(index: usize) -> Call {
    sample::calls().into_iter().nth(index).unwrap().1
}

fn answer(index: usize) -> Answer {
    sample::answers().into_iter().nth(index).unwrap().1
}

fn token_parse() -> Box<dyn FnMut()> {
    let text = sample::token().to_text();
    repeated(MANY, move || drop(black_box(Token::parse(black_box(text.as_str())).unwrap())))
}

fn token_verify() -> Box<dyn FnMut()> {
    let token = sample::token();
    let hash = token.secret_hash();
    repeated(MANY, move || assert!(black_box(&token).verify_hash(black_box(&hash))))
}

fn encode<T: Serialize + 'static>(calls: u64, kind: Kind, value: T) -> Box<dyn FnMut()> {
    let mut out = Vec::new();
    repeated(calls, move || {
        out.clear();
        frame::encode(Header::new(kind, RequestId(1)), black_box(&value), 0, &mut out).unwrap();
    })
}

fn decode<T: Serialize + DeserializeOwned + 'static>(calls: u64, kind: Kind, value: T) -> Box<dyn FnMut()> {
    let mut out = Vec::new();
    frame::encode(Header::new(kind, RequestId(1)), &value, 0, &mut out).unwrap();
    repeated(calls, move || {
        let head = black_box(&out).first_chunk::<HEADER_BYTES>().unwrap();
        let header = Header::decode(head).unwrap();
        drop(black_box(frame::decode::<T>(header.kind, &out[HEADER_BYTES..]).unwrap()));
    })
}

fn split() -> Box<dyn FnMut()> {
    let burst = sample::frames(FRAMES);
    Box::new(move || {
        let (mut assembler, mut plain, mut frames) = (Assembler::new(), black_box(&burst[..]), 0);
        while let Event::Frame { body, .. } = assembler.next(&mut plain).unwrap() {
            black_box(body);
            frames += 1;
        }
        assert_eq!(frames, FRAMES);
    })
}

/// The same in every run, unlike those of a handshake.
fn secrets() -> ConnectionTrafficSecrets {
    ConnectionTrafficSecrets::Aes256Gcm { key: AeadKey::from([7; 32]), iv: Iv::new([3; 12]) }
}

fn record_seal(calls: u64, bytes: usize) -> Box<dyn FnMut()> {
    let (mut sealer, plain) = (Sealer::new(0, &secrets()).unwrap(), vec![7; bytes]);
    let mut out = Vec::new();
    repeated(calls, move || {
        out.clear();
        sealer.seal(&[black_box(&plain)], &mut out).unwrap();
    })
}

fn record_open(calls: u64, bytes: usize) -> Box<dyn FnMut()> {
    let (mut sealer, mut opener) = (Sealer::new(0, &secrets()).unwrap(), Opener::new(0, &secrets()).unwrap());
    let plain = vec![7; bytes];
    let mut records = Vec::new();
    // One run to warm up, one that counts.
    for _ in 0..2 * calls {
        let mut record = Vec::new();
        sealer.seal(&[&plain], &mut record).unwrap();
        records.push(record);
    }
    let (mut records, mut out) = (records.into_iter(), vec![0; bytes + 1]);
    repeated(calls, move || {
        let record = records.as_slice().first().unwrap();
        assert_eq!(opener.open_into(black_box(record), &mut out).unwrap(), bytes);
        std::mem::forget(records.next());
    })
}

/// One segment of a log's lines.
fn lines() -> Vec<u8> {
    let line = |number: u32| {
        let word = number.wrapping_mul(2_654_435_761);
        format!("2026-01-01T00:00:00Z node{:03} request {number} took {word} ns: ok\n", number % 512)
            .into_bytes()
    };
    (0..).flat_map(line).take(SEGMENT_BYTES as usize).collect()
}

fn segment_seal(compression: Compression) -> Box<dyn FnMut()> {
    let raw = lines();
    let mut out = Vec::new();
    repeated(FEW, move || {
        out.clear();
        block::seal(black_box(&raw), compression, &mut out).unwrap();
    })
}

fn segment_open(compression: Compression) -> Box<dyn FnMut()> {
    let (mut sealed, mut out) = (Vec::new(), vec![0; SEGMENT_BYTES as usize]);
    block::seal(&lines(), compression, &mut sealed).unwrap();
    repeated(FEW, move || {
        let index = Index::parse(black_box(&sealed)).unwrap();
        let stored = &sealed[index.stored_range(0, 1).unwrap()];
        open_segment(&index.segments()[0], stored, &mut out).unwrap();
    })
}
