//! Serving the FUSE queues of a shard: one task per entry, from fetch to commit.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use flexfs_uring::fuse::{Entry, EntryEnd, Fetched, Queue, QueueConfig, RegisterError};
use flexfs_uring::timer;
use flexfs_wire::errno::Errno;
use flexfs_wire::limits::{FUSE_IO_BYTES_MAX, REQUESTS_PER_LINK_MAX};
use flexfs_wire::message::Caller;

use super::dispatch;
use super::request::{self, Header, Operation};
use super::seat::{Seat, Seats};
use crate::vfs::{Ctx, Vfs};

/// Entries of a queue at most: what an application with deep asynchronous I/O keeps in flight per core.
const DEPTH_MAX: usize = 32;
/// Entries at least.
const DEPTH_MIN: usize = 4;
/// Payload memory of all entries together at most; only touched pages are real.
const PAYLOAD_BYTES_ALL: usize = 1 << 30;
/// Entries of a queue that no wait for a lock may take: a further one could never be unlocked.
const KEPT_FROM_WAITERS: usize = 2;
/// Most waits for locks on a shard; one more gets `ENOLCK`. Each holds a request of the shard's link.
const WAITERS_MAX: usize = REQUESTS_PER_LINK_MAX as usize / 2;

/// Entries of a queue that should be free while the server is away: the kernel waits for a free one even with what a dying
/// process leaves to be answered, and such a process cannot be killed before somebody reads its request.
const SPARE_WHEN_AWAY: usize = 4;
/// Entries added at once when fewer are free. One that only ever waits takes two pages.
const ADDED: u16 = 16;
/// Most entries of a queue, waiting ones included. What comes beyond waits inside the kernel.
const DEPTH_GROWN_MAX: usize = 1024;
/// Silence of the server after which its queues grow: what waits now may wait for long.
const AWAY_AFTER: Duration = Duration::from_secs(1);
/// How often queues are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

const _: () = assert!(DEPTH_MIN > KEPT_FROM_WAITERS && WAITERS_MAX < DEPTH_GROWN_MAX);

/// What requests are served with.
#[derive(Clone, Debug)]
pub struct Service {
    /// The file system.
    pub vfs: Arc<Vfs>,
    /// Seats of the mount.
    pub seats: Arc<Seats>,
}

/// Entries per queue on a machine with `queues` of them.
#[must_use]
pub fn depth(queues: usize) -> u16 {
    let share = PAYLOAD_BYTES_ALL / FUSE_IO_BYTES_MAX / queues.max(1);
    u16::try_from(share.clamp(DEPTH_MIN, DEPTH_MAX)).unwrap_or(u16::MAX)
}

/// Registers queues on the current shard and spawns the tasks that serve them.
///
/// # Errors
/// The kernel's refusal; entries registered before it are served, until the file system is unmounted.
pub fn serve(
    device: &Arc<OwnedFd>,
    qids: &[u16],
    depth: u16,
    service: &Service,
) -> Result<(), RegisterError> {
    let mut lines = Vec::with_capacity(qids.len());
    let waiters = Rc::new(Waiters::new(WAITERS_MAX));
    for &qid in qids {
        let line = Rc::new(Line {
            device: Arc::clone(device),
            service: service.clone(),
            qid,
            entries: Cell::new(0),
            busy: Cell::new(0),
            depth: usize::from(depth),
            waiting: Cell::new(0),
            waiters: Rc::clone(&waiters),
        });
        line.add(depth)?;
        lines.push(line);
    }
    drop(flexfs_uring::spawn(watch(lines)));
    Ok(())
}

/// Lets queues grow that ran full before the server was known to be away.
async fn watch(lines: Vec<Rc<Line>>) {
    loop {
        timer::sleep(LOOK_EVERY).await;
        for line in &lines {
            if line.grow().is_err() {
                return;
            }
        }
    }
}

/// One queue and its entries.
#[derive(Debug)]
struct Line {
    device: Arc<OwnedFd>,
    service: Service,
    qid: u16,
    entries: Cell<usize>,
    /// Entries that hold a request.
    busy: Cell<usize>,
    /// Entries it began with.
    depth: usize,
    /// Entries that hold a wait for a lock.
    waiting: Cell<usize>,
    /// All waits of the shard.
    waiters: Rc<Waiters>,
}

impl Line {
    fn add(self: &Rc<Self>, count: u16) -> Result<(), RegisterError> {
        let config = QueueConfig { qid: self.qid, depth: count, payload_bytes: FUSE_IO_BYTES_MAX };
        let entries = Queue::register(&self.device, &config)?;
        self.entries.set(self.entries.get() + entries.len());
        for entry in entries {
            let seat = self.service.seats.add();
            drop(flexfs_uring::spawn(serve_entry(entry, Rc::clone(self), seat)));
        }
        Ok(())
    }

    /// Adds entries when nearly all hold requests that wait for a server that is away.
    fn grow(self: &Rc<Self>) -> Result<(), RegisterError> {
        let entries = self.entries.get();
        let is_short = entries - self.busy.get() < SPARE_WHEN_AWAY && entries < DEPTH_GROWN_MAX;
        if !is_short || self.service.vfs.quiet_for() < AWAY_AFTER {
            return Ok(());
        }
        tracing::debug!(
            qid = self.qid,
            entries,
            "most entries of a FUSE queue wait for the server; adding some"
        );
        self.add(ADDED).inspect_err(|error| tracing::warn!(%error, "a FUSE queue cannot grow"))
    }
}

impl Line {
    /// A place for a wait for a lock, which may last. The queue grows, so that others find as many entries as before.
    fn enter(self: &Rc<Self>) -> Result<Waiting, Errno> {
        let counted = self.waiters.enter()?;
        let waiting = self.waiting.get() + 1;
        let entries = self.entries.get();
        if entries < self.depth + waiting && entries < DEPTH_GROWN_MAX {
            // What there is may still do.
            let _ = self.add(ADDED).inspect_err(|error| tracing::warn!(%error, "a FUSE queue cannot grow"));
        }
        if self.entries.get() < waiting + KEPT_FROM_WAITERS {
            return Err(Errno::ENOLCK);
        }
        self.waiting.set(waiting);
        Ok(Waiting { line: Rc::clone(self), _counted: counted })
    }
}

/// A wait for a lock in a queue.
struct Waiting {
    line: Rc<Line>,
    _counted: Counted,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.line.waiting.set(self.line.waiting.get() - 1);
    }
}

/// Waits for locks on a shard.
#[derive(Debug)]
struct Waiters {
    count: Cell<usize>,
    most: usize,
}

impl Waiters {
    fn new(most: usize) -> Self {
        Self { count: Cell::new(0), most }
    }

    /// A place, or `ENOLCK`.
    fn enter(self: &Rc<Self>) -> Result<Counted, Errno> {
        if self.count.get() >= self.most {
            tracing::warn!(most = self.most, "too many processes of one core wait for locks; one got ENOLCK");
            return Err(Errno::ENOLCK);
        }
        self.count.set(self.count.get() + 1);
        Ok(Counted(Rc::clone(self)))
    }
}

struct Counted(Rc<Waiters>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
    }
}

async fn serve_entry(mut entry: Entry, line: Rc<Line>, seat: Arc<Seat>) {
    let qid = entry.qid();
    loop {
        match entry.next().await {
            Ok(fetched) => {
                line.busy.set(line.busy.get() + 1);
                // A refusal is said there; this request has its entry.
                let _ = line.grow();
                serve_one(fetched, &line, &seat).await;
                line.busy.set(line.busy.get() - 1);
            }
            Err(EntryEnd::Unmounted | EntryEnd::Cancelled) => return,
            Err(error) => {
                tracing::error!(%error, qid, "an entry of a FUSE queue is lost");
                return;
            }
        }
    }
}

async fn serve_one(mut fetched: Fetched<'_>, line: &Rc<Line>, seat: &Seat) {
    let Ok(header) = Header::parse(fetched.header().in_out()) else {
        // 128 bytes are never too short for a header.
        return fetched.reply(-Errno::EIO.0, 0);
    };
    let op = *fetched.header().op_in();
    let payload_bytes = fetched.payload_len();
    line.service.seats.begin(seat, header.unique, header.pid);
    let payload = fetched.payload_mut();
    let outcome = match request::parse(&header, &op, payload.get(..payload_bytes).unwrap_or(&[])) {
        Ok(operation) => run(line, seat, &header, operation, payload).await,
        Err(errno) => Err(errno),
    };
    seat.end(outcome.is_err());
    match outcome {
        Ok(bytes) => fetched.reply(0, bytes),
        Err(errno) => {
            dispatch::log_errno(&header, errno);
            fetched.reply(-errno.0, 0);
        }
    }
}

async fn run(
    line: &Rc<Line>,
    seat: &Seat,
    header: &Header,
    operation: Operation,
    payload: &mut [u8],
) -> Result<usize, Errno> {
    let _waiting = match operation {
        Operation::SetLock { wait: true, .. } => Some(line.enter()?),
        _ => None,
    };
    let ctx = Ctx { caller: Caller { uid: header.uid, gid: header.gid }, cancel: &seat.cancel };
    let vfs = &line.service.vfs;
    // Nobody waits for a release, and for a lock only its holder.
    let is_hurried = !matches!(operation, Operation::Release { .. } | Operation::SetLock { wait: true, .. });
    let work = dispatch::run(vfs, ctx, seat, header.nodeid, operation, payload);
    if is_hurried { vfs.hurrying(work).await } else { work.await }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_depth_follows_the_memory() {
        assert_eq!(depth(2), 32);
        assert_eq!(depth(64), 16);
        assert_eq!(depth(4096), 4);
        assert_eq!(depth(0), 32);
    }

    #[test]
    fn waiters_leave_room_for_unlocks() {
        let waiters = Rc::new(Waiters::new(2));
        let first = waiters.enter().unwrap();
        let _second = waiters.enter().unwrap();
        assert_eq!(waiters.enter().err(), Some(Errno::ENOLCK));
        drop(first);
        assert!(waiters.enter().is_ok());
    }
}
