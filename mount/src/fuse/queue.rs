//! Serving the FUSE queues of a shard: one task per entry, from fetch to commit.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use flexfs_uring::fuse::{Entry, EntryEnd, Fetched, Queue, QueueConfig, RegisterError};
use flexfs_wire::errno::Errno;
use flexfs_wire::limits::FUSE_IO_BYTES_MAX;
use flexfs_wire::message::Caller;

use super::dispatch;
use super::request::{self, Header, Operation};
use super::seat::{Seat, Seats};
use crate::vfs::{Ctx, Vfs};

/// Entries of a queue at most: what an application with deep asynchronous I/O keeps in flight per core.
const DEPTH_MAX: usize = 32;
/// Entries at least: waits for locks take some, and must leave some.
const DEPTH_MIN: usize = 4;
/// Payload memory of all entries together at most; only touched pages are real.
const PAYLOAD_BYTES_ALL: usize = 1 << 30;
/// Entries of a queue that no wait for a lock may take: a further one could never be unlocked.
const KEPT_FROM_WAITERS: usize = 2;

const _: () = assert!(DEPTH_MIN > KEPT_FROM_WAITERS);

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
    for &qid in qids {
        let config = QueueConfig { qid, depth, payload_bytes: FUSE_IO_BYTES_MAX };
        let waiters = Rc::new(Waiters::new(usize::from(depth) - KEPT_FROM_WAITERS));
        for entry in Queue::register(device, &config)? {
            let seat = service.seats.add();
            drop(flexfs_uring::spawn(serve_entry(entry, service.clone(), seat, Rc::clone(&waiters))));
        }
    }
    Ok(())
}

/// Waits for locks that hold entries of one queue.
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
    fn enter(self: &Rc<Self>) -> Result<Waiting, Errno> {
        if self.count.get() >= self.most {
            tracing::warn!(most = self.most, "too many processes of one core wait for locks; one got ENOLCK");
            return Err(Errno::ENOLCK);
        }
        self.count.set(self.count.get() + 1);
        Ok(Waiting(Rc::clone(self)))
    }
}

struct Waiting(Rc<Waiters>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
    }
}

async fn serve_entry(mut entry: Entry, service: Service, seat: Arc<Seat>, waiters: Rc<Waiters>) {
    let qid = entry.qid();
    loop {
        match entry.next().await {
            Ok(fetched) => serve_one(fetched, &service, &seat, &waiters).await,
            Err(EntryEnd::Unmounted | EntryEnd::Cancelled) => return,
            Err(error) => {
                tracing::error!(%error, qid, "an entry of a FUSE queue is lost");
                return;
            }
        }
    }
}

async fn serve_one(mut fetched: Fetched<'_>, service: &Service, seat: &Seat, waiters: &Rc<Waiters>) {
    let Ok(header) = Header::parse(fetched.header().in_out()) else {
        // 128 bytes are never too short for a header.
        return fetched.reply(-Errno::EIO.0, 0);
    };
    let op = *fetched.header().op_in();
    let payload_bytes = fetched.payload_len();
    service.seats.begin(seat, header.unique, header.pid);
    let payload = fetched.payload_mut();
    let outcome = match request::parse(&header, &op, payload.get(..payload_bytes).unwrap_or(&[])) {
        Ok(operation) => run(service, seat, waiters, &header, operation, payload).await,
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
    service: &Service,
    seat: &Seat,
    waiters: &Rc<Waiters>,
    header: &Header,
    operation: Operation,
    payload: &mut [u8],
) -> Result<usize, Errno> {
    let _waiting = match operation {
        Operation::SetLock { wait: true, .. } => Some(waiters.enter()?),
        _ => None,
    };
    let ctx = Ctx { caller: Caller { uid: header.uid, gid: header.gid }, cancel: &seat.cancel };
    dispatch::run(&service.vfs, ctx, seat, header.nodeid, operation, payload).await
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
    fn waiters_leave_entries_for_unlocks() {
        let waiters = Rc::new(Waiters::new(2));
        let first = waiters.enter().unwrap();
        let _second = waiters.enter().unwrap();
        assert_eq!(waiters.enter().err(), Some(Errno::ENOLCK));
        drop(first);
        assert!(waiters.enter().is_ok());
    }
}
