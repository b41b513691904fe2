//! Blocks of segments: sealed (compressed, checksummed, on encrypted volumes encrypted) and opened; names of encrypted volumes.
//! On the way they lie in TLS records, which are measured with TLS.

use std::hint::black_box;

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use flexfs_wire::block::{self, Index, open_encrypted, open_segment};
use flexfs_wire::cipher::{Cipher, VolumeKey};
use flexfs_wire::id::{BlockId, Ino};
use flexfs_wire::limits::{BLOCK_BYTES_DEFAULT, SEGMENT_BYTES};
use flexfs_wire::name::Name;
use flexfs_wire::settings::Compression;

use crate::mode;

const COMPRESSIONS: [(&str, Compression); 3] =
    [("none", Compression::None), ("lz4", Compression::Lz4), ("zstd", Compression::Zstd)];

pub(crate) fn benches(c: &mut Criterion) {
    let block = if mode::is_measured() { BLOCK_BYTES_DEFAULT } else { 2 * SEGMENT_BYTES };
    for (name, compression) in COMPRESSIONS {
        let mut group = c.benchmark_group(format!("block/{name}"));
        for (size, bytes) in [("segment-64k", SEGMENT_BYTES), ("block-4m", block)] {
            for (content, raw) in [("text", text(bytes)), ("random", random(bytes))] {
                seal_and_open(&mut group, &format!("{size}-{content}"), &raw, compression);
            }
        }
        group.finish();
    }
    encrypted(c, block);
}

/// The same with encryption, and what a name of an encrypted volume costs.
fn encrypted(c: &mut Criterion, block: u32) {
    let cipher = Cipher::new(&VolumeKey::random());
    for (name, compression) in COMPRESSIONS {
        let mut group = c.benchmark_group(format!("block/encrypted-{name}"));
        for (size, bytes) in [("segment-64k", SEGMENT_BYTES), ("block-4m", block)] {
            for (content, raw) in [("text", text(bytes)), ("random", random(bytes))] {
                let seal = |out: &mut Vec<u8>| {
                    out.clear();
                    block::seal_encrypted(black_box(&raw), compression, cipher.block(BlockId(1)), out)
                };
                group.throughput(Throughput::Bytes(raw.len() as u64));
                let mut stored = Vec::new();
                seal(&mut stored).unwrap();
                let mut out = vec![0; raw.len()];
                decrypt_into(&cipher, &stored, &mut out);
                assert!(out == raw);
                group.bench_function(format!("open-{size}-{content}"), |b| {
                    b.iter(|| decrypt_into(&cipher, black_box(&stored), &mut out));
                });
                group.bench_function(format!("seal-{size}-{content}"), |b| b.iter(|| seal(&mut stored)));
            }
        }
        group.finish();
    }
    let mut group = c.benchmark_group("cipher");
    let name = Name::new(b"checkpoint-000123.safetensors").unwrap();
    let sealed = cipher.seal_name(Ino(7), &name);
    group.bench_function("seal-name", |b| b.iter(|| cipher.seal_name(Ino(7), black_box(&name))));
    group.bench_function("open-name", |b| b.iter(|| cipher.open_name(Ino(7), black_box(&sealed))));
    group.finish();
}

fn decrypt_into(cipher: &Cipher, stored: &[u8], out: &mut [u8]) {
    let index = Index::parse(stored).unwrap();
    let (cipher, mut plain) = (cipher.block(BlockId(1)), Vec::new());
    let places = out.chunks_mut(SEGMENT_BYTES as usize);
    for ((number, segment), place) in (0..).zip(index.segments()).zip(places) {
        let bytes = &stored[index.stored_range(number, 1).unwrap()];
        open_encrypted(&cipher, number, segment, bytes, place, &mut plain).unwrap();
    }
}

/// Lines of a log: about a third of it remains.
fn text(bytes: u32) -> Vec<u8> {
    let line = |number: u32| {
        let word = number.wrapping_mul(2_654_435_761);
        format!("2026-01-01T00:00:00Z node{:03} request {number} took {word} ns: ok\n", number % 512)
            .into_bytes()
    };
    (0..).flat_map(line).take(bytes as usize).collect()
}

fn random(bytes: u32) -> Vec<u8> {
    let mut state = 1u64;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    (0..bytes).map(step).collect()
}

fn seal_and_open(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, raw: &[u8], compression: Compression) {
    let mut sealed = Vec::new();
    block::seal(raw, compression, &mut sealed).unwrap();
    assert!(open(&sealed) == raw);
    group.throughput(Throughput::Bytes(raw.len() as u64));
    let mut out = Vec::new();
    group.bench_function(format!("seal-{name}"), |b| {
        b.iter(|| {
            out.clear();
            block::seal(black_box(raw), compression, &mut out)
        });
    });
    let mut out = vec![0; raw.len()];
    group.bench_function(format!("open-{name}"), |b| b.iter(|| open_into(black_box(&sealed), &mut out)));
}

fn open(sealed: &[u8]) -> Vec<u8> {
    let mut out = vec![0; Index::parse(sealed).unwrap().raw_bytes() as usize];
    open_into(sealed, &mut out);
    out
}

fn open_into(sealed: &[u8], out: &mut [u8]) {
    let index = Index::parse(sealed).unwrap();
    let places = out.chunks_mut(SEGMENT_BYTES as usize);
    for ((number, segment), place) in (0..).zip(index.segments()).zip(places) {
        open_segment(segment, &sealed[index.stored_range(number, 1).unwrap()], place).unwrap();
    }
}
