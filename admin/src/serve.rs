//! The listening side: TCP, TLS, HTTP/1.1, each step bounded in time and number.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::auth::Peer;

/// Most connections at once: one stream per metadata server, short calls of everyone else.
const CONNECTIONS_MAX: usize = 4096;
/// Most connections of one address that are not yet TLS.
const HANDSHAKES_PER_ADDRESS_MAX: usize = 256;
/// Time for the TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// Time for the head of a request, and of silence between two requests.
const HEAD_TIME: Duration = Duration::from_secs(15);
/// Unacknowledged bytes for so long end a connection, milliseconds (`TCP_USER_TIMEOUT`).
const UNACKNOWLEDGED_MS: u32 = 20_000;
/// Longest wait for running requests when admin stops.
const DRAIN_TIME: Duration = Duration::from_secs(5);
/// Pause after a failed accept, for the case that descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// First byte of every TLS connection: a handshake record (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// What a client that forgot TLS is told.
const PLAIN_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\
    Content-Type: text/plain\r\nContent-Length: 56\r\n\r\n\
    This port speaks TLS 1.3 only: use https:// to reach it\n";

/// Serves until `shutdown` turns true; then finishes what runs.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    router: Router,
    mut shutdown: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let handshakes = Handshakes::default();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            _ = shutdown.wait_for(|down| *down) => break,
        };
        let (socket, peer, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(turn) = handshakes.enter(peer.ip()) else {
            tracing::warn!(peer = %peer.ip(), "too many unfinished handshakes of one address; closed");
            continue;
        };
        let connection = Connection {
            tls: tls.clone(),
            router: router.clone(),
            peer,
            shutdown: shutdown.clone(),
            _permit: permit,
        };
        tokio::spawn(connection.run(socket, turn));
    }
    // All permits back: every connection has ended.
    let all = u32::try_from(CONNECTIONS_MAX).expect("a small constant");
    if timeout(DRAIN_TIME, room.acquire_many(all)).await.is_err() {
        tracing::warn!("requests still running were cut off");
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.map_err(std::io::Error::other)?;
    let (socket, peer) = listener.accept().await?;
    Ok((socket, peer, permit))
}

struct Connection {
    tls: TlsAcceptor,
    router: Router,
    peer: SocketAddr,
    shutdown: watch::Receiver<bool>,
    /// Counts this connection for as long as it lives.
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(self, socket: TcpStream, turn: Turn) {
        let peer = self.peer.ip();
        let stream = match timeout(HANDSHAKE_TIME, handshake(&self.tls, socket)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return failed(peer, &flexfs_wire::tls::explain(&error)),
            Err(_) => return failed(peer, "took too long"),
        };
        drop(turn);
        metrics::gauge!("flexfs_admin_connections").increment(1);
        self.http(stream).await;
        metrics::gauge!("flexfs_admin_connections").decrement(1);
    }

    async fn http(mut self, stream: TlsStream<TcpStream>) {
        let router = self.router.layer(Extension(Peer(self.peer.ip())));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        tokio::pin!(connection);
        let done = tokio::select! {
            done = &mut connection => done,
            () = stopped(&mut self.shutdown) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = done {
            tracing::debug!(peer = %self.peer.ip(), %error, "connection ended");
        }
    }
}

/// Waits for the stop, and drops the guard of the channel on the way.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|down| *down).await;
}

fn failed(peer: IpAddr, why: &str) {
    tracing::info!(%peer, why, "no TLS connection");
    metrics::counter!("flexfs_admin_handshake_failures_total").increment(1);
}

async fn handshake(tls: &TlsAcceptor, mut socket: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
    socket.set_nodelay(true)?;
    rustix::net::sockopt::set_tcp_user_timeout(&socket, UNACKNOWLEDGED_MS)?;
    let mut first = [0u8; 1];
    if socket.peek(&mut first).await? == 0 {
        return Err(std::io::Error::other("the peer hung up"));
    }
    if first[0] != TLS_HANDSHAKE {
        if first[0].is_ascii_uppercase() {
            socket.write_all(PLAIN_ANSWER).await?;
            socket.shutdown().await?;
            drain(&mut socket).await;
        }
        return Err(std::io::Error::other("the peer does not speak TLS"));
    }
    tls.accept(socket).await
}

/// Reads on for a moment: closing with unread bytes would reset the connection and lose the answer.
async fn drain(socket: &mut TcpStream) {
    use tokio::io::AsyncReadExt as _;
    let mut rest = [0u8; 4096];
    for _ in 0..16 {
        match socket.read(&mut rest).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// Unfinished handshakes by address.
#[derive(Clone, Debug, Default)]
struct Handshakes(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Handshakes {
    /// A turn for one more, unless the address has too many.
    fn enter(&self, address: IpAddr) -> Option<Turn> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= HANDSHAKES_PER_ADDRESS_MAX {
            return None;
        }
        *count += 1;
        Some(Turn { counts: self.clone(), address })
    }
}

/// One unfinished handshake; given back on drop.
#[derive(Debug)]
struct Turn {
    counts: Handshakes,
    address: IpAddr,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_answer_states_its_length() {
        let text = std::str::from_utf8(PLAIN_ANSWER).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
    }

    #[test]
    fn handshakes_per_address_are_bounded_and_given_back() {
        let handshakes = Handshakes::default();
        let address = IpAddr::from([127, 0, 0, 1]);
        let turns: Vec<_> =
            (0..HANDSHAKES_PER_ADDRESS_MAX).map(|_| handshakes.enter(address).unwrap()).collect();
        assert!(handshakes.enter(address).is_none());
        assert!(handshakes.enter(IpAddr::from([127, 0, 0, 2])).is_some());
        drop(turns);
        assert!(handshakes.enter(address).is_some());
        assert!(handshakes.0.lock().unwrap().is_empty());
    }
}
