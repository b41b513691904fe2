//! The life of a shard's link: connect, attach, serve, and again, until the session ends.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use flexfs_uring::clock;
use flexfs_uring::timer::sleep;
use flexfs_wire::errno::Errno;
use flexfs_wire::hello::{Reason, Welcome};

use super::conn::{Conn, HANDSHAKE_MAX};
use super::error::LinkError;
use super::local::Link;
use super::recover;
use super::serve::serve;
use super::session::{Session, add, lock};

/// First wait before connecting again.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest wait before connecting again: a server that is back is noticed within this.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Time for the first handshake; each further attempt has twice as much. A connection that leads nowhere must not take most
/// of a lease.
const PATIENCE_MIN: Duration = Duration::from_secs(1);

/// Absence of the server after which is asked whether it has moved.
const LOCATE_AFTER: Duration = Duration::from_secs(5);
/// Pause between two such questions.
const LOCATE_PAUSE: Duration = Duration::from_secs(10);

/// Keeps the link of one shard until the session ends.
pub(crate) async fn run(link: Rc<Link>) {
    let session = Rc::clone(&link);
    let session = &session.session;
    let (mut backoff, mut patience) = (BACKOFF_MIN, PATIENCE_MIN);
    let mut down_since = clock::now();
    while session.ended().is_none() {
        if session.is_leaving() && !link.ledger.borrow().awaits_goodbye() {
            // The server ends all links at the goodbye. Nothing is left to be said on this one.
            pause(&link, BACKOFF_MAX).await;
            continue;
        }
        let Some(established) = until_end(session, establish(&link, patience)).await else { break };
        match established {
            Ok(Some(conn)) => {
                (backoff, patience) = (BACKOFF_MIN, PATIENCE_MIN);
                add(&link.lane().connects, 1);
                link.set_up();
                let cause = serve(&link, conn).await;
                link.set_down();
                down_since = clock::now();
                if session.ended().is_none() && !matches!(cause, LinkError::Dropped(_)) {
                    report(&link, &cause);
                }
            }
            // Another link led the session through; attach to what stands now.
            Ok(None) => {}
            Err(cause) if cause.is_final() => session.revoke(&cause.to_string()),
            Err(cause) => {
                report(&link, &cause);
                check_soft(&link, down_since);
                locate(&link.session);
                pause(&link, backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
                patience = (patience * 2).min(HANDSHAKE_MAX);
            }
        }
    }
    link.die(session.ended().unwrap_or(Errno::EIO));
}

/// One attempt at a connection that belongs to the session. `patience`: the time for its handshake.
async fn establish(link: &Link, patience: Duration) -> Result<Option<Conn>, LinkError> {
    let session = &link.session;
    if let Some(first) = lock(&session.first).take() {
        return Conn::from_first(first).map(Some);
    }
    let era = session.era();
    let mut conn = Conn::connect(&session.target, &session.addr(), patience).await?;
    let hello = session.keys().attach(conn.exporter(), false);
    match conn.greet(&hello).await? {
        Welcome::Attached { durable, .. } => {
            session.handle_durable(durable);
            Ok(Some(conn))
        }
        Welcome::Refused(refused)
            if matches!(refused.reason, Reason::MustRecover | Reason::SessionUnknown) =>
        {
            drop(conn);
            recover::lead(session, era, refused.reason).await
        }
        Welcome::Refused(refused) => Err(LinkError::Refused(refused)),
        // Recovery is under way, led by another link: come back when it is over.
        Welcome::Recovering { .. } => Err(LinkError::Dropped("the server is recovering")),
        Welcome::Granted(_) => Err(LinkError::Unexpected("a welcome that answers another hello")),
    }
}

/// Says that the server is away when no link is up; one broken link among many is nobody's concern.
fn report(link: &Link, cause: &LinkError) {
    if link.session.links_up() == 0 && !link.session.is_leaving() {
        link.session.report_away(cause);
    } else {
        tracing::debug!(link = link.row, %cause, "a link broke");
    }
}

/// A soft mount does not wait for ever.
fn check_soft(link: &Link, down_since: Instant) {
    if link.session.target.soft.is_some_and(|limit| clock::now().duration_since(down_since) >= limit) {
        link.time_out();
    }
}

/// Asks where the server is, when it has not been there for a while: the operator may have moved it.
fn locate(session: &Arc<Session>) {
    let Some(ask) = session.target.locate.clone() else { return };
    if session.away_for() < LOCATE_AFTER || session.locating.swap(true, Ordering::SeqCst) {
        return;
    }
    let asking = Arc::clone(session);
    let started = std::thread::Builder::new().name("locate".to_owned()).spawn(move || {
        let before = asking.addr();
        match ask.0() {
            Ok(now) if now == before => {}
            Ok(now) => {
                tracing::warn!(%before, %now, "admin says that the metadata server has moved");
                *lock(&asking.addr) = now;
            }
            Err(cause) => tracing::debug!(cause, "admin did not say where the metadata server is"),
        }
        std::thread::sleep(LOCATE_PAUSE);
        asking.locating.store(false, Ordering::SeqCst);
    });
    if let Err(error) = started {
        tracing::debug!(%error, "no thread to ask where the server is");
        session.locating.store(false, Ordering::SeqCst);
    }
}

/// Waits before the next attempt; the end of the session cuts it short.
async fn pause(link: &Link, backoff: Duration) {
    // Either is as good as the other.
    let _ = until_end(&link.session, sleep(backoff)).await;
}

/// The output of `future`, or none when the session ends first.
async fn until_end<F: Future>(session: &Session, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut ended = pin!(async {
        while session.ended().is_none() {
            let listener = session.changed.listen();
            if session.ended().is_none() {
                listener.await;
            }
        }
    });
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        ended.as_mut().poll(cx).map(|()| None)
    })
    .await
}
