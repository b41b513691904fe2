//! The setup path of a link: TLS handshake, hello, verdict, welcome. Bounded in bytes, time and number; failures are
//! delayed, counted and logged by address and token id, never with a token.

use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use flexfs_wire::frame::{self, Header, Kind};
use flexfs_wire::hello::{Hello, Reason, Refused, Welcome};
use flexfs_wire::id::RequestId;
use flexfs_wire::limits::{HANDSHAKE_MS_MAX, HELLO_BYTES_MAX, LEASE_MS};
use flexfs_wire::record::{Handshake, Opener, RecordError, Secured};
use tokio::sync::oneshot;

use super::core::Core;
use super::link::{Link, Ready, serve};
use crate::auth::Verdict;
use crate::clock;
use crate::front::Socket;
use crate::guard::{Line, Permit};
use crate::session::handshake::{self, Asked, Claiming, Opening};
use crate::volume::Shared;
use crate::volume::{Claim, Claimed, OpenSession, ToVolume};

/// Time a stranger has for its part of the handshake.
const HELLO_TIMEOUT: Duration = Duration::from_millis(HANDSHAKE_MS_MAX);
/// A volume that recovers lets new sessions wait for a lease and the time to apply what was replayed.
const VOLUME_TIMEOUT: Duration = Duration::from_millis(LEASE_MS + 60_000);
/// A refusal is sent after this pause: guessing gets slow, mistyping does not hurt.
const FAILURE_PAUSE: Duration = Duration::from_millis(200);
/// Time to send a refusal.
const REFUSE_TIMEOUT: Duration = Duration::from_secs(2);
/// First byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 22;

/// Why no session came of a connection.
#[derive(Debug)]
enum Failure {
    /// Not TLS at all: another protocol in clear text.
    Plaintext(String),
    /// TLS, but something is wrong.
    Tls(String),
    /// Too slow.
    Slow,
    /// Went away.
    Gone,
    /// More bytes than a hello needs.
    TooMuch,
    /// Understood, and refused.
    Refused(Refused, Option<String>),
}

impl Failure {
    fn label(&self) -> &'static str {
        match self {
            Self::Plaintext(_) => "plaintext",
            Self::Tls(_) => "tls",
            Self::Slow => "slow",
            Self::Gone => "gone",
            Self::TooMuch => "too-much",
            Self::Refused(refused, _) => reason_label(refused.reason),
        }
    }
}

fn reason_label(reason: Reason) -> &'static str {
    match reason {
        Reason::Version => "version",
        Reason::TokenMalformed => "token-malformed",
        Reason::TokenKind => "token-kind",
        Reason::TokenUnknown => "token-unknown",
        Reason::TokenExpired => "token-expired",
        Reason::Volume => "volume",
        Reason::Scope => "scope",
        Reason::AdminUnreachable => "admin-unreachable",
        Reason::SessionUnknown => "session-unknown",
        Reason::MustRecover => "must-recover",
        Reason::Busy => "busy",
        Reason::Server => "server",
        Reason::Protocol => "protocol",
        Reason::Network => "network",
    }
}

/// A secured link and the hello that came over it.
struct Hailed {
    secured: Secured,
    hello: Hello,
    sealed: Vec<u8>,
    plain: Vec<u8>,
}

/// Serves one connection, from its first byte to its last.
pub(super) async fn greet(core: Rc<Core>, stream: TcpStream, peer: SocketAddr, permit: Permit) {
    let socket = Socket::new(stream);
    let hailed = match tokio::time::timeout(HELLO_TIMEOUT, hail(&core, &socket)).await {
        Ok(Ok(hailed)) => hailed,
        Ok(Err(failure)) => return fail(&core, &socket, peer, &failure).await,
        Err(_) => return fail(&core, &socket, peer, &Failure::Slow).await,
    };
    let Hailed { mut secured, hello, sealed, plain } = hailed;
    let seat = core.seat(peer);
    match admit(&core, &seat.link, hello, &secured).await {
        Ok((session, welcome)) => {
            drop(permit);
            core.metrics.handshakes.increment(1);
            let Secured { sealer, opener, exporter: _ } = secured;
            let link = seat.link.clone();
            serve(core, Ready { link, session, socket, sealer, opener, sealed, plain, welcome }).await;
        }
        Err((refused, token)) => {
            let failure = Failure::Refused(refused.clone(), token);
            report(&core, peer, &failure);
            // A client that must recover did nothing wrong and is in a hurry.
            if refused.reason != Reason::MustRecover {
                tokio::time::sleep(FAILURE_PAUSE).await;
            }
            refuse(&socket, &mut secured, refused).await;
        }
    }
}

/// A connection over the bounds: closed at once.
pub(super) fn turn_away(core: &Core, peer: SocketAddr) {
    core.metrics.failed("too-many");
    if let Line::Write { left_out } = core.common.guard.line(clock::now()) {
        tracing::warn!(%peer, left_out, "too many handshakes at once from this address; connection closed");
    }
}

/// TLS handshake and hello; no byte beyond `HELLO_BYTES_MAX` is read.
async fn hail(core: &Core, socket: &Socket) -> Result<Hailed, Failure> {
    let mut handshake = Handshake::server(core.common.tls.clone()).map_err(|e| tls_failure(&e))?;
    let mut buffer = Vec::with_capacity(HELLO_BYTES_MAX);
    let mut taken = 0;
    let mut out = Vec::new();
    while !handshake.is_done() {
        buffer = read(socket, buffer, &mut taken).await?;
        if let Some(&first) = buffer.first()
            && first != TLS_HANDSHAKE
            && taken == buffer.len()
        {
            return Err(Failure::Plaintext(first_line(&buffer)));
        }
        let received = handshake.receive(&buffer);
        // Even a failed handshake has something to say: an alert.
        let said = handshake.send(&mut out);
        if !out.is_empty() {
            let (result, back) = socket.write_all(out).await;
            out = back;
            out.clear();
            result.map_err(|_| Failure::Gone)?;
        }
        let used = received.map_err(|error| tls_failure(&error))?;
        said.map_err(|error| tls_failure(&error))?;
        buffer.drain(..used);
    }
    let mut secured = handshake.finish().map_err(|error| tls_failure(&error))?;
    let mut plain = Vec::new();
    loop {
        open_records(&mut secured.opener, &mut buffer, &mut plain).map_err(|error| tls_failure(&error))?;
        match handshake::read_hello(&plain) {
            Ok(Some((hello, used))) => {
                plain.drain(..used);
                return Ok(Hailed { secured, hello, sealed: buffer, plain });
            }
            Ok(None) => buffer = read(socket, buffer, &mut taken).await?,
            Err(refused) => {
                refuse(socket, &mut secured, refused.clone()).await;
                return Err(Failure::Refused(refused, None));
            }
        }
    }
}

async fn read(socket: &Socket, buffer: Vec<u8>, taken: &mut usize) -> Result<Vec<u8>, Failure> {
    let room = HELLO_BYTES_MAX.saturating_sub(*taken);
    if room == 0 {
        return Err(Failure::TooMuch);
    }
    let (result, buffer) = socket.read(buffer, room).await;
    match result {
        Ok(0) | Err(_) => Err(Failure::Gone),
        Ok(bytes) => {
            *taken += bytes;
            Ok(buffer)
        }
    }
}

fn open_records(opener: &mut Opener, buffer: &mut Vec<u8>, plain: &mut Vec<u8>) -> Result<(), RecordError> {
    let mut at = 0;
    while let Some(bytes) = Opener::record_len(&buffer[at..])?
        && let Some(record) = buffer.get_mut(at..at + bytes)
    {
        plain.extend_from_slice(opener.open_in_place(record)?);
        at += bytes;
    }
    buffer.drain(..at);
    Ok(())
}

fn tls_failure(error: &RecordError) -> Failure {
    Failure::Tls(error.to_string())
}

/// The beginning of what a stranger sent, fit for a log line.
fn first_line(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(40)];
    let line = shown.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or_default();
    line.escape_ascii().to_string()
}

type Admission = Result<(Arc<Shared>, Welcome), (Refused, Option<String>)>;

async fn admit(core: &Rc<Core>, link: &Link, hello: Hello, secured: &Secured) -> Admission {
    match handshake::judge(hello, core.common.pin) {
        Ok(Asked::Open(opening)) => {
            let token = opening.token_id().to_string();
            open(core, link, *opening).await.map_err(|refused| (refused, Some(token)))
        }
        Ok(Asked::Claim(claiming)) => {
            claim(core, link, claiming, secured).await.map_err(|refused| (refused, None))
        }
        Err(refused) => Err((refused, None)),
    }
}

async fn open(core: &Core, link: &Link, opening: Opening) -> Result<(Arc<Shared>, Welcome), Refused> {
    let question = opening.question(&link.peer.to_string());
    let verdict = match core.common.pool.validate(question).await {
        Verdict::Answer(answer) => Ok(*answer),
        Verdict::Failed(error) => Err(error),
        Verdict::Busy => {
            let text = "too many tokens are being checked right now, or admin is slow; come back in a moment";
            return Err(Refused { reason: Reason::Busy, text: text.to_owned() });
        }
    };
    let admitted = opening.handle_verdict(verdict)?;
    handshake::check_network(&admitted.access.networks, link.peer.ip())?;
    let volume = core
        .common
        .volumes
        .open(&admitted.access.settings)
        .map_err(|error| Refused { reason: Reason::Server, text: error.to_string() })?;
    let (answer, wait) = oneshot::channel();
    volume.send(ToVolume::Open(Box::new(OpenSession { admitted, link: link.key, answer })));
    match tokio::time::timeout(VOLUME_TIMEOUT, wait).await {
        Ok(Ok(Ok((granted, shared)))) => Ok((shared, Welcome::Granted(granted))),
        Ok(Ok(Err(refused))) => {
            if refused.reason == Reason::Server {
                core.common.volumes.forget_broken(&volume);
            }
            Err(refused)
        }
        Ok(Err(_)) => {
            core.common.volumes.forget_broken(&volume);
            let text = "the volume is being closed; come back in a moment";
            Err(Refused { reason: Reason::Busy, text: text.to_owned() })
        }
        Err(_) => {
            let text = "the volume did not answer in time; come back in a moment";
            Err(Refused { reason: Reason::Busy, text: text.to_owned() })
        }
    }
}

async fn claim(
    core: &Core,
    link: &Link,
    claiming: Claiming,
    secured: &Secured,
) -> Result<(Arc<Shared>, Welcome), Refused> {
    let found = core.common.registry.find(claiming.session);
    let keys = found.iter().map(|shared| &*shared.info.resume_key);
    let (proven, index) = claiming.handle_sessions(keys, &secured.exporter)?;
    let Some(shared) = found.into_iter().nth(index) else {
        return Err(Refused { reason: Reason::Server, text: "the session was lost".to_owned() });
    };
    // The proof is known to be good: a thief of the resume key gets no further from elsewhere.
    handshake::check_network(&shared.info.networks, link.peer.ip())?;
    let (answer, wait) = oneshot::channel();
    let claim = Claim { session: proven.session, link: link.key, resume: proven.resume, answer };
    shared.volume.send(ToVolume::Claim(claim));
    let welcome = match tokio::time::timeout(VOLUME_TIMEOUT, wait).await {
        Ok(Ok(Ok(Claimed::Attached { epoch, durable }))) => Welcome::Attached { epoch, durable },
        Ok(Ok(Ok(Claimed::Recovering { epoch, durable }))) => Welcome::Recovering { epoch, durable },
        Ok(Ok(Err(refused))) => return Err(refused),
        Ok(Err(_)) | Err(_) => {
            let text = "the volume did not answer; come back in a moment";
            return Err(Refused { reason: Reason::Busy, text: text.to_owned() });
        }
    };
    Ok((shared, welcome))
}

async fn refuse(socket: &Socket, secured: &mut Secured, refused: Refused) {
    let (mut frame, mut out) = (Vec::new(), Vec::new());
    let header = Header::new(Kind::Welcome, RequestId(0));
    let made = frame::encode(header, &Welcome::Refused(refused), 0, &mut frame).is_ok()
        && secured.sealer.seal(&[&frame], &mut out).is_ok()
        && secured.sealer.close(&mut out).is_ok();
    if made {
        // A client that does not take its refusal has gone.
        let _ = tokio::time::timeout(REFUSE_TIMEOUT, socket.write_all(out)).await;
    }
    socket.shutdown();
}

async fn fail(core: &Core, socket: &Socket, peer: SocketAddr, failure: &Failure) {
    report(core, peer, failure);
    tokio::time::sleep(FAILURE_PAUSE).await;
    socket.shutdown();
}

fn report(core: &Core, peer: SocketAddr, failure: &Failure) {
    core.metrics.failed(failure.label());
    let Line::Write { left_out } = core.common.guard.line(clock::now()) else { return };
    match failure {
        Failure::Plaintext(line) => tracing::warn!(
            %peer, left_out, "not TLS: the client speaks clear text ({line:?}); this port takes TLS only, connection closed"
        ),
        Failure::Tls(cause) => tracing::warn!(%peer, left_out, cause, "TLS handshake failed"),
        Failure::Slow => tracing::warn!(
            %peer, left_out, "no hello within {HANDSHAKE_MS_MAX} ms, connection closed"
        ),
        // Port scanners and health checks; not worth a warning.
        Failure::Gone => tracing::debug!(%peer, left_out, "the client left during the handshake"),
        Failure::TooMuch => tracing::warn!(
            %peer, left_out, "more than {HELLO_BYTES_MAX} bytes and no hello, connection closed"
        ),
        // How every session comes back after a restart.
        Failure::Refused(refused, _) if refused.reason == Reason::MustRecover => {
            tracing::info!(%peer, "a session of before the restart: {}", refused.text)
        }
        Failure::Refused(refused, token) => tracing::warn!(
            %peer, left_out, token = token.as_deref().unwrap_or("-"), reason = reason_label(refused.reason),
            "link refused: {}", refused.text
        ),
    }
}
