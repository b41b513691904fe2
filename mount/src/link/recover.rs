//! What one link does for the whole session: replaying to a server that restarted, or opening a new session when the
//! old one is unknown. All other links are down meanwhile (`Session::halt_links`), and what they had not read from
//! the dead server is never read: an answer that nobody saw leaves its call unanswered, so it is sent again, while one
//! that came in after the replay was made would be missing from it.

use std::time::Duration;

use flexfs_uring::clock;
use flexfs_wire::errno::Errno;
use flexfs_wire::frame::{self, Header, Kind};
use flexfs_wire::hello::{Granted, Reason, Welcome};
use flexfs_wire::id::{Commit, RequestId};
use flexfs_wire::message::{Answer, Call, Recovery, Request};

use super::conn::{Conn, HANDSHAKE_MAX};
use super::error::LinkError;
use super::local::NOBODY;
use super::session::Session;
use super::unstable::encode_call;

/// Time for the recovery of all sessions: the server waits for them up to a minute.
const RECOVERY_MAX: Duration = Duration::from_secs(90);
/// Time for the answer to one declared open.
const DECLARE_MAX: Duration = Duration::from_secs(20);
/// Bytes of replay frames sent at once.
const REPLAY_BYTES: usize = 256 * 1024;
/// Opens declared to a new session at once; below what a link may have in flight.
const DECLARE_COUNT: usize = 256;

/// Leads. `era` is what the caller knew when the server turned it away; when another link has led since, there is
/// nothing to do and `None` comes back.
///
/// # Errors
/// [`LinkError`]: to be tried again.
pub(crate) async fn lead(session: &Session, era: u64, reason: Reason) -> Result<Option<Conn>, LinkError> {
    let _lead = session.lead.lock().await;
    if session.era() != era || session.ended().is_some() {
        return Ok(None);
    }
    if session.is_leaving() && reason == Reason::SessionUnknown {
        // The server has said goodbye, only its answer was lost.
        session.end(Errno::EIO);
        return Ok(None);
    }
    session.halt_links().await;
    let _halt = Halt(session);
    if reason == Reason::MustRecover {
        match resume(session).await {
            Err(LinkError::Refused(refused)) if refused.reason == Reason::SessionUnknown => {}
            result => return result.map(Some),
        }
    }
    reopen(session).await.map(Some)
}

/// Lets the links go on, whatever happened.
struct Halt<'a>(&'a Session);

impl Drop for Halt<'_> {
    fn drop(&mut self) {
        self.0.resume_links();
    }
}

async fn resume(session: &Session) -> Result<Conn, LinkError> {
    let began = clock::now();
    let mut conn = Conn::connect(&session.target, &session.addr(), HANDSHAKE_MAX).await?;
    let hello = session.keys().attach(conn.exporter(), true);
    let (epoch, durable) = match conn.greet(&hello).await? {
        Welcome::Recovering { epoch, durable } => (epoch, durable),
        // The server did not need it after all.
        Welcome::Attached { epoch, durable } => {
            session.handle_recovered(epoch, durable);
            return Ok(conn);
        }
        Welcome::Refused(refused) => return Err(LinkError::Refused(refused)),
        Welcome::Granted(_) => return Err(LinkError::Unexpected("a welcome that answers another hello")),
    };
    session.handle_durable(durable);
    let count = session.unstable_count();
    let mut after = Some((Commit(0), RequestId(0)));
    while let Some(from) = after {
        let mut frames = Vec::new();
        after = session.poll_replay(from, REPLAY_BYTES, &mut frames)?;
        conn.send(&frames).await?;
    }
    let durable = declare(session, &mut conn).await?;
    session.handle_recovered(epoch, durable);
    session.replayed.fetch_add(count as u64, std::sync::atomic::Ordering::Relaxed);
    let seconds = clock::now().duration_since(began).as_secs_f32();
    tracing::info!(session = %session.keys().session, ?epoch, replayed = count, seconds, "recovered");
    Ok(conn)
}

/// Sends the end of the replay and waits for its answer: all is applied and durable then, up to what comes back.
async fn declare(session: &Session, conn: &mut Conn) -> Result<Commit, LinkError> {
    let id = session.marks.take();
    hold_untold(session);
    let exclusive = session.listener.get().map(|listener| listener.exclusive()).unwrap_or_default();
    let recovery = Recovery { opens: session.held.opens(), locks: session.held.all_locks(), exclusive };
    let mut header = Header::new(Kind::Recovery, id);
    header.mark = session.marks.mark();
    let mut frames = Vec::new();
    frame::encode(header, &recovery, 0, &mut frames)?;
    conn.send(&frames).await?;
    let deadline = clock::now() + RECOVERY_MAX;
    loop {
        let header = conn.next_frame(clock::until(deadline)).await?;
        match header.kind {
            Kind::Reply if header.request == id => {
                let answer: Answer = frame::decode(Kind::Reply, conn.rx.borrow().body())?;
                return match answer.result {
                    Ok(_) => Ok(header.durable()),
                    Err(errno) => {
                        tracing::error!(%errno, "the server refused the replay");
                        Err(LinkError::Unexpected("the replay was refused"))
                    }
                };
            }
            Kind::Reply | Kind::Notice if header.payload_bytes == 0 => {}
            _ => return Err(LinkError::Unexpected("an unknown frame during recovery")),
        }
    }
}

/// What the server was not told of is declared with the rest.
fn hold_untold(session: &Session) {
    for node in session.listener.get().map(|listener| listener.untold_opens()).unwrap_or_default() {
        session.held.add_open(node);
    }
}

/// Opens a new session in place of the old one.
async fn reopen(session: &Session) -> Result<Conn, LinkError> {
    let mut conn = Conn::connect(&session.target, &session.addr(), HANDSHAKE_MAX).await?;
    let granted = match conn.greet(&session.target.open()).await? {
        Welcome::Granted(granted) => granted,
        Welcome::Refused(refused) => return Err(LinkError::Refused(refused)),
        Welcome::Attached { .. } | Welcome::Recovering { .. } => {
            return Err(LinkError::Unexpected("a welcome that answers another hello"));
        }
    };
    if granted.settings.id != session.granted.settings.id || granted.root.ino != session.granted.root.ino {
        session.revoke("the token now opens another volume or scope");
        return Err(LinkError::Dropped("the token now opens another volume or scope"));
    }
    let lost_opens = reopen_files(session, &mut conn).await?;
    report(session, &granted, lost_opens);
    Ok(conn)
}

fn report(session: &Session, granted: &Granted, lost_opens: usize) {
    let old = session.keys();
    let (lost_calls, lost_locks) = session.handle_reopened(granted);
    let (old, new, restarted) = (old.session, granted.session, old.epoch != granted.epoch);
    if lost_calls > 0 {
        tracing::error!(
            %old, %new, restarted, lost_calls, lost_locks, lost_opens,
            "the server no longer knew the session and had restarted: changes that it had acknowledged and not yet \
             written are lost; a new session stands"
        );
    } else {
        tracing::warn!(
            %old, %new, restarted, lost_locks, lost_opens,
            "the server no longer knew the session (away for longer than its lease); a new one stands"
        );
    }
}

/// Declares every open to the new session, which this connection belongs to. Returns those that failed: their files are
/// gone or out of reach.
async fn reopen_files(session: &Session, conn: &mut Conn) -> Result<usize, LinkError> {
    hold_untold(session);
    let opens = session.held.opens();
    let mut single =
        opens.iter().flat_map(|(node, count)| std::iter::repeat_n(*node, *count as usize)).peekable();
    let mut lost = 0;
    while single.peek().is_some() {
        let mut frames = Vec::new();
        let mut asked = std::collections::HashMap::new();
        for node in single.by_ref().take(DECLARE_COUNT) {
            let id = session.marks.take();
            let request = Request::Open { node, write: false, truncate: false, kill_privileges: false };
            let body = encode_call(&Call::new(NOBODY, request))?;
            let mut header = Header::new(Kind::Request, id);
            header.body_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
            frames.extend_from_slice(&header.encode());
            frames.extend_from_slice(&body);
            asked.insert(id, node.ino);
        }
        conn.send(&frames).await?;
        while !asked.is_empty() {
            let header = conn.next_frame(DECLARE_MAX).await?;
            if header.kind != Kind::Reply {
                continue;
            }
            let answer: Answer = frame::decode(Kind::Reply, conn.rx.borrow().body())?;
            if let (Some(ino), Err(errno)) = (asked.remove(&header.request), answer.result) {
                tracing::warn!(%ino, %errno, "an open file could not be opened in the new session");
                session.held.forget_open(ino);
                lost += 1;
            }
        }
    }
    Ok(lost)
}
