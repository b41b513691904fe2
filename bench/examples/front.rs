//! Which runtime meta's connections should live on: one server thread that answers requests, three ways, under the same load.
//!
//! `cargo run --release -p flexfs-bench --example front`. A request is 64 bytes and asks for an answer of so many; a server thread reads what is
//! there, and writes all answers it owes at once, as meta's links do. Clients are threads with blocking sockets and a window of requests on their
//! way. Shown: answers a second, and CPU of the server's thread per answer; medians of the rounds, which take turns.
#![forbid(unsafe_code)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Bytes of a request; the first four are the length of the answer.
const REQUEST_BYTES: usize = 64;
/// Bytes a server reads at once.
const READ_BYTES: usize = 64 * 1024;
/// How long a round takes.
const ROUND: Duration = Duration::from_millis(1500);
const ROUNDS: usize = 5;

/// A load: connections, requests on their way on each, bytes of an answer.
#[derive(Clone, Copy)]
struct Load {
    links: usize,
    window: usize,
    answer: u32,
}

const LOADS: [Load; 4] = [
    Load { links: 1, window: 1, answer: 128 },
    Load { links: 8, window: 4, answer: 128 },
    Load { links: 200, window: 1, answer: 128 },
    Load { links: 4, window: 4, answer: 1 << 20 },
];

/// What a server owes for the requests in `input`, whose whole ones are taken out.
fn answers(input: &mut Vec<u8>, out: &mut Vec<u8>) {
    let (requests, rest) = input.as_chunks::<REQUEST_BYTES>();
    for request in requests {
        let [a, b, c, d, ..] = *request;
        out.resize(out.len() + u32::from_le_bytes([a, b, c, d]) as usize, 7);
    }
    let taken = input.len() - rest.len();
    input.drain(..taken);
}

/// Serves connections that come over the channel, until it ends and they are closed.
type Server = fn(mpsc::Receiver<TcpStream>);

fn tokio_uring_server(links: mpsc::Receiver<TcpStream>) {
    let mut builder = tokio_uring::builder();
    builder.entries(1024);
    builder.start(async move {
        let mut tasks = Vec::new();
        for link in links {
            let link = tokio_uring::net::TcpStream::from_std(link);
            tasks.push(tokio_uring::spawn(async move {
                let mut input = Vec::with_capacity(READ_BYTES);
                let mut buffer = vec![0; READ_BYTES];
                let mut out = Vec::new();
                loop {
                    let (count, read) = link.read(buffer).await;
                    buffer = read;
                    let Ok(count @ 1..) = count else { return };
                    input.extend_from_slice(&buffer[..count]);
                    out.clear();
                    answers(&mut input, &mut out);
                    let (sent, written) = link.write_all(out).await;
                    out = written;
                    if sent.is_err() {
                        return;
                    }
                }
            }));
        }
        for task in tasks {
            drop(task.await);
        }
    });
}

fn tokio_server(links: mpsc::Receiver<TcpStream>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(async move {
        let mut tasks = Vec::new();
        for link in links {
            link.set_nonblocking(true).expect("a socket");
            let mut link = tokio::net::TcpStream::from_std(link).expect("a socket");
            tasks.push(tokio::task::spawn_local(async move {
                let mut input = Vec::with_capacity(READ_BYTES);
                let mut buffer = vec![0; READ_BYTES];
                let mut out = Vec::new();
                while let Ok(count @ 1..) = link.read(&mut buffer).await {
                    input.extend_from_slice(&buffer[..count]);
                    out.clear();
                    answers(&mut input, &mut out);
                    if link.write_all(&out).await.is_err() {
                        return;
                    }
                }
            }));
        }
        for task in tasks {
            drop(task.await);
        }
    }));
}

fn uring_server(links: mpsc::Receiver<TcpStream>) {
    let shard = flexfs_uring::Shard::new(&flexfs_uring::ShardConfig::default()).expect("a ring");
    shard.block_on(async move {
        let mut tasks = Vec::new();
        for link in links {
            let link = flexfs_uring::socket::TcpStream::from_std(link).expect("a socket");
            tasks.push(flexfs_uring::spawn(async move {
                let mut input = Vec::with_capacity(READ_BYTES);
                let mut out = Vec::new();
                let mut stream = link.recv_stream();
                while let Ok(Some(lease)) = stream.next().await {
                    input.extend_from_slice(&lease);
                    drop(lease);
                    while let Some(more) = stream.try_next() {
                        input.extend_from_slice(&more);
                    }
                    out.clear();
                    answers(&mut input, &mut out);
                    let (sent, written) = link.send_all(out).await;
                    out = written;
                    if sent.is_err() {
                        break;
                    }
                }
                stream.stop().await;
            }));
        }
        for task in tasks {
            task.await;
        }
    });
}

/// CPU of the calling thread, seconds (proc(5): nanoseconds come first).
#[expect(clippy::cast_precision_loss, reason = "seconds of a bench")]
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("/proc");
    text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).expect("nanoseconds") as f64 / 1e9
}

fn client(mut link: TcpStream, load: Load, stop: &AtomicBool, count: &AtomicU64) -> std::io::Result<()> {
    let mut request = [0; REQUEST_BYTES];
    request[..4].copy_from_slice(&load.answer.to_le_bytes());
    let mut answer = vec![0; load.answer as usize];
    link.write_all(&request.repeat(load.window))?;
    while !stop.load(Ordering::Relaxed) {
        link.read_exact(&mut answer)?;
        count.fetch_add(1, Ordering::Relaxed);
        link.write_all(&request)?;
    }
    for _ in 0..load.window {
        link.read_exact(&mut answer)?;
    }
    Ok(())
}

/// Answers a second, and the server's microseconds of CPU for each.
#[expect(clippy::cast_precision_loss, reason = "counts of a bench")]
fn round(server: Server, load: Load) -> (f64, f64) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    let address = listener.local_addr().expect("an address");
    let (give, take) = mpsc::channel();
    let clients: Vec<TcpStream> = (0..load.links)
        .map(|_| {
            let client = TcpStream::connect(address).expect("a link");
            let (served, _) = listener.accept().expect("a link");
            for link in [&client, &served] {
                link.set_nodelay(true).expect("a socket");
            }
            give.send(served).expect("the server takes it");
            client
        })
        .collect();
    drop(give);
    let serving = thread::spawn(move || {
        server(take);
        cpu()
    });
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = clients
        .into_iter()
        .map(|link| {
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            thread::spawn(move || client(link, load, &stop, &count))
        })
        .collect();
    thread::sleep(ROUND);
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().expect("a client").expect("answers until the end");
    }
    let used = serving.join().expect("the server");
    let count = count.load(Ordering::Relaxed) as f64;
    (count / ROUND.as_secs_f64(), used * 1e6 / count.max(1.0))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let servers: [(&str, Server); 3] =
        [("tokio-uring", tokio_uring_server), ("uring/", uring_server), ("tokio", tokio_server)];
    println!(
        "| links x window, answer | {} |",
        servers.map(|(name, _)| format!("{name}: /s, CPU us")).join(" | ")
    );
    println!("|---|--:|--:|--:|");
    for load in LOADS {
        let mut seen = servers.map(|_| (Vec::new(), Vec::new()));
        for _ in 0..ROUNDS {
            for ((_, server), (rates, costs)) in servers.iter().zip(&mut seen) {
                let (rate, cost) = round(*server, load);
                rates.push(rate);
                costs.push(cost);
            }
        }
        let cells = seen.map(|(rates, costs)| format!("{:.0}, {:.1}", median(rates), median(costs)));
        println!("| {} x {}, {} B | {} |", load.links, load.window, load.answer, cells.join(" | "));
    }
}
