//! One link of a session: a task that reads and dispatches, one that seals and writes, and what they share.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use flexfs_wire::errno::Errno;
use flexfs_wire::frame::{self, Header, Kind};
use flexfs_wire::hello::Welcome;
use flexfs_wire::id::{Commit, RequestId};
use flexfs_wire::lease::Leases;
use flexfs_wire::limits::{FRAME_BYTES_MAX, REQUESTS_PER_LINK_MAX};
use flexfs_wire::message::{Answer, Notice};
use flexfs_wire::record::{Opener, RecordError, Sealer};
use flexfs_wire::time::Time;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::block::Task;
use super::core::Core;
use super::dispatch::Dispatch;
use super::inbound::{Assembler, Event, InboundError};
use super::outbound::Outbound;
use super::pace::{self, Pace};
use crate::clock;
use crate::front::Socket;
use crate::volume::Shared;
use crate::volume::{Item, LinkKey, Stamp, ToVolume};

/// Requests in flight beyond which reading stops. Some above what a client may use, so that a `CancelWait` gets through.
const IN_FLIGHT_MAX: u32 = REQUESTS_PER_LINK_MAX + 64;
/// Bytes that requests in flight may take, with the longest answers they can have, beyond which reading stops: a client that
/// reads no answers has them all made at once. Four listings as long as they can be; a thousand calls of the usual kind.
const IN_FLIGHT_COST_MAX: u64 = 4 * 1024 * 1024;
/// Plaintext waiting to be written beyond which reading stops.
const OUT_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;
/// Block payloads of one link in memory at once, KiB, both directions.
const BLOCK_KIB_MAX: usize = 4 * FRAME_BYTES_MAX / 1024;
/// A peer that takes no byte for so long is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of requests and answers of one session that limits of its token hold back, beyond which reading stops: the 512 closed
/// files of 16 KiB that a client sends behind (8 MiB), as much read by each entry of its FUSE queues (1,024, 16 MiB), what counts
/// of its blocks (`pace::STORED_PART`, 16 MiB), 64 small blocks in their writes (4 MiB), and some, so that one that behaves is always
/// heard.
const HELD_BYTES_MAX: u64 = 52 * 1024 * 1024;
/// A link that sends more than that is dropped after this: what was read would be kept for one that may be gone.
const HELD_TIMEOUT: Duration = Duration::from_secs(60);
/// A frame that has begun must go on within this.
const FRAME_TIMEOUT: Duration = Duration::from_secs(60);
/// Read buffer of an idle link: a cluster has many of them, and their next request is small.
const READ_IDLE: usize = 4 * 1024;
/// Read buffer while small frames come in numbers.
const READ_SMALL: usize = 32 * 1024;
/// Read buffer while a block comes in.
const READ_LARGE: usize = 256 * 1024;

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The peer closed.
    #[error("closed by the client")]
    Closed,
    /// This server closed.
    #[error("closed by the server")]
    Ended,
    /// The socket broke.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Bytes that are no records.
    #[error("{0}")]
    Record(#[from] RecordError),
    /// Records that hold no frames.
    #[error("{0}")]
    Frame(#[from] InboundError),
    /// Frames that hold nothing we know.
    #[error("{0}")]
    Body(#[from] frame::FrameError),
    /// The peer does not take what was sent.
    #[error("the client takes no data")]
    Stuck,
    /// More was sent than limits let through.
    #[error("far more was sent than the limits of the token let through")]
    Flooded,
    /// A frame began and never ended.
    #[error("a frame was begun and not finished in time")]
    Slow,
}

/// What the tasks of a link share.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) key: LinkKey,
    pub(crate) peer: SocketAddr,
    session: OnceCell<Arc<Shared>>,
    outbound: RefCell<Outbound>,
    /// Something to write, or the end.
    written: Notify,
    /// Room for more requests.
    pub(super) room: Notify,
    in_flight: Cell<u32>,
    /// Bytes that what is in flight may take.
    cost: Cell<u64>,
    closing: Cell<bool>,
    /// Requests in flight that wait for their turn.
    pub(super) held: Cell<u32>,
    /// What waits for its turn.
    pub(super) pace: Pace,
    /// Bounds block payloads of this link.
    pub(crate) blocks: Arc<Semaphore>,
}

impl Link {
    /// A link that has no session yet.
    pub(crate) fn new(key: LinkKey, peer: SocketAddr) -> Self {
        Self {
            key,
            peer,
            session: OnceCell::new(),
            outbound: RefCell::default(),
            written: Notify::new(),
            room: Notify::new(),
            in_flight: Cell::new(0),
            cost: Cell::new(0),
            closing: Cell::new(false),
            held: Cell::new(0),
            pace: Pace::default(),
            blocks: Arc::new(Semaphore::new(BLOCK_KIB_MAX)),
        }
    }

    /// A request was read. `cost`: see `Stamp::cost`.
    pub(crate) fn begin(&self, cost: u32) {
        self.in_flight.set(self.in_flight.get() + 1);
        self.begin_cost(cost);
    }

    /// Something in flight may take so many bytes.
    pub(super) fn begin_cost(&self, cost: u32) {
        self.cost.set(self.cost.get() + u64::from(cost));
    }

    /// It takes them no more.
    pub(super) fn end_cost(&self, cost: u32) {
        self.cost.set(self.cost.get().saturating_sub(cost.into()));
    }

    /// Something from the volume thread.
    pub(crate) fn handle(self: &Rc<Self>, core: &Rc<Core>, item: Item) {
        match item {
            Item::Answer { request, stamp, answer, leases } => match self.session.get() {
                Some(session) if session.info.limiter.is_on() && pace::shown(&answer) > 0 => {
                    let (core, link, session) = (core.clone(), self.clone(), session.clone());
                    let bytes = pace::shown(&answer);
                    pace::submit_answer(Task { core, link, session, request, stamp }, answer, leases, bytes);
                }
                _ => self.answer_with(core, request, stamp, answer, leases, Vec::new(), Vec::new()),
            },
            Item::Notice(notice) => self.notice(core, &notice),
            Item::Close => self.close(),
        }
    }

    /// Answers a request that changed nothing.
    pub(crate) fn refuse(&self, core: &Core, request: RequestId, stamp: Stamp, errno: Errno) {
        let answer = Answer { commit: Commit(0), at: Time::default(), result: Err(errno) };
        self.answer(core, request, stamp, answer);
    }

    /// Answers a request. Nodes are sealed here, at the border.
    pub(crate) fn answer(&self, core: &Core, request: RequestId, stamp: Stamp, answer: Answer) {
        self.answer_with(core, request, stamp, answer, Leases::NONE, Vec::new(), Vec::new());
    }

    /// Answers with a payload behind the body, and leases.
    #[expect(clippy::too_many_arguments, reason = "an answer's parts and where it goes")]
    pub(crate) fn answer_with(
        &self,
        core: &Core,
        request: RequestId,
        stamp: Stamp,
        mut answer: Answer,
        leases: Leases,
        payload: Vec<u8>,
        room: Vec<OwnedSemaphorePermit>,
    ) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        self.end_cost(stamp.cost);
        self.room.notify_one();
        let Some(session) = self.session.get() else { return };
        if self.closing.get() {
            return; // The client asks again on its next link.
        }
        if let Ok(reply) = &mut answer.result {
            reply.seal(&session.sealer);
        }
        core.metrics.answered(stamp.kind, stamp.started, answer.result.is_err());
        let mut header = self.header(Kind::Reply, request, session);
        header.leases = leases;
        let mut outbound = self.outbound.borrow_mut();
        let bytes = payload.len();
        if outbound.frame(|out| frame::encode(header, &answer, bytes, out)).is_ok() {
            if bytes > 0 {
                outbound.payload(payload, room);
            }
        } else {
            // A body over its bound is a fault of this server; the client must not wait for ever.
            tracing::error!(session = %session.info.id, %request, "an answer was too large to send");
            let answer = Answer { result: Err(Errno::EIO), ..answer };
            header.leases = Leases::NONE;
            // An errno always fits.
            let _ = outbound.frame(|out| frame::encode(header, &answer, 0, out));
        }
        self.written.notify_one();
    }

    /// Sends a notice.
    pub(crate) fn notice(&self, core: &Core, notice: &Notice) {
        let Some(session) = self.session.get() else { return };
        core.metrics.notices.increment(1);
        let header = self.header(Kind::Notice, RequestId(0), session);
        // A notice has a short body, it always fits.
        let _ = self.outbound.borrow_mut().frame(|out| frame::encode(header, notice, 0, out));
        self.written.notify_one();
    }

    /// Closes when everything before was sent.
    pub(crate) fn close(&self) {
        self.closing.set(true);
        self.written.notify_one();
        self.room.notify_one();
    }

    fn header(&self, kind: Kind, request: RequestId, session: &Shared) -> Header {
        let mut header = Header::new(kind, request);
        header.mark = session.volume.durable().0;
        let credit = REQUESTS_PER_LINK_MAX.saturating_sub(self.in_flight.get());
        header.credit = u16::try_from(credit).unwrap_or(u16::MAX);
        header
    }

    fn is_full(&self) -> bool {
        self.in_flight.get() >= IN_FLIGHT_MAX || self.is_loaded() || self.is_flooded()
    }

    /// Whether what is under way fills it.
    pub(super) fn is_loaded(&self) -> bool {
        self.cost.get() >= IN_FLIGHT_COST_MAX || self.outbound.borrow().bytes() >= OUT_BYTES_MAX
    }

    /// Whether too much waits for its turn.
    fn is_flooded(&self) -> bool {
        let held = || self.session.get().map_or(0, |session| session.held.load(Ordering::Relaxed));
        self.held.get() > 0 && held() >= HELD_BYTES_MAX
    }

    /// Whether nothing more is answered here.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    async fn wait_for_room(&self) -> Result<(), LinkError> {
        let since = clock::now();
        loop {
            if self.closing.get() {
                return Err(LinkError::Ended);
            }
            if !self.is_full() {
                return Ok(());
            }
            if self.held.get() == 0 {
                self.room.notified().await;
                continue;
            }
            let left = HELD_TIMEOUT.saturating_sub(clock::now().saturating_duration_since(since));
            if tokio::time::timeout(left, self.room.notified()).await.is_err() || left.is_zero() {
                return Err(LinkError::Flooded);
            }
        }
    }
}

/// A link whose handshake is over.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) link: Rc<Link>,
    pub(crate) session: Arc<Shared>,
    pub(crate) socket: Socket,
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    /// Records that were read and not opened yet.
    pub(crate) sealed: Vec<u8>,
    /// Plaintext behind the hello.
    pub(crate) plain: Vec<u8>,
    pub(crate) welcome: Welcome,
}

/// Serves a link until it ends.
pub(crate) async fn serve(core: Rc<Core>, ready: Ready) {
    let Ready { link, session, socket, sealer, opener, sealed, plain, welcome } = ready;
    session.links.fetch_add(1, Ordering::Relaxed);
    core.metrics.links.increment(1.0);
    let (socket, id) = (Rc::new(socket), session.info.id);
    // Before there is a session nothing else is sent, so the welcome comes first.
    let greeted = link
        .outbound
        .borrow_mut()
        .frame(|out| frame::encode(Header::new(Kind::Welcome, RequestId(0)), &welcome, 0, out));
    if link.session.set(session.clone()).is_err() || greeted.is_err() {
        tracing::error!(session = %id, "a link could not be welcomed");
        link.close();
    }
    let writer = write_all(link.clone(), socket.clone(), sealer, core.clone());
    let reader = async {
        let ended = Reader::new(&core, &link, &socket, opener).run(sealed, plain).await;
        link.close();
        ended
    };
    let (written, read) = tokio::join!(writer, reader);
    let cause = match (&written, &read) {
        (Err(cause), _) => cause,
        (Ok(()), Err(cause)) => cause,
        (Ok(()), Ok(never)) => match *never {},
    };
    tracing::debug!(session = %id, peer = %link.peer, %cause, "link ended");
    session.links.fetch_sub(1, Ordering::Relaxed);
    core.metrics.links.decrement(1.0);
    session.volume.send(ToVolume::LinkGone { session: id, link: link.key });
}

/// Seals and writes until the link closes.
async fn write_all(
    link: Rc<Link>,
    socket: Rc<Socket>,
    mut sealer: Sealer,
    core: Rc<Core>,
) -> Result<(), LinkError> {
    let result = write_loop(&link, &socket, &mut sealer, &core).await;
    link.close();
    // Wakes the reader; its next read ends.
    socket.shutdown();
    result
}

async fn write_loop(link: &Link, socket: &Socket, sealer: &mut Sealer, core: &Core) -> Result<(), LinkError> {
    let mut out = Vec::new();
    loop {
        out.clear();
        let more = link.outbound.borrow_mut().seal(sealer, &mut out)?;
        if !more {
            if !link.closing.get() {
                link.written.notified().await;
                continue;
            }
            sealer.close(&mut out)?;
        }
        link.room.notify_one();
        core.metrics.bytes_out.increment(out.len() as u64);
        let Ok((result, back)) = tokio::time::timeout(WRITE_TIMEOUT, socket.write_all(out)).await else {
            return Err(LinkError::Stuck);
        };
        result?;
        out = back;
        if !more {
            return Ok(());
        }
        if out.capacity() > READ_LARGE {
            out = Vec::new();
        }
        if sealer.exhausted() {
            link.close();
        }
    }
}

/// The reading side.
struct Reader<'a> {
    core: &'a Rc<Core>,
    link: &'a Rc<Link>,
    socket: &'a Socket,
    opener: Opener,
    assembler: Assembler,
    dispatch: Dispatch,
    /// The last read took all the room it was given.
    was_full: bool,
    /// Room for the payload at hand.
    payload_room: Vec<OwnedSemaphorePermit>,
}

impl<'a> Reader<'a> {
    fn new(core: &'a Rc<Core>, link: &'a Rc<Link>, socket: &'a Socket, opener: Opener) -> Self {
        Self {
            core,
            link,
            socket,
            opener,
            assembler: Assembler::new(),
            dispatch: Dispatch::default(),
            was_full: false,
            payload_room: Vec::new(),
        }
    }

    async fn run(
        mut self,
        mut buffer: Vec<u8>,
        plain: Vec<u8>,
    ) -> Result<std::convert::Infallible, LinkError> {
        self.handle_plain(&plain).await?;
        loop {
            self.handle_records(&mut buffer).await?;
            self.flush();
            self.link.wait_for_room().await?;
            if self.opener.exhausted() {
                self.link.close();
            }
            buffer = self.read(buffer).await?;
            let now = clock::now();
            self.core.look(now);
            if let Some(session) = self.link.session.get() {
                session.touch(now);
            }
        }
    }

    async fn read(&mut self, mut buffer: Vec<u8>) -> Result<Vec<u8>, LinkError> {
        let room = if self.assembler.payload_left() > READ_SMALL {
            READ_LARGE
        } else if self.was_full || !buffer.is_empty() {
            READ_SMALL
        } else {
            READ_IDLE
        };
        if buffer.capacity() > 4 * (buffer.len() + room) {
            // More came than is to be expected now; an idle link keeps no large buffer.
            let mut small = Vec::with_capacity(buffer.len() + room);
            small.extend_from_slice(&buffer);
            buffer = small;
        }
        let reading = self.socket.read(buffer, room);
        let (result, buffer) = if self.assembler.is_inside() {
            tokio::time::timeout(FRAME_TIMEOUT, reading).await.map_err(|_| LinkError::Slow)?
        } else {
            reading.await
        };
        let bytes = result?;
        if bytes == 0 {
            return Err(LinkError::Closed);
        }
        self.was_full = bytes == room;
        self.core.metrics.bytes_in.increment(bytes as u64);
        Ok(buffer)
    }

    /// Opens the whole records in `buffer` and leaves the rest at its front.
    async fn handle_records(&mut self, buffer: &mut Vec<u8>) -> Result<(), LinkError> {
        let mut at = 0;
        while let Some(bytes) = Opener::record_len(&buffer[at..])?
            && let Some(record) = buffer.get_mut(at..at + bytes)
        {
            at += bytes;
            if let Some(target) = self.assembler.target(bytes) {
                let filled = self.opener.open_into(record, target)?;
                self.assembler.filled(filled);
                self.handle_plain(&[]).await?;
            } else {
                let plain = self.opener.open_in_place(record)?;
                self.handle_plain(plain).await?;
            }
        }
        buffer.drain(..at);
        Ok(())
    }

    async fn handle_plain(&mut self, mut plain: &[u8]) -> Result<(), LinkError> {
        loop {
            match self.assembler.next(&mut plain)? {
                Event::More => return Ok(()),
                Event::Frame { header, body, payload } => {
                    let room = std::mem::take(&mut self.payload_room);
                    self.dispatch.frame(self.core, self.link, header, body, payload, room)?;
                    if self.link.is_full() {
                        self.flush();
                        self.link.wait_for_room().await?;
                    }
                }
                Event::Room(bytes) => {
                    self.flush();
                    self.payload_room = self.core.block_room(self.link, bytes).await;
                    self.assembler.room(self.core.blocks.take_spare(bytes));
                }
            }
        }
    }

    /// Hands what was gathered to the volume thread.
    fn flush(&mut self) {
        if let Some(session) = self.link.session.get() {
            self.dispatch.flush(session);
        }
    }
}

impl Link {
    /// The session, once welcomed.
    pub(crate) fn session(&self) -> Option<&Arc<Shared>> {
        self.session.get()
    }
}
