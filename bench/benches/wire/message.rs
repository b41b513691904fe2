//! Encoding and decoding of every kind of frame: header, checksum and body.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use flexfs_wire::frame::{self, HEADER_BYTES, Header, Kind};
use flexfs_wire::id::RequestId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{greeting, sample};

pub(crate) fn benches(c: &mut Criterion) {
    codec(c, Kind::Hello, greeting::hellos());
    codec(c, Kind::Welcome, greeting::welcomes());
    codec(c, Kind::Request, sample::calls());
    codec(c, Kind::Reply, sample::answers());
    codec(c, Kind::Notice, greeting::notices());
    codec(c, Kind::Replay, greeting::replays());
    codec(c, Kind::Recovery, greeting::recoveries());
}

fn codec<T, const COUNT: usize>(c: &mut Criterion, kind: Kind, values: [(&str, T); COUNT])
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    for (name, value) in values {
        let mut group = c.benchmark_group(format!("message/{kind:?}/{name}").to_lowercase());
        let mut out = Vec::new();
        let header = Header::new(kind, RequestId(1));
        frame::encode(header, &value, 0, &mut out).unwrap();
        assert_eq!(frame::decode::<T>(kind, &out[HEADER_BYTES..]).unwrap(), value);
        group.throughput(Throughput::Bytes(out.len() as u64));
        let body = out[HEADER_BYTES..].to_vec();
        group.bench_function("encode", |b| {
            b.iter(|| {
                out.clear();
                frame::encode(header, black_box(&value), 0, &mut out)
            });
        });
        group.bench_function("decode", |b| b.iter(|| frame::decode::<T>(kind, black_box(&body))));
        group.finish();
    }
}
