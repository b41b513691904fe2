//! A connection that stands: reading, sending, watching, in one task.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::Shutdown;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use flexfs_uring::clock;
use flexfs_uring::timer::{sleep, timeout};
use flexfs_wire::frame::{self, Header, Kind};
use flexfs_wire::limits::HEARTBEAT_MS;
use flexfs_wire::message::{Answer, Call, Notice, Request};

use super::conn::{Conn, millis};
use super::error::LinkError;
use super::incoming::Loan;
use super::local::{Hold, Link, NOBODY};
use super::race::race;
use super::session::add;
use super::veil;

/// How often a link looks at the time: fine enough for deadlines of seconds.
const TICK: Duration = Duration::from_millis(500);
/// Silence after which a heartbeat is sent.
const HEARTBEAT: Duration = Duration::from_millis(HEARTBEAT_MS);
/// Silence after a sign of life was asked for that means a dead link.
const SILENCE_MAX: Duration = Duration::from_millis(2 * HEARTBEAT_MS);
/// Time for the orderly end of a connection.
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// How long calls that nobody waits for wait for more of them: each send costs a system call, a record, and on the other side a
/// thread that is woken and sends an answer, together more than the call itself. It is looked at when the next one comes.
const GATHER: Duration = Duration::from_micros(300);
/// When none comes any more they go out after this. More than a tick of the kernel (4 ms at 250 Hz): a shorter timer is the next event of
/// its CPU, whose clock is then set anew with every wait, and that leaves a virtual machine (measured: slower than not to gather).
const GATHER_ALONE: Duration = Duration::from_millis(5);
/// So many go out at once: what the server takes in one turn.
const GATHER_MAX: usize = 32;
/// They wait only when others went out no longer ago than this: one alone has nobody to wait for.
const STREAM: Duration = Duration::from_millis(1);
/// A send buffer larger than this is given back when it was sent.
const KEEP_BYTES: usize = 1024 * 1024;

/// Serves a link until it ends, which it always does with a cause.
pub(crate) async fn serve(link: &Rc<Link>, conn: Conn) -> LinkError {
    let Conn { stream, rx, mut tx, .. } = conn;
    let sent_at = Cell::new(clock::now());
    let signs = Signs { answered: Cell::new(clock::now()), noticed: Cell::new(None) };
    let cause = {
        let reading = read(link, &rx, &signs);
        let sending = async {
            let mut out = Vec::new();
            let mut lazy_at = None;
            loop {
                poll_fn(|cx| {
                    link.register_sender(cx.waker());
                    let idle = !tx.is_inside() && !link.ledger.borrow().has_queued();
                    if idle { Poll::Pending } else { Poll::Ready(()) }
                })
                .await;
                if !tx.is_inside() && link.ledger.borrow().may_wait(GATHER_MAX) {
                    let now = clock::now();
                    if lazy_at.is_some_and(|at| now.duration_since(at) < STREAM) {
                        gather(link, now).await;
                    }
                    lazy_at = Some(clock::now());
                }
                let mark = link.session.marks.mark();
                tx.gather(&mut link.ledger.borrow_mut(), mark, &mut out)?;
                add(&link.lane().bytes_sent, out.len() as u64);
                let (sent, back) = stream.send_all(out).await;
                sent?;
                sent_at.set(clock::now());
                out = if back.capacity() > KEEP_BYTES { Vec::new() } else { back };
                out.clear();
                if tx.is_exhausted() {
                    return Err(LinkError::Dropped("the connection's keys are used up"));
                }
            }
        };
        let alive_at = || rx.try_borrow().map_or_else(|_| clock::now(), |rx| signs.alive_at(rx.received_at));
        let ticking = tick(link, alive_at, &sent_at);
        let watching = watch(link);
        let ended: Result<Infallible, LinkError> = race(reading, sending, ticking, watching).await;
        match ended {
            Err(cause) => cause,
            Ok(never) => match never {},
        }
    };
    if matches!(cause, LinkError::Dropped(_)) && !tx.is_inside() {
        let mut out = Vec::new();
        if tx.close(&mut out).is_ok() {
            // Courtesy: a server that does not take it sees the end of the stream.
            let _ = timeout(CLOSE_MAX, stream.send_all(out)).await;
        }
    }
    // Whoever still reads a payload of this connection sees its end; an error means the peer was first.
    let _ = stream.shutdown(Shutdown::Both);
    cause
}

/// Waits a moment for more calls that nobody waits for.
async fn gather(link: &Link, since: Instant) {
    let behind = &link.session.behind;
    let hurried = behind.hurried();
    if behind.is_waited() {
        return;
    }
    let _held = link.hold(Hold { until: since + GATHER, most: GATHER_MAX });
    let full = poll_fn(|cx| {
        link.register_sender(cx.waker());
        if link.holds_back() { Poll::Pending } else { Poll::Ready(()) }
    });
    race(full, hurried, sleep(GATHER_ALONE), std::future::pending()).await;
}

/// Signs of life. Only an answer says that the server hears us: over a connection that is dead in one direction its notices
/// may still come, for ever.
struct Signs {
    /// When the last answer was taken.
    answered: Cell<Instant>,
    /// When the last bytes of the last notice came.
    noticed: Cell<Option<Instant>>,
}

impl Signs {
    /// When the server was last known to hear us. `received`: when the last bytes came; those of an answer that is still
    /// coming count.
    fn alive_at(&self, received: Instant) -> Instant {
        if self.noticed.get() == Some(received) { self.answered.get() } else { received }
    }
}

/// Takes frames apart until the stream ends.
async fn read(
    link: &Rc<Link>,
    rx: &Rc<std::cell::RefCell<super::rx::Rx>>,
    signs: &Signs,
) -> Result<Infallible, LinkError> {
    let loan = Rc::new(Loan::default());
    let mut counted = 0;
    loop {
        let header = poll_fn(|cx| {
            if link.session.is_halted() {
                return Poll::Ready(Err(LinkError::Dropped("another link found the server restarted")));
            }
            rx.borrow_mut().poll_frame(cx)
        })
        .await?;
        link.session.handle_durable(header.durable());
        match header.kind {
            Kind::Reply => {
                read_reply(link, rx, &loan, &header).await?;
                let received = rx.borrow().received_at;
                signs.answered.set(received);
                signs.noticed.set(None);
                link.session.hear(link.lane(), received);
            }
            Kind::Notice => {
                read_notice(link, frame::decode(Kind::Notice, rx.borrow().body())?);
                signs.noticed.set(Some(rx.borrow().received_at));
            }
            Kind::Hello | Kind::Welcome | Kind::Request | Kind::Replay | Kind::Recovery => {
                return Err(LinkError::Unexpected("a frame that only clients send"));
            }
        }
        let rx = rx.borrow();
        add(&link.lane().bytes_received, rx.received_bytes - counted);
        counted = rx.received_bytes;
        if rx.is_exhausted() {
            return Err(LinkError::Dropped("the connection's keys are used up"));
        }
    }
}

async fn read_reply(
    link: &Rc<Link>,
    rx: &Rc<std::cell::RefCell<super::rx::Rx>>,
    loan: &Rc<Loan>,
    header: &Header,
) -> Result<(), LinkError> {
    let answer: Answer = frame::decode(Kind::Reply, rx.borrow().body())?;
    let payload_bytes = header.payload_bytes as usize;
    if payload_bytes == 0 {
        link.handle_answer(header, answer, None);
        return Ok(());
    }
    let payload = loan.lend(rx, payload_bytes);
    link.handle_answer(header, answer, Some(payload));
    let mut unread = poll_fn(|cx| loan.poll_back(cx)).await?;
    let mut waste = [0; 4096];
    while unread > 0 {
        let part = unread.min(waste.len());
        unread -= poll_fn(|cx| rx.borrow_mut().poll_read(&mut waste[..part], cx)).await?;
    }
    Ok(())
}

fn read_notice(link: &Link, notice: Notice) {
    match notice {
        // What it says is in the frame's mark.
        Notice::Durable => {}
        Notice::Revoked { text } => link.session.revoke(&text),
        Notice::Closing => {
            tracing::debug!(link = link.row, "the server stops; the link will reconnect");
        }
        Notice::Recall { mut recalls } => match link.session.listener.get() {
            Some(listener) => {
                if let Some(cipher) = &link.session.target.cipher {
                    veil::open_recalls(cipher, &mut recalls);
                }
                listener.handle_recalls(recalls);
            }
            // Nothing is cached yet.
            None => {
                let ids = recalls.iter().map(|recall| recall.id).collect();
                // It fails only when the session has ended.
                let _ = link.begin(Call::new(NOBODY, Request::Recalled { ids }), None, None);
            }
        },
    }
}

/// Sends heartbeats on an idle link and finds dead ones.
async fn tick(
    link: &Link,
    received_at: impl Fn() -> Instant,
    sent_at: &Cell<Instant>,
) -> Result<Infallible, LinkError> {
    let mut asked: Option<Instant> = None;
    loop {
        sleep(TICK).await;
        let now = clock::now();
        let received = received_at();
        match asked {
            Some(at) if received >= at => asked = None,
            // A large block on a slow network keeps answers behind it, but it moves.
            Some(at) if now.duration_since(at.max(sent_at.get())) >= SILENCE_MAX => {
                return Err(LinkError::Silent(millis(now.duration_since(received))));
            }
            Some(_) => {}
            None if now.duration_since(received) >= HEARTBEAT => {
                asked = Some(now);
                // It fails when the session has ended, which `watch` sees.
                let _ = link.begin(Call::new(NOBODY, Request::Heartbeat), None, None);
            }
            None => {}
        }
    }
}

/// Ends the link when the session is over or another link found the server restarted.
async fn watch(link: &Link) -> Result<Infallible, LinkError> {
    loop {
        let listener = link.session.changed.listen();
        if link.session.is_halted() {
            return Err(LinkError::Dropped("another link found the server restarted"));
        }
        if link.session.ended().is_some() {
            return Err(LinkError::Dropped("the session has ended"));
        }
        listener.await;
    }
}
