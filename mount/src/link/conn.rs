//! A connection in the making, on a shard's ring: TCP, TLS, hello, welcome.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_listener::Event;
use flexfs_uring::clock;
use flexfs_uring::socket::TcpStream;
use flexfs_uring::timer::timeout;
use flexfs_wire::frame::{self, Header, Kind};
use flexfs_wire::hello::{Hello, Welcome};
use flexfs_wire::id::RequestId;
use flexfs_wire::limits::HANDSHAKE_MS_MAX;
use flexfs_wire::record::{Handshake, Secured};
use flexfs_wire::tls::Role;
use zeroize::{Zeroize as _, Zeroizing};

use super::error::LinkError;
use super::first::First;
use super::rx::Rx;
use super::session::{Target, lock};
use super::tx::Tx;

/// Time to reach one address.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Time for the TLS handshake: the server allows no more either.
pub const HANDSHAKE_MAX: Duration = Duration::from_millis(HANDSHAKE_MS_MAX);
/// Time for a welcome. The server may have to ask admin, and delays refusals.
pub(crate) const WELCOME_MAX: Duration = Duration::from_secs(20);
/// Time for the name service.
const RESOLVE_MAX: Duration = Duration::from_secs(10);
/// Bytes received at once during the handshake.
const RECEIVE_BYTES: usize = 8 * 1024;

/// A connection whose keys are agreed on.
pub struct Conn {
    pub(crate) stream: Rc<TcpStream>,
    pub(crate) rx: Rc<RefCell<Rx>>,
    pub(crate) tx: Tx,
    exporter: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Conn {
    /// Connects to the metadata server at `addr`. `within`: the time for the handshake, `HANDSHAKE_MAX` at most.
    ///
    /// # Errors
    /// [`LinkError`]: the cause at the last address tried.
    pub async fn connect(target: &Target, addr: &str, within: Duration) -> Result<Self, LinkError> {
        let within = within.min(HANDSHAKE_MAX);
        let mut last = LinkError::Io(std::io::ErrorKind::AddrNotAvailable.into());
        for address in resolve(addr).await? {
            match timeout(CONNECT_MAX, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    let secured = timeout(within, secure(&stream, target)).await;
                    match secured.unwrap_or_else(|_| Err(LinkError::Silent(millis(within)))) {
                        Ok((secured, sealed)) => return Ok(Self::new(stream, secured, sealed)),
                        Err(error) => last = error,
                    }
                }
                Ok(Err(error)) => last = error.into(),
                Err(_) => last = LinkError::Io(std::io::ErrorKind::TimedOut.into()),
            }
        }
        Err(last)
    }

    fn new(stream: TcpStream, secured: Secured, sealed: Vec<u8>) -> Self {
        let rx = Rx::new(stream.recv_stream(), secured.opener, sealed, Vec::new(), clock::now());
        Self {
            stream: Rc::new(stream),
            rx: Rc::new(RefCell::new(rx)),
            tx: Tx::new(secured.sealer),
            exporter: secured.exporter,
        }
    }

    /// Takes over the link that opened the session.
    ///
    /// # Errors
    /// The socket cannot be taken over.
    pub(crate) fn from_first(first: First) -> Result<Self, LinkError> {
        let stream = TcpStream::from_std(first.socket)?;
        let rx = Rx::new(stream.recv_stream(), first.opener, first.sealed, first.plain, clock::now());
        Ok(Self {
            stream: Rc::new(stream),
            rx: Rc::new(RefCell::new(rx)),
            tx: Tx::new(first.sealer),
            exporter: Zeroizing::new([0; 32]),
        })
    }

    /// 32 bytes both ends of this connection know and nobody else.
    pub fn exporter(&self) -> &[u8; 32] {
        &self.exporter
    }

    /// Says hello and waits for the answer.
    ///
    /// # Errors
    /// [`LinkError`]; a refusal is a welcome too.
    pub async fn greet(&mut self, hello: &Hello) -> Result<Welcome, LinkError> {
        let mut frames = Vec::new();
        frame::encode(Header::new(Kind::Hello, RequestId(0)), hello, 0, &mut frames)?;
        let sent = self.send(&frames).await;
        frames.zeroize();
        sent?;
        let header = self.next_frame(WELCOME_MAX).await?;
        if header.kind != Kind::Welcome || header.payload_bytes != 0 {
            return Err(LinkError::Unexpected("no welcome"));
        }
        Ok(frame::decode(Kind::Welcome, self.rx.borrow().body())?)
    }

    /// Sends frames.
    ///
    /// # Errors
    /// The socket broke.
    pub(crate) async fn send(&mut self, frames: &[u8]) -> Result<(), LinkError> {
        let mut out = Vec::new();
        self.tx.seal_frames(frames, &mut out)?;
        match timeout(WELCOME_MAX, self.stream.send_all(out)).await {
            Ok((sent, _)) => Ok(sent?),
            Err(_) => Err(LinkError::Silent(millis(WELCOME_MAX))),
        }
    }

    /// The next frame's header; the body is at `rx`.
    ///
    /// # Errors
    /// [`LinkError`], `Silent` when none comes in time.
    pub(crate) async fn next_frame(&self, within: Duration) -> Result<Header, LinkError> {
        let next = poll_fn(|cx| self.rx.borrow_mut().poll_frame(cx));
        timeout(within, next).await.unwrap_or_else(|_| Err(LinkError::Silent(millis(within))))
    }
}

/// A duration in milliseconds, for texts.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

async fn secure(stream: &TcpStream, target: &Target) -> Result<(Secured, Vec<u8>), LinkError> {
    let mut handshake = Handshake::client(target.tls.clone(), Role::Meta)?;
    let mut sealed: Vec<u8> = Vec::new();
    loop {
        let mut out = Vec::new();
        handshake.send(&mut out)?;
        stream.send_all(out).await.0?;
        if handshake.is_done() {
            return Ok((handshake.finish()?, sealed));
        }
        sealed.reserve(RECEIVE_BYTES);
        let (received, back) = stream.recv(sealed).await;
        sealed = back;
        if received? == 0 {
            return Err(LinkError::Closed);
        }
        match handshake.receive(&sealed) {
            Ok(used) => drop(sealed.drain(..used)),
            Err(error) => {
                let mut alert = Vec::new();
                // The alert tells the server why; the cause matters more than whether it got there.
                if handshake.send(&mut alert).is_ok() {
                    let _ = stream.send_all(alert).await;
                }
                return Err(error.into());
            }
        }
    }
}

/// Addresses of `host:port`. Names are looked up anew each time, by a thread: the name service blocks.
async fn resolve(address: &str) -> Result<Vec<SocketAddr>, LinkError> {
    if let Ok(address) = address.parse() {
        return Ok(vec![address]);
    }
    type Found = std::io::Result<Vec<SocketAddr>>;
    let place: Arc<(Mutex<Option<Found>>, Event)> = Arc::default();
    let (name, result) = (address.to_owned(), Arc::clone(&place));
    std::thread::Builder::new().name("resolve".to_owned()).spawn(move || {
        let found = name.to_socket_addrs().map(Iterator::collect);
        *lock(&result.0) = Some(found);
        result.1.notify(usize::MAX);
    })?;
    let wait = async {
        loop {
            let listener = place.1.listen();
            if let Some(found) = lock(&place.0).take() {
                return found;
            }
            listener.await;
        }
    };
    Ok(timeout(RESOLVE_MAX, wait).await.map_err(|_| LinkError::Silent(millis(RESOLVE_MAX)))??)
}
