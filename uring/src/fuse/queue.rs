//! One FUSE queue of a mounted connection, and its registration.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use io_uring::opcode::UringCmd80;
use io_uring::squeue::Entry128;
use io_uring::types::{Fd, Fixed};

use crate::shard::{Core, current};
use crate::sys;

use super::entry::Entry;
use super::place::Place;

/// The smallest payload memory the kernel takes: FUSE_MIN_READ_BUFFER. It wants the larger of this, `max_write` and
/// `max_pages` pages.
pub const PAYLOAD_BYTES_MIN: usize = 8192;

/// FUSE_IO_URING_CMD_REGISTER (include/uapi/linux/fuse.h).
const CMD_REGISTER: u32 = 1;

/// FUSE_IO_URING_CMD_COMMIT_AND_FETCH.
const CMD_COMMIT_AND_FETCH: u32 = 2;

/// How a queue is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueConfig {
    /// The queue's number: the CPU whose requests it takes. Every possible CPU needs one, or requests block.
    pub qid: u16,
    /// Entries: requests of that CPU served at the same time. Keep long waiters below it (see `mount`).
    pub depth: u16,
    /// Payload memory per entry in bytes, rounded up to pages; at least `max_write` and `max_pages` pages, as
    /// negotiated at INIT, and [`PAYLOAD_BYTES_MIN`].
    pub payload_bytes: usize,
}

/// Why a queue could not be registered. The connection then still works over /dev/fuse, if no queue of it became
/// ready (measured on 6.18).
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// No memory for the entries.
    #[error(
        "no memory for the entries of FUSE queue {qid} ({source}); lower the queue depth or the largest write"
    )]
    Memory {
        /// The queue.
        qid: u16,
        /// The errno of `mmap(2)`.
        source: io::Error,
    },
    /// The kernel refused an entry.
    #[error(
        "the kernel refused FUSE queue {qid} ({source}): FUSE_OVER_IO_URING was not agreed upon at INIT, the payload \
         memory is smaller than max_write or max_pages, or the CPU is not possible; see `dmesg`"
    )]
    Refused {
        /// The queue.
        qid: u16,
        /// The errno in the entry's completion.
        source: io::Error,
    },
}

/// What the entries of a queue share. The descriptor is also registered with the ring where there is room, so that
/// commits of different cores do not meet in the file's reference counter.
pub(crate) struct Connection {
    pub(crate) core: Rc<Core>,
    fd: Arc<OwnedFd>,
    fixed: Option<u32>,
    pub(crate) qid: u16,
}

impl Connection {
    /// The entry of REGISTER for a place.
    pub(crate) fn register(&self, place: &Place) -> Entry128 {
        let mut entry = self.command(CMD_REGISTER, 0, Some(place.iovecs().expose_provenance() as u64));
        sys::set_len(&mut entry, 2);
        entry
    }

    /// The entry of COMMIT_AND_FETCH for a request.
    pub(crate) fn commit(&self, commit_id: u64) -> Entry128 {
        self.command(CMD_COMMIT_AND_FETCH, commit_id, None)
    }

    /// The command area holds `struct fuse_uring_cmd_req`: flags u64, commit_id u64, qid u16, padding 6.
    fn command(&self, operation: u32, commit_id: u64, address: Option<u64>) -> Entry128 {
        let mut area = [0; 80];
        area[8..16].copy_from_slice(&commit_id.to_ne_bytes());
        area[16..18].copy_from_slice(&self.qid.to_ne_bytes());
        match self.fixed {
            Some(index) => UringCmd80::new(Fixed(index), operation).cmd(area).addr(address).build(),
            None => UringCmd80::new(Fd(self.fd.as_raw_fd()), operation).cmd(area).addr(address).build(),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The last place is gone, and with it the last operation that named the file by this index.
        if let Some(index) = self.fixed
            && let Ok(mut ring) = self.core.ring.try_borrow_mut()
        {
            ring.unfix_file(index);
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("qid", &self.qid).field("fd", &self.fd).finish_non_exhaustive()
    }
}

/// One FUSE queue. A shard may serve several.
#[derive(Debug)]
pub struct Queue;

impl Queue {
    /// Registers a queue with all its entries on the current shard, after the answer to INIT was written. The
    /// kernel has taken or refused every entry when this returns. Each entry wants a task that serves it.
    ///
    /// # Errors
    /// [`RegisterError`]; entries that were taken nevertheless stay with the ring until the file system is unmounted
    /// or the shard ends.
    ///
    /// # Panics
    /// Outside of [`crate::Shard::block_on`].
    pub fn register(fuse_fd: &Arc<OwnedFd>, config: &QueueConfig) -> Result<Vec<Entry>, RegisterError> {
        let core = current();
        let qid = config.qid;
        let payload_bytes = config.payload_bytes.max(PAYLOAD_BYTES_MIN);
        let fixed = core.ring.borrow_mut().fix_file(fuse_fd.as_raw_fd());
        let connection = Rc::new(Connection { core: Rc::clone(&core), fd: Arc::clone(fuse_fd), fixed, qid });
        let places: io::Result<Vec<_>> =
            (0..config.depth).map(|_| Place::new(&connection, payload_bytes)).collect();
        let places = places.map_err(|source| RegisterError::Memory { qid, source })?;
        let entries: Vec<Entry> = places.into_iter().map(|place| Entry::register(&core, place)).collect();
        // Submitted now: a refusal comes at once, as the completion of the command.
        let submitted = core.ring.borrow_mut().enter(0, None);
        core.handle_completions();
        let refused = submitted.err().or_else(|| entries.iter().find_map(Entry::refusal));
        match refused {
            Some(source) => Err(RegisterError::Refused { qid, source }),
            None => Ok(entries),
        }
    }
}
