//! A FUSE entry: the place of one request at a time, lent to one task between fetch and commit.
#![expect(unsafe_code, reason = "lends memory that is shared with the kernel, by the state of the entry")]

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use io_uring::squeue::Entry128;
use rustix::io::Errno;

use crate::op::Op;
use crate::shard::Core;
use crate::slot::{Hold, Kind};
use crate::{clock, sys, timer};

use super::place::{Place, ReqHeader};

/// How long a command that the kernel answers with "again" is repeated before the entry is given up.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Pause between such repetitions.
const RETRY_PAUSE: Duration = Duration::from_millis(2);

/// Why an entry brings no more requests.
#[derive(Debug, thiserror::Error)]
pub enum EntryEnd {
    /// The file system was unmounted or its connection aborted. This is how serving ends.
    #[error("the file system was unmounted")]
    Unmounted,
    /// The shard is ending.
    #[error("the shard is ending")]
    Cancelled,
    /// The kernel refused the entry's last command.
    #[error("the kernel refused a FUSE ring command: {0}")]
    Failed(#[source] io::Error),
}

impl From<Errno> for EntryEnd {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOTCONN => Self::Unmounted,
            Errno::CANCELED => Self::Cancelled,
            other => Self::Failed(other.into()),
        }
    }
}

/// Where the entry's memory is.
enum State {
    /// With the kernel, which fills in a request.
    Waiting(Op),
    /// With us: a request was fetched and is to be answered.
    Lent { unique: u64, commit_id: u64, payload_bytes: usize },
    /// With us: the kernel wants the last command again, at this time.
    Paused(Instant),
    /// The last command ended with this errno; nothing will come.
    Ended(Errno),
}

/// The place of one request at a time. Dropping it leaves its memory with the ring until the ring is closed: the
/// kernel cannot be told that an entry is gone, so requests it still puts there are answered with EIO.
pub struct Entry {
    core: Rc<Core>,
    place: Rc<Place>,
    state: State,
    /// The command in flight, to be repeated when the kernel says so.
    command: Entry128,
    /// Until when "again" is accepted, from the first such answer on.
    retry_until: Option<Instant>,
}

impl Entry {
    /// Queues the registration of a place.
    pub(crate) fn register(core: &Rc<Core>, place: Rc<Place>) -> Self {
        let command = place.connection.register(&place);
        let state = State::Waiting(start(core, &place, &command));
        Self { core: Rc::clone(core), place, state, command, retry_until: None }
    }

    /// The error with which the kernel refused the registration, if it has already.
    pub(crate) fn refusal(&self) -> Option<io::Error> {
        match &self.state {
            State::Waiting(op) => op.peek().and_then(|completion| sys::outcome(completion.res).err()),
            State::Lent { .. } | State::Paused(_) | State::Ended(_) => None,
        }
    }

    /// The queue's number.
    pub fn qid(&self) -> u16 {
        self.place.connection.qid
    }

    /// Waits for the next request. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`EntryEnd`]; from then on always the same.
    pub async fn next(&mut self) -> Result<Fetched<'_>, EntryEnd> {
        self.answer_forgotten();
        loop {
            match &mut self.state {
                State::Waiting(op) => {
                    let res = poll_fn(|cx| Pin::new(&mut *op).poll(cx).map(|(res, _)| res)).await;
                    self.after_command(res);
                }
                State::Paused(until) => {
                    timer::sleep_until(*until).await;
                    self.state = State::Waiting(start(&self.core, &self.place, &self.command));
                }
                State::Ended(errno) => return Err(EntryEnd::from(*errno)),
                State::Lent { .. } => return Ok(Fetched { entry: self }),
            }
        }
    }

    /// Decides what a completed command means.
    fn after_command(&mut self, res: i32) {
        let errno = match sys::outcome(res) {
            Ok(_) => {
                self.retry_until = None;
                self.state = self.lend();
                return;
            }
            Err(error) => Errno::from_io_error(&error).unwrap_or(Errno::IO),
        };
        let now = clock::now();
        self.state = match errno {
            Errno::INTR => State::Paused(now),
            Errno::AGAIN if now < *self.retry_until.get_or_insert(now + RETRY_MAX) => {
                State::Paused(now + RETRY_PAUSE)
            }
            _ => State::Ended(errno),
        };
    }

    /// Takes the request the kernel has put into the entry's memory.
    fn lend(&self) -> State {
        // SAFETY: the command has completed, so the kernel does not have the entry, and no reference exists: the
        // only ones are lent through Fetched, which borrows the entry.
        let header = unsafe { self.place.header() };
        let (unique, commit_id, payload_bytes) =
            (header.unique(), header.commit_id(), header.payload_bytes());
        if payload_bytes > self.place.payload_bytes() {
            tracing::error!(unique, payload_bytes, "the kernel announced more payload than the entry holds");
            return State::Ended(Errno::PROTO);
        }
        State::Lent { unique, commit_id, payload_bytes }
    }

    /// Writes the answer and queues COMMIT_AND_FETCH.
    fn commit(&mut self, error: i32, payload_bytes: usize) {
        let State::Lent { unique, commit_id, .. } = self.state else { return };
        // An error carries no payload; a size beyond the memory would be a bug of the caller and is cut.
        let payload_bytes = if error == 0 { payload_bytes.min(self.place.payload_bytes()) } else { 0 };
        let payload_bytes = u32::try_from(payload_bytes).unwrap_or(0);
        // SAFETY: the entry is lent, so the kernel does not have it, and the exclusive borrow of the entry proves
        // that no reference into its memory is left.
        unsafe { self.place.write_answer(error, unique, payload_bytes) };
        self.command = self.place.connection.commit(commit_id);
        self.state = State::Waiting(start(&self.core, &self.place, &self.command));
    }

    /// Answers a request whose [`Fetched`] was dropped or leaked: the kernel must never wait for ever.
    fn answer_forgotten(&mut self) {
        if let State::Lent { unique, .. } = self.state {
            tracing::warn!(
                unique,
                qid = self.qid(),
                "a FUSE request was dropped without an answer, it gets EIO"
            );
            self.commit(-Errno::IO.raw_os_error(), 0);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.answer_forgotten();
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("qid", &self.qid()).finish_non_exhaustive()
    }
}

/// A fetched request: the only way to the entry's memory. Answer it with [`Fetched::reply`]; dropped unanswered it is
/// answered with EIO and a warning.
#[derive(Debug)]
pub struct Fetched<'a> {
    entry: &'a mut Entry,
}

impl Fetched<'_> {
    /// The request's header.
    pub fn header(&self) -> &ReqHeader {
        // SAFETY: the entry is lent while this guard exists, and only `reply`, which takes the guard, writes to the
        // header.
        unsafe { self.entry.place.header() }
    }

    /// The request's payload: names, or data of a WRITE from its first byte (page aligned).
    pub fn payload(&self) -> &[u8] {
        // SAFETY: the entry is lent while this guard exists; the exclusive view borrows the guard mutably.
        let memory = unsafe { self.entry.place.payload() };
        &memory[..self.payload_len()]
    }

    /// Bytes of the request's payload.
    pub fn payload_len(&self) -> usize {
        match self.entry.state {
            State::Lent { payload_bytes, .. } => payload_bytes,
            State::Waiting(_) | State::Paused(_) | State::Ended(_) => 0,
        }
    }

    /// Bytes of payload memory: the largest answer.
    pub fn payload_capacity(&self) -> usize {
        self.entry.place.payload_bytes()
    }

    /// The memory for the answer's payload. It is the request's own: parse before writing. Its bytes beyond what is
    /// written are left over from earlier requests of this mount; only those announced by `reply` reach the kernel.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        // SAFETY: the entry is lent while this guard exists, and the guard is borrowed exclusively.
        unsafe { self.entry.place.payload_mut() }
    }

    /// The queue's number.
    pub fn qid(&self) -> u16 {
        self.entry.qid()
    }

    /// Answers with `error` (0, or a negative errno) and the first `payload_bytes` of the payload memory, and asks for
    /// the next request. The kernel gets it at the end of the turn; [`Entry::next`] waits for what follows.
    pub fn reply(self, error: i32, payload_bytes: usize) {
        self.entry.commit(error, payload_bytes);
    }
}

impl Drop for Fetched<'_> {
    fn drop(&mut self) {
        // After `reply` the entry waits, and this does nothing.
        self.entry.answer_forgotten();
    }
}

/// Queues a command on a place.
fn start(core: &Rc<Core>, place: &Rc<Place>, command: &Entry128) -> Op {
    let hold = Hold::Place(Rc::clone(place));
    // SAFETY: the kernel uses the place's mapping, which the hold keeps and which never moves. Between the command's
    // completion and the next command it uses nothing. The descriptor is kept by the place's connection.
    unsafe { Op::start(core, command.clone(), hold, None, Kind::Plain) }
}

/// Answers the request that arrived in the place of a dropped entry with EIO, and lets the kernel have the place
/// again. Without this the caller would wait until the file system is unmounted.
pub(crate) fn refuse(place: &Rc<Place>) {
    // SAFETY: a fetch has completed and its entry is gone, so neither the kernel nor anybody else has the place.
    let header = unsafe { place.header() };
    let (unique, commit_id) = (header.unique(), header.commit_id());
    tracing::warn!(
        unique,
        qid = place.connection.qid,
        "a FUSE request came to an entry nobody serves, it gets EIO"
    );
    // SAFETY: as above; the view of the header has ended.
    unsafe { place.write_answer(-Errno::IO.raw_os_error(), unique, 0) };
    start(&place.connection.core, place, &place.connection.commit(commit_id)).detach();
}
