//! Operations through a shard: slot, submission, turn of the loop, completion, waking of the task.

use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use criterion::{Criterion, Throughput};
use flexfs_uring::file::File;
use flexfs_uring::socket::{TcpListener, TcpStream};
use flexfs_uring::{Shard, ShardConfig, clock, spawn, yield_now};
use rustix::fs::OFlags;

const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Tasks that have an operation in flight at once.
const DEEP: u64 = 32;

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("shard");
    group.bench_function("yield", |b| {
        b.iter_custom(|count| timed(async move { repeat(count, async |_| yield_now().await).await }));
    });
    for (name, tasks) in [("read-null", 1), ("read-null-32-tasks", DEEP)] {
        group.bench_function(name, |b| b.iter_custom(|count| timed(reads(count, tasks))));
    }
    group.bench_function("msg-ring-wakes-other-shard", |b| b.iter_custom(passes));
    for bytes in [64, 4_096, 16_384] {
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("send-and-multishot-receive-{bytes}"), |b| {
            b.iter_custom(|count| timed(receive(count, bytes, true)));
        });
        group.bench_function(format!("send-and-plain-receive-{bytes}"), |b| {
            b.iter_custom(|count| timed(receive(count, bytes, false)));
        });
    }
    group.throughput(Throughput::Bytes(1 << 20));
    group.bench_function("stream-1m-multishot", |b| {
        b.iter_custom(|count| timed(receive(count, 1 << 20, true)))
    });
    group.finish();
}

/// Runs the future on a shard of its own; the time it says.
fn timed(future: impl Future<Output = Duration>) -> Duration {
    Shard::new(&ShardConfig::default()).unwrap().block_on(future)
}

async fn repeat(count: u64, mut step: impl AsyncFnMut(u64)) -> Duration {
    let start = clock::now();
    for number in 0..count {
        step(number).await;
    }
    clock::now() - start
}

/// Reads that complete at once: nothing is measured but the way there and back.
async fn reads(count: u64, tasks: u64) -> Duration {
    let file =
        Rc::new(File::open(Path::new("/dev/null"), OFlags::RDONLY | OFlags::CLOEXEC, 0).await.unwrap());
    let start = clock::now();
    let tasks: Vec<_> = (0..tasks)
        .map(|task| {
            let file = Rc::clone(&file);
            let share = count / tasks + u64::from(task < count % tasks);
            spawn(async move {
                let mut buffer = Vec::with_capacity(64);
                for _ in 0..share {
                    let (read, back) = file.read_at(buffer, 0).await;
                    assert_eq!(read.unwrap(), 0);
                    buffer = back;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await;
    }
    clock::now() - start
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(LOCAL).unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = spawn(async move { listener.accept().await.unwrap() });
    let connected = TcpStream::connect(address).await.unwrap();
    (connected, accepted.await)
}

/// Messages over loopback, one at a time, within one shard.
async fn receive(count: u64, bytes: usize, multishot: bool) -> Duration {
    let (from, to) = pair().await;
    let from = Rc::new(from);
    let mut leases = to.recv_stream();
    let (mut out, mut into) = (vec![7; bytes], Vec::with_capacity(bytes));
    let start = clock::now();
    for _ in 0..count {
        let from = Rc::clone(&from);
        // More than a socket's buffer holds is sent while it is received.
        let sending = spawn(async move {
            let (sent, out) = from.send_all(out).await;
            sent.unwrap();
            out
        });
        if multishot {
            let mut received = 0;
            while received < bytes {
                received += leases.next().await.unwrap().unwrap().len();
            }
        } else {
            into.clear();
            let (done, back) = to.recv_exact(into, bytes).await;
            done.unwrap();
            into = back;
        }
        out = sending.await;
    }
    clock::now() - start
}

/// A ball between two shards: each pass wakes a sleeping ring with MSG_RING.
struct Court {
    ball: AtomicU64,
    last: u64,
    wakers: [Mutex<Option<Waker>>; 2],
}

/// Time of `count` passes to and fro.
fn passes(count: u64) -> Duration {
    let court = Arc::new(Court { ball: AtomicU64::new(0), last: 2 * count + 1, wakers: Default::default() });
    let other = Arc::clone(&court);
    let thread = std::thread::spawn(move || timed(play(other, 0)));
    let taken = timed(play(court, 1));
    thread.join().unwrap();
    taken
}

/// Side 0 has the first ball; the clock of side 1 starts when it gets it.
async fn play(court: Arc<Court>, side: usize) -> Duration {
    let mut start = None;
    loop {
        let ball = poll_fn(|cx| {
            *court.wakers[side].lock().unwrap() = Some(cx.waker().clone());
            let ball = court.ball.load(Ordering::SeqCst);
            if ball >= court.last || ball % 2 == side as u64 { Poll::Ready(ball) } else { Poll::Pending }
        })
        .await;
        let start = *start.get_or_insert_with(clock::now);
        if ball < court.last {
            court.ball.store(ball + 1, Ordering::SeqCst);
        }
        let waker = court.wakers[1 - side].lock().unwrap().take();
        if let Some(waker) = waker {
            waker.wake();
        }
        if ball >= court.last {
            let taken = clock::now() - start;
            // The last wake-up for the other side leaves with the end of this turn.
            yield_now().await;
            return taken;
        }
    }
}
