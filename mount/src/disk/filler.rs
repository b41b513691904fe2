//! The thread behind the cache: it looks through what an earlier mount left, adds what readers fetched, and evicts.
//! All it does may block; nobody waits for it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, TryRecvError};
use flexfs_uring::clock;
use flexfs_uring::file::File;
use flexfs_wire::id::BlockId;
use rustix::io::Errno;

use super::folder::Left;
use super::shared::{Shared, State};
use super::slot;

/// Longest time until files that are to go are gone.
const TICK: Duration = Duration::from_millis(500);
/// Files looked through between two looks at the queue.
const SCAN_BATCH: usize = 16;
/// Time between two looks at how much room the file system has.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Part of the file system that stays free for others: one in this many,
const MARGIN_PART: u64 = 64;
/// but no more bytes than this.
const MARGIN_MAX: u64 = 1 << 30;

/// What is to be done.
#[derive(Debug)]
pub(super) enum Work {
    /// A segment is to be added.
    Fill(Fill),
    /// Blocks were condemned.
    Drop,
}

/// A segment to be added.
#[derive(Debug)]
pub(super) struct Fill {
    pub(super) block: BlockId,
    pub(super) number: u32,
    /// The slot, as it goes to the disk.
    pub(super) slot: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Filler {
    shared: Arc<Shared>,
    /// What was left and not looked through yet; the one to begin with, which was used longest ago, is the last.
    left: Vec<Left>,
    /// Bytes of them.
    left_bytes: u64,
    /// Most bytes at the moment: the quota, or less where the file system has not so much to spare.
    limit: u64,
    /// When that is looked at again.
    look_at: Option<Instant>,
    /// Turn of the index's shards.
    turn: usize,
}

impl Filler {
    /// Has done nothing yet.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let limit = shared.quota;
        Self { shared, left: Vec::new(), left_bytes: 0, limit, look_at: None, turn: 0 }
    }

    /// Works until the cache is given up.
    pub(super) fn run(mut self, work: &Receiver<Work>) {
        if let Err(error) = self.list() {
            self.shared.fail("list what is there", &error);
        }
        while self.shared.state() != State::Off {
            self.drop_condemned();
            self.fit(0);
            let next = if self.left.is_empty() {
                work.recv_timeout(TICK)
            } else {
                self.scan();
                work.try_recv().map_err(|error| match error {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                })
            };
            match next {
                Ok(Work::Fill(fill)) => self.fill(fill),
                Ok(Work::Drop) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Finds what an earlier mount left; beyond the quota, what was used longest ago goes.
    fn list(&mut self) -> io::Result<()> {
        if !self.shared.keeps_plain {
            self.shared.folder.remove_plain()?;
        }
        self.left = self.shared.folder.list()?;
        self.left.sort_unstable_by_key(|left| std::cmp::Reverse((left.used, left.block)));
        self.left_bytes = self.left.iter().map(|left| left.bytes).sum();
        self.look();
        self.fit(0);
        if self.left.is_empty() && self.shared.state() == State::Scanning {
            self.shared.set_state(State::On);
        }
        Ok(())
    }

    /// Looks through the next few files.
    fn scan(&mut self) {
        for _ in 0..SCAN_BATCH {
            let Some(left) = self.left.pop() else { break };
            self.left_bytes = self.left_bytes.saturating_sub(left.bytes);
            match self.shared.folder.map(left.block) {
                Ok(slots) if slots.is_empty() => self.remove(left.block),
                Ok(slots) => self.shared.index.add(left.block, slots),
                Err(error) => self.handle(left.block, "look at a file", &error),
            }
        }
        if self.left.is_empty() {
            self.fit(0);
            if self.shared.state() == State::Scanning {
                self.shared.set_state(State::On);
            }
        }
    }

    fn fill(&mut self, fill: Fill) {
        let Fill { block, number, slot } = fill;
        // Two readers may have fetched it.
        if !self.shared.index.contains(block, number) {
            if self.make_room(block, &slot) {
                match self.write(block, number, &slot) {
                    Ok(()) => self.shared.counters.added.add(1),
                    Err(error) => {
                        self.shared.counters.left_out.add(1);
                        self.handle(block, "write a file", &error);
                    }
                }
            } else {
                self.shared.counters.left_out.add(1);
            }
        }
        self.shared.recycle(slot);
    }

    fn write(&self, block: BlockId, number: u32, slot: &[u8]) -> io::Result<()> {
        let index = &self.shared.index;
        let file = match index.opened(block) {
            Some(file) => file,
            None => self.shared.folder.open(block)?,
        };
        write_all(&file, slot, slot::offset(number))?;
        index.add(block, [(number, pages(slot))]);
        index.keep_open(block, &file);
        Ok(())
    }

    /// Evicts until there is room for one more segment. False: there never is.
    fn make_room(&mut self, block: BlockId, slot: &[u8]) -> bool {
        if self.look_at.is_none_or(|at| at <= clock::now()) {
            self.look();
        }
        self.fit(self.shared.index.cost(block, pages(slot)))
    }

    /// Evicts until `more` bytes are within the limit. False: they never are.
    fn fit(&mut self, more: u64) -> bool {
        while self.shared.held() + self.left_bytes + more > self.limit {
            // What was not looked through yet was used before all that was.
            if let Some(left) = self.left.pop() {
                self.left_bytes = self.left_bytes.saturating_sub(left.bytes);
                self.remove(left.block);
            } else if let Some(block) = self.shared.index.evict(&mut self.turn) {
                self.remove(block);
            } else {
                return false;
            }
            self.shared.counters.evicted.add(1);
        }
        true
    }

    /// Finds out how much the file system has to spare. No cache is worth a full disk: what others need of it is given back.
    fn look(&mut self) {
        self.look_at = Some(clock::now() + LOOK_EVERY);
        let (all, free) = match self.shared.folder.room() {
            Ok(room) => room,
            Err(error) => return self.shared.fail("look for room", &error),
        };
        let margin = (all / MARGIN_PART).min(MARGIN_MAX);
        let spare = (self.shared.held() + self.left_bytes + free).saturating_sub(margin);
        self.limit = self.shared.quota.min(spare);
        if self.limit < self.shared.quota {
            self.say_full();
        } else if self.left.is_empty() {
            self.shared.set_state(State::On);
        }
    }

    fn say_full(&self) {
        if self.shared.set_state(State::Full) {
            tracing::info!(
                folder = %self.shared.folder.path().display(), quota = self.shared.quota, limit = self.limit,
                "the file system of the disk cache is nearly full: the cache takes less than its quota"
            );
        }
    }

    fn drop_condemned(&mut self) {
        for block in self.shared.take_condemned() {
            self.shared.index.remove(block);
            self.remove(block);
        }
    }

    fn remove(&self, block: BlockId) {
        if let Err(error) = self.shared.folder.remove(block) {
            self.shared.fail("remove a file", &error);
        }
    }

    /// Something failed with the file of a block. Without room it is left as it is, anything else ends the cache.
    fn handle(&mut self, block: BlockId, doing: &str, error: &io::Error) {
        let errno = Errno::from_io_error(error);
        if errno.is_some_and(|errno| [Errno::NOSPC, Errno::DQUOT, Errno::FBIG].contains(&errno)) {
            // A part of the segment may be there.
            self.shared.index.remove(block);
            self.remove(block);
            self.limit = self.limit.min(self.shared.held() + self.left_bytes);
            self.look_at = Some(clock::now() + LOOK_EVERY);
            self.say_full();
        } else {
            self.shared.fail(doing, error);
        }
    }
}

/// Pages that a slot takes.
fn pages(slot: &[u8]) -> u8 {
    slot::pages(u32::try_from(slot.len().saturating_sub(slot::HEADER_BYTES)).unwrap_or(u32::MAX))
}

fn write_all(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
