//! A bare ring with the flags of a shard's: submitting and reaping NOPs by size of the submission entry, and messages
//! from ring to ring. FUSE over io_uring needs entries of 128 bytes; this says what they cost all others.
#![expect(unsafe_code, reason = "queues entries; none of them refers to memory")]

use std::os::fd::AsRawFd as _;

use criterion::{Criterion, Throughput};
use io_uring::{IoUring, cqueue, opcode, squeue, types};

const ENTRIES: u32 = 256;

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("raw");
    for count in [1, 32, 256] {
        group.throughput(Throughput::Elements(count));
        let mut ring = ring::<squeue::Entry>();
        group.bench_function(format!("nop-64-byte-entries-x{count}"), |b| b.iter(|| nops(&mut ring, count)));
        let mut ring = self::ring::<squeue::Entry128>();
        group.bench_function(format!("nop-128-byte-entries-x{count}"), |b| b.iter(|| nops(&mut ring, count)));
    }
    group.throughput(Throughput::Elements(1));
    let (mut from, mut to) = (ring::<squeue::Entry128>(), ring::<squeue::Entry128>());
    group.bench_function("msg-ring-one-thread", |b| b.iter(|| message(&mut from, &mut to)));
    group.finish();
}

/// As `ring.rs` sets it up.
fn ring<S: squeue::EntryMarker>() -> IoUring<S, cqueue::Entry> {
    let mut builder = IoUring::<S, cqueue::Entry>::builder();
    builder.setup_cqsize(ENTRIES * 4).setup_submit_all().setup_single_issuer().setup_defer_taskrun();
    builder.setup_taskrun_flag().build(ENTRIES).unwrap()
}

fn push<S: squeue::EntryMarker>(ring: &mut IoUring<S, cqueue::Entry>, entry: &S) {
    // SAFETY: neither a NOP nor a message refers to memory.
    unsafe { ring.submission().push(entry) }.unwrap();
}

/// Submits and reaps so many NOPs with one system call.
fn nops<S: squeue::EntryMarker + From<squeue::Entry>>(ring: &mut IoUring<S, cqueue::Entry>, count: u64) {
    for number in 0..count {
        push(ring, &S::from(opcode::Nop::new().build().user_data(number)));
    }
    ring.submit_and_wait(usize::try_from(count).unwrap()).unwrap();
    for number in 0..count {
        assert_eq!(ring.completion().next().unwrap().user_data(), number);
    }
}

fn message(from: &mut IoUring<squeue::Entry128>, to: &mut IoUring<squeue::Entry128>) {
    let entry = opcode::MsgRingData::new(types::Fd(to.as_raw_fd()), 0, 7, None).build();
    push(from, &entry.into());
    from.submit_and_wait(1).unwrap();
    assert_eq!(from.completion().next().unwrap().result(), 0);
    to.submit_and_wait(1).unwrap();
    assert_eq!(to.completion().next().unwrap().user_data(), 7);
}
