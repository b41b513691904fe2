//! TCP over the ring, against itself and against the standard library.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking; its patterns are cut to bytes"
)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use flexfs_uring::socket::{TcpListener, TcpStream};
use flexfs_uring::timer::{sleep, timeout};
use flexfs_uring::{Shard, ShardConfig, spawn, yield_now};

const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const LIMIT: Duration = Duration::from_secs(60);

fn shard(recv_buffers: u16, recv_buffer_bytes: u32) -> Shard {
    Shard::new(&ShardConfig { cpu: None, sq_entries: 32, recv_buffers, recv_buffer_bytes }).unwrap()
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(LOCAL).unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = spawn(async move { listener.accept().await.unwrap() });
    let connected = TcpStream::connect(address).await.unwrap();
    assert_eq!(connected.peer_addr().unwrap(), address);
    (connected, accepted.await)
}

/// A byte for every position, so that a lost, doubled or swapped buffer shows.
fn pattern(position: usize) -> u8 {
    (position.wrapping_mul(2_654_435_761) >> 13) as u8
}

#[test]
fn echo_of_100_mib() {
    const TOTAL: usize = 100 << 20;
    const PIECE: usize = 256 << 10;
    let address_to_client = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || {
        shard(32, 16 << 10).block_on(async move {
            let listener = TcpListener::bind(LOCAL).unwrap();
            address_to_client.0.send(listener.local_addr().unwrap()).unwrap();
            let stream = listener.accept().await.unwrap();
            let mut received = stream.recv_stream();
            let mut buffer = Vec::new();
            while let Some(lease) = received.next().await.unwrap() {
                buffer.clear();
                buffer.extend_from_slice(&lease);
                drop(lease);
                let (sent, back) = stream.send_all(buffer).await;
                sent.unwrap();
                buffer = back;
            }
            stream.shutdown(Shutdown::Write).unwrap();
        });
    });
    let address = address_to_client.1.recv().unwrap();
    shard(32, 16 << 10).block_on(async move {
        let stream = Rc::new(TcpStream::connect(address).await.unwrap());
        let sender = Rc::clone(&stream);
        let sending = spawn(async move {
            let mut buffer = vec![0; PIECE];
            for start in (0..TOTAL).step_by(PIECE) {
                for (offset, byte) in buffer.iter_mut().enumerate() {
                    *byte = pattern(start + offset);
                }
                let (sent, back) = sender.send_all(buffer).await;
                sent.unwrap();
                buffer = back;
            }
            sender.shutdown(Shutdown::Write).unwrap();
        });
        let mut position = 0;
        let mut received = stream.recv_stream();
        while let Some(lease) = timeout(LIMIT, received.next()).await.unwrap().unwrap() {
            for byte in lease.iter() {
                assert_eq!(*byte, pattern(position), "at byte {position}");
                position += 1;
            }
        }
        assert_eq!(position, TOTAL);
        sending.await;
    });
    server.join().unwrap();
}

/// Eight streams share four small buffers, and each keeps leases for a while: the receives run dry all the time.
#[test]
fn multishot_receives_survive_running_out_of_buffers() {
    const TOTAL: usize = 1 << 20;
    shard(4, 512).block_on(async {
        let mut readers = Vec::new();
        for _ in 0..8 {
            let (client, server) = pair().await;
            let _sender = spawn(async move {
                let data = (0..TOTAL).map(pattern).collect();
                client.send_all(data).await.0.unwrap();
            });
            readers.push(spawn(async move {
                let mut received = server.recv_stream();
                let mut position = 0;
                while let Some(lease) = received.next().await.unwrap() {
                    yield_now().await;
                    for byte in lease.iter() {
                        assert_eq!(*byte, pattern(position));
                        position += 1;
                    }
                }
                position
            }));
        }
        for reader in readers {
            assert_eq!(timeout(LIMIT, reader).await.unwrap(), TOTAL);
        }
    });
}

#[test]
fn a_stopped_stream_hands_over_to_plain_receives_at_the_right_byte() {
    shard(8, 256).block_on(async {
        let (client, server) = pair().await;
        const ROUNDS: usize = 50;
        const SMALL: usize = 100;
        const LARGE: usize = 300_000;
        let sending = spawn(async move {
            let data: Vec<u8> = (0..ROUNDS * (SMALL + LARGE)).map(pattern).collect();
            client.send_all(data).await.0.unwrap();
            client
        });
        let mut received = server.recv_stream();
        let mut position = 0;
        let mut check = |bytes: &[u8]| {
            for byte in bytes {
                assert_eq!(*byte, pattern(position), "at byte {position}");
                position += 1;
            }
        };
        let mut seen = 0;
        for round in 1..=ROUNDS {
            let lease = timeout(LIMIT, received.next()).await.unwrap().unwrap().unwrap();
            seen += lease.len();
            check(&lease);
            drop(lease);
            if round % 3 == 0 {
                // A stop that is itself interrupted must not break anything.
                let _ = timeout(Duration::ZERO, received.stop()).await;
            }
            received.stop().await;
            while let Some(lease) = received.try_next() {
                seen += lease.len();
                check(&lease);
            }
            let want = (round * (SMALL + LARGE)).saturating_sub(seen).min(LARGE);
            let (done, bytes) = server.recv_exact(Vec::new(), want).await;
            done.unwrap();
            seen += bytes.len();
            check(&bytes);
        }
        let client = sending.await;
        client.shutdown(Shutdown::Both).unwrap();
        while let Some(lease) = received.next().await.unwrap() {
            seen += lease.len();
            check(&lease);
        }
        assert_eq!(seen, ROUNDS * (SMALL + LARGE));
        assert!(received.next().await.unwrap().is_none(), "the end stays the end");
    });
}

#[test]
fn futures_dropped_in_flight_free_their_slots_and_lose_no_byte() {
    shard(4, 1024).block_on(async {
        let (client, server) = pair().await;
        let mut received = server.recv_stream();
        for round in 0..200_usize {
            // Dropped while armed: the stream itself keeps the receive.
            assert!(timeout(Duration::from_micros(50), received.next()).await.is_err());
            client.send_all(vec![round as u8; 10]).await.0.unwrap();
            let mut got = 0;
            while got < 10 {
                let lease = timeout(LIMIT, received.next()).await.unwrap().unwrap().unwrap();
                assert!(lease.iter().all(|byte| *byte == round as u8));
                got += lease.len();
            }
        }
        drop(received);
        // Plain receives dropped in flight: their buffers belong to the slots until the kernel lets go.
        for _ in 0..200 {
            let buffer = Vec::with_capacity(4096);
            assert!(timeout(Duration::from_micros(50), server.recv(buffer)).await.is_err());
        }
        // A send that cannot finish, dropped.
        assert!(timeout(Duration::from_millis(20), client.send_all(vec![1; 64 << 20])).await.is_err());
        drop(client);
        drop(server);
        sleep(Duration::from_millis(10)).await;
    });
}

#[test]
fn an_accept_dropped_in_flight_neither_leaks_nor_steals() {
    shard(4, 1024).block_on(async {
        let listener = TcpListener::bind(LOCAL).unwrap();
        let address = listener.local_addr().unwrap();
        for _ in 0..20 {
            assert!(timeout(Duration::from_micros(50), listener.accept()).await.is_err());
        }
        sleep(Duration::from_millis(5)).await;
        let accepting = spawn(async move { listener.accept().await.unwrap() });
        let _client = TcpStream::connect(address).await.unwrap();
        timeout(LIMIT, accepting).await.unwrap();
        // Nobody listens any more.
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_standard_stream_is_taken_over_and_v6_works() {
    let Ok(listener) = std::net::TcpListener::bind("[::1]:0") else { return };
    let address = listener.local_addr().unwrap();
    let peer = std::thread::spawn(move || {
        let streams: Vec<_> = (0..2).map(|_| listener.accept().unwrap().0).collect();
        for mut stream in streams {
            let mut word = [0; 5];
            stream.read_exact(&mut word).unwrap();
            stream.write_all(&word).unwrap();
        }
    });
    shard(0, 0).block_on(async move {
        let std_stream = std::net::TcpStream::connect(address).unwrap();
        std_stream.set_nonblocking(true).unwrap();
        // In the order in which the peer accepts them.
        for stream in [TcpStream::from_std(std_stream).unwrap(), TcpStream::connect(address).await.unwrap()] {
            stream.send_all(b"hello".to_vec()).await.0.unwrap();
            let (done, word) = stream.recv_exact(Vec::new(), 5).await;
            done.unwrap();
            assert_eq!(word, b"hello");
            let (end, rest) = stream.recv_exact(word, 1).await;
            assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
            assert_eq!(rest, b"hello", "what was there stays");
            assert!(stream.recv_stream().next().await.is_err(), "this shard has no receive buffers");
        }
    });
    peer.join().unwrap();
}
