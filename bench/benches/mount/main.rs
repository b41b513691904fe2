//! What a mount pays for each request of the kernel besides the server: parsing, replying, maps of file data.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a measurement: a step that fails ends it")]

#[path = "../support/answer.rs"]
mod answer;
#[path = "../support/attr.rs"]
mod attr;
mod dirty;
mod extent;
#[path = "../support/plan.rs"]
mod plan;
mod reply;
#[path = "../support/request.rs"]
mod request;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use flexfs_mount::fuse::request::{Header, parse, parse_whole};

/// From an entry's memory to a typed operation, as `fuse::queue` does it.
fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("request");
    for sample in request::samples() {
        let header = Header::parse(&sample.header).unwrap();
        parse(&header, &sample.op, &sample.payload).unwrap();
        group.bench_function(format!("parse/{}", sample.name), |b| {
            b.iter(|| {
                let header = Header::parse(black_box(&sample.header))?;
                parse(&header, black_box(&sample.op), black_box(&sample.payload))
            });
        });
    }
    group.finish();
    // Through /dev/fuse the same bytes come in one run.
    let lookup = request::samples().into_iter().find(|sample| sample.name == "lookup").unwrap();
    let whole = [lookup.header, lookup.payload].concat();
    parse_whole(&whole).unwrap();
    c.bench_function("request/parse-whole/lookup", |b| b.iter(|| parse_whole(black_box(&whole))));
}

criterion_group! {
    name = benches;
    config = plan::criterion();
    targets = requests, reply::benches, extent::benches, dirty::benches
}
criterion_main!(benches);
