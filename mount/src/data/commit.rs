//! Stored flights become part of the file at the server, in the order of their numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use flexfs_wire::errno::Errno;
use flexfs_wire::extent::{Extent, NewBlock};
use flexfs_wire::id::BlockId;
use flexfs_wire::limits::EXTENTS_PER_WRITE_MAX;
use flexfs_wire::message::{Caller, Carried, Request, Write};
use flexfs_wire::time::Time;

use super::core::{Core, attr_of};
use super::file::{File, Flight, Progress, State};
use super::layout::insert;
use super::pack;
use super::promise::Promise;
use super::server::Server;

/// Times a flight is begun anew because its session was lost.
const AGAIN_MAX: u32 = 2;

/// Flights that go into one `Write`.
struct Bundle {
    /// Number of the last of them.
    last: u64,
    extents: BTreeMap<u64, Extent>,
    blocks: Vec<NewBlock>,
    writer: Caller,
    time: Option<Time>,
    kill_privileges: bool,
    /// The one block that is not at the server yet.
    carried: Option<(BlockId, Arc<Vec<u8>>)>,
    awaited: bool,
}

impl<S: Server> Core<S> {
    /// Commits what is stored, after a block was stored in the background.
    pub(crate) async fn commit_stored(&self, file: &Arc<File>) {
        let _order = file.order.lock().await;
        while self.commit_next(file).await {}
    }

    /// Commits the flights that are stored up to the first that is not. False when there is none. The caller
    /// holds the file's order.
    pub(crate) async fn commit_next(&self, file: &Arc<File>) -> bool {
        let Some(bundle) = gather(&mut file.state()) else { return false };
        let last = bundle.last;
        let write = Write {
            inline: None,
            extents: bundle.extents.values().copied().collect(),
            blocks: bundle.blocks,
            kill_privileges: bundle.kill_privileges,
            time: bundle.time,
            promised: false,
            carried: bundle.carried.map(|(block, bytes)| Carried { block, bytes: bytes.to_vec() }),
            awaited: bundle.awaited,
        };
        let request = Request::Write { node: file.node, write };
        let change = file.begin_change();
        let result = self.call(bundle.writer, request, file, None).await.and_then(attr_of);
        match result {
            Ok(attr) => {
                let freed = {
                    let mut state = file.state();
                    self.note_answer(&mut state);
                    if state.learn_own(&attr, true)
                        && let Some(map) = &mut state.map
                    {
                        map.apply_extents(attr.version, &bundle.extents);
                    }
                    state.land(|flight| flight.number <= last)
                };
                self.budget.give(freed);
                self.weigh_layout(file);
            }
            // The session was lost, and the blocks' numbers with it (EINVAL: a number of an older session), or a
            // block is being deleted (EAGAIN). Written once more in other blocks, the outcome is the same.
            Err(Errno::ESTALE | Errno::EINVAL | Errno::EAGAIN) if restart(&mut file.state(), last) => {}
            Err(errno) => self.lose(file, errno, |flight| flight.number <= last),
        }
        drop(change);
        file.moved.notify(usize::MAX);
        true
    }

    /// Sends the first flight's bytes inline. `EAGAIN`: they must become a block. The caller holds the file's order.
    pub(crate) async fn commit_inline(&self, file: &Arc<File>, number: u64) -> Result<(), Errno> {
        let Some(batch) = file.state().flight(number).map(|flight| Arc::clone(&flight.batch)) else {
            return Ok(());
        };
        let (promised, awaited) = {
            let state = file.state();
            (state.promised == Some(Promise::Small), state.awaited > 0)
        };
        let change = file.begin_change();
        for inline in pack::runs(&batch.pieces) {
            let write = Write {
                inline: Some(inline.clone()),
                kill_privileges: batch.kill_privileges,
                time: batch.time,
                promised,
                awaited,
                ..Write::default()
            };
            let request = Request::Write { node: file.node, write };
            let attr = self.call(batch.writer, request, file, None).await.and_then(attr_of)?;
            let mut state = file.state();
            self.note_answer(&mut state);
            if state.learn_own(&attr, true)
                && let Some(map) = &mut state.map
            {
                map.apply_inline(attr.version, inline.offset, &inline.bytes);
            }
        }
        let freed = file.state().land(|flight| flight.number == number);
        drop(change);
        self.budget.give(freed);
        self.weigh_layout(file);
        file.moved.notify(usize::MAX);
        Ok(())
    }

    /// Drops flights that cannot be stored; says so once here, to the next write and to the next flush.
    pub(crate) fn lose(&self, file: &File, errno: Errno, lost: impl Fn(&Flight) -> bool) {
        let errno = match errno {
            // What a writer knows how to treat; everything else is a failed device to him.
            Errno::ENOSPC | Errno::EDQUOT | Errno::EROFS | Errno::EACCES | Errno::EFBIG => errno,
            other => {
                tracing::debug!(ino = file.node.ino.0, error = %other, "writing back answers EIO for this");
                Errno::EIO
            }
        };
        let mut state = file.state();
        let (start, end) =
            state.flights.iter().filter(|flight| lost(flight)).fold((u64::MAX, 0), |(start, end), flight| {
                (start.min(flight.batch.start()), end.max(flight.batch.end()))
            });
        let freed = state.land(lost);
        // Once until a program was told, and once for all when nothing will be stored any more: one line for each block of a
        // big file would hide the rest.
        let is_told = state.flush_error.is_some() || state.is_refused;
        state.is_refused = errno == Errno::EACCES;
        state.note_loss(errno);
        state.write_error = Some(errno);
        // What the server made of it is not known.
        state.map = None;
        self.end_promise(&mut state);
        drop(state);
        if is_told {
            tracing::debug!(ino = file.node.ino.0, start, end, error = %errno, "more of this inode is lost");
        } else {
            tracing::error!(
                ino = file.node.ino.0, start, end, error = %errno,
                "written data could not be stored and is lost: bytes start..end of this inode, and what it has not stored \
                 beyond; its programs are told at their next write, fsync or close. Check the token, the volume's quota and \
                 the metadata server's log"
            );
        }
        self.counters.count_error();
        self.budget.give(freed);
        file.moved.notify(usize::MAX);
    }
}

/// The stored flights at the head, as many as fit into one message. One of them may have its block carried.
fn gather(state: &mut State) -> Option<Bundle> {
    let mut bundle: Option<Bundle> = None;
    let mut count = 0;
    for flight in &state.flights {
        let Progress::Stored(block) = flight.progress else { break };
        if flight.carry.is_some() && bundle.as_ref().is_some_and(|bundle| bundle.carried.is_some()) {
            break;
        }
        let extents = pack::extents(&flight.batch.pieces, block.block);
        // Each extent put over others may cut one of them in two.
        count += 2 * extents.len();
        if bundle.is_some() && count > EXTENTS_PER_WRITE_MAX {
            break;
        }
        let bundle = bundle.get_or_insert_with(|| Bundle {
            last: 0,
            extents: BTreeMap::new(),
            blocks: Vec::new(),
            writer: flight.batch.writer,
            time: None,
            kill_privileges: false,
            carried: None,
            awaited: state.awaited > 0,
        });
        if let Some(carry) = &flight.carry {
            bundle.carried = Some((block.block, Arc::clone(&carry.bytes)));
        }
        bundle.last = flight.number;
        bundle.writer = flight.batch.writer;
        bundle.time = bundle.time.max(flight.batch.time);
        bundle.kill_privileges |= flight.batch.kill_privileges;
        bundle.blocks.push(block);
        for extent in extents {
            insert(&mut bundle.extents, extent);
        }
    }
    // A block written all over by later flights is named, too: the server takes it for garbage, and not for one that is still wanted.
    // One that is not there yet need not come.
    if let Some(bundle) = &mut bundle
        && let Some((block, _)) = bundle.carried
        && bundle.extents.values().all(|extent| extent.block != block)
    {
        bundle.carried = None;
        bundle.blocks.retain(|new| new.block != block);
    }
    bundle
}

/// Lets flights be stored anew. False when that was tried often enough.
fn restart(state: &mut State, last: u64) -> bool {
    let mut flights = state.flights.iter_mut().filter(|flight| flight.number <= last);
    if flights.any(|flight| flight.again >= AGAIN_MAX) {
        return false;
    }
    for flight in state.flights.iter_mut().filter(|flight| flight.number <= last) {
        flight.again += 1;
        flight.progress = Progress::Waiting;
        flight.carry = None;
    }
    true
}
