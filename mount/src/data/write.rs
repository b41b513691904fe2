//! `write(2)`: bytes are copied, and sent later.

use std::sync::Arc;
use std::time::Duration;

use event_listener::EventListener;
use flexfs_uring::{clock, timer};
use flexfs_wire::errno::Errno;
use flexfs_wire::limits::FILE_BYTES_MAX;
use flexfs_wire::message::{Caller, Request};

use super::core::{Core, NOBODY};
use super::file::{File, Progress, Recalling, State};
use super::files::WriteMode;
use super::lease::Busy;
use super::server::Server;
use crate::cancel::{Cancel, or_cancel};

/// Capabilities of a program (`capabilities(7)`).
const CAPABILITY: &[u8] = b"security.capability";
/// Bytes that the kernel wrote to its pages before they were dropped reach us within this.
const ON_THE_WAY_MAX: Duration = Duration::from_secs(2);
/// Longest pause before a writer who may wait asks for the lease again.
const ASK_PAUSE_MAX: Duration = Duration::from_millis(20);

/// Bytes that were copied.
struct Taken<'a> {
    /// Flights that have a whole block and are to be sent.
    full: Vec<u64>,
    /// Memory they take.
    needed: u64,
    /// The file is to be named among the dirty ones.
    list: bool,
    /// They must be at the server before the writer is answered.
    through: bool,
    /// The kernel may have pages of them.
    busy: Option<Busy<'a>>,
    /// The kernel may have fetched pages of them anew while they were on their way, without them.
    overtaken: bool,
}

/// What comes before bytes can be copied.
enum Next {
    /// Capabilities go.
    Disarm,
    /// A recall ends.
    Wait(EventListener),
    /// The exclusive lease is asked for.
    Acquire,
}

impl<S: Server> Core<S> {
    /// Takes all of `data`, or nothing. Waits while the budget is used up, and for the file's exclusive lease. True: the kernel
    /// may have pages of the range that do not have these bytes. It puts bytes into its pages before it sends them; if the
    /// page is dropped before they are taken in here, it is fetched anew without them.
    pub(crate) async fn write(
        self: &Arc<Self>,
        caller: Caller,
        file: &Arc<File>,
        (offset, data): (u64, &[u8]),
        how: WriteMode,
        cancel: Option<&Cancel>,
    ) -> Result<bool, Errno> {
        if data.is_empty() {
            return Ok(false);
        }
        let fits = offset.checked_add(data.len() as u64).is_some_and(|end| end <= FILE_BYTES_MAX);
        if !fits {
            return Err(Errno::EFBIG);
        }
        if let Some(errno) = file.state().write_error.take() {
            return Err(errno);
        }
        self.server.check()?;
        let bytes = data.len() as u64;
        self.budget.take(bytes, cancel, || self.relieve()).await?;
        let taken = match self.take_in(caller, file, (offset, data), how, cancel).await {
            Ok(taken) => taken,
            Err(errno) => {
                self.budget.give(bytes);
                return Err(errno);
            }
        };
        self.budget.settle(bytes, taken.needed);
        if taken.list {
            self.list_dirty(file);
        }
        for number in taken.full {
            self.spawn_put(file, number);
        }
        self.cache.fit();
        if self.budget.is_pressed() {
            self.relieve();
        }
        self.counters.count_written(data.len());
        let result = if taken.through { self.flush(file, cancel).await } else { Ok(()) };
        drop(taken.busy);
        result.map(|()| taken.overtaken)
    }

    /// Copies the bytes once they may be kept, or must not wait.
    async fn take_in<'a>(
        &self,
        caller: Caller,
        file: &'a File,
        (offset, data): (u64, &[u8]),
        how: WriteMode,
        cancel: Option<&Cancel>,
    ) -> Result<Taken<'a>, Errno> {
        let arrived = clock::now();
        let mut refused = false;
        // The kernel takes a program's capabilities off itself where it has pages.
        let mut is_disarmed = !how.direct;
        let mut pause = Duration::ZERO;
        loop {
            let next = {
                let mut state = file.state();
                let life = self.server.recalls().life();
                let recalled = state.lease.recall != Recalling::No;
                let may_keep = state.lease.is_exclusive(life);
                // The kernel holds pages for it that the recall waits for.
                let must_not_wait = !how.direct && (recalled || refused);
                let decorated = state.is_decorated || state.known.is_some_and(|known| known.has_xattrs);
                if may_keep && decorated && !is_disarmed {
                    Next::Disarm
                } else if state.pending.is_some() && !how.from_pages {
                    // The file's times are those of the last change.
                    Next::Wait(file.moved.listen())
                } else if state.known.is_some() && (may_keep || must_not_wait) {
                    let offset = if how.append { state.size() } else { offset };
                    if offset.checked_add(data.len() as u64).is_none_or(|end| end > FILE_BYTES_MAX) {
                        return Err(Errno::EFBIG);
                    }
                    if state.is_clean() {
                        state.written_in = life;
                    }
                    let mut taken = self.copy_in(&mut state, caller, (offset, data), how);
                    taken.through = !(may_keep || recalled && how.from_pages);
                    if !how.direct {
                        // Counted from the arrival: it may have waited here for long, for the lease.
                        taken.overtaken = state
                            .lease
                            .dropped
                            .is_some_and(|at| arrived.saturating_duration_since(at) < ON_THE_WAY_MAX);
                        state.lease.busy += 1;
                        state.lease.is_filled = true;
                        drop(state);
                        taken.busy = Some(Busy::new(file, offset..offset + data.len() as u64));
                    }
                    return Ok(taken);
                } else if recalled && !must_not_wait {
                    Next::Wait(file.moved.listen())
                } else {
                    // Also during a recall, when nothing is known after the one before: it tells what the file is.
                    Next::Acquire
                }
            };
            match next {
                Next::Disarm => {
                    self.disarm(file, cancel).await?;
                    is_disarmed = true;
                }
                Next::Wait(moved) => or_cancel(moved, cancel).await?,
                Next::Acquire if self.acquire(file, cancel).await? => {}
                Next::Acquire => {
                    refused = true;
                    if how.direct {
                        pause = (pause + Duration::from_millis(1)).min(ASK_PAUSE_MAX);
                        or_cancel(timer::sleep(pause), cancel).await?;
                    }
                }
            }
        }
    }

    /// Takes off the capabilities that a program has, for it is about to become another.
    async fn disarm(&self, file: &File, cancel: Option<&Cancel>) -> Result<(), Errno> {
        let request = Request::RemoveXattr { node: file.node, name: CAPABILITY.to_vec() };
        match self.call(NOBODY, request, file, cancel).await {
            Ok(_) | Err(Errno::ENODATA) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    fn copy_in<'a>(
        &self,
        state: &mut State,
        caller: Caller,
        (offset, data): (u64, &[u8]),
        how: WriteMode,
    ) -> Taken<'a> {
        state.written = Some(self.write_time(state));
        state.writer = Some(caller);
        state.kill_privileges |= how.kill_privileges;
        let before = state.dirty.cost();
        let mut full = Vec::new();
        state.dirty.write(self.block_bytes, offset, data, &mut full);
        let mut after = state.dirty.cost();
        let full: Vec<u64> = full
            .into_iter()
            .map(|pieces| {
                after += pieces.iter().map(super::dirty::Piece::cost).sum::<u64>();
                state.launch(pieces, Progress::Sending)
            })
            .collect();
        state.dirty_since.get_or_insert_with(clock::now);
        state.settle();
        let list = !std::mem::replace(&mut state.listed, true);
        Taken { full, needed: after - before, list, through: false, busy: None, overtaken: false }
    }
}
