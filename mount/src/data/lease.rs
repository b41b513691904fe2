//! Leases of files: getting them before bytes are read or written, and giving them back.
//!
//! The order of a recall that leaves nothing: unwritten bytes go to the server; the kernel drops its pages; whatever got
//! into them meanwhile is dropped too, with new reads held back; then the lease is gone, and the recall may be answered.
//! Reads and writes under way never wait for a recall (the kernel holds pages locked for them, which the recall needs):
//! until it is answered the lease stands. What is written meanwhile goes to the server before the writer is answered.
//! Pages that a held back read is to fill are not in the kernel's cache, or it would not ask for them: what got into them
//! before need not be dropped again, and readers without end cannot keep a recall from ending.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use event_listener::Listener as _;
use flexfs_uring::{clock, timer};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::lease::Leases;
use flexfs_wire::message::Request;
use flexfs_wire::seal::Node;

use super::core::{Core, NOBODY, attr_of};
use super::file::{File, Recalling, State};
use super::files::ReadMode;
use super::server::Server;
use crate::cancel::{Cancel, or_cancel};
use crate::lease::{ASK_PAUSE, ASKS_MAX};

/// Bytes of a page of the kernel, which it reads and keeps whole.
const PAGE_BYTES: u64 = 4096;

/// A read that is held back until a recall has ended, with what it fills of the kernel's pages.
struct Held<'a> {
    file: &'a File,
    range: Range<u64>,
}

impl<'a> Held<'a> {
    /// Notes one, under the state's lock.
    fn new(file: &'a File, state: &mut State, range: Range<u64>) -> Self {
        state.lease.held.push(range.clone());
        Self { file, range }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut state = self.file.state();
        if let Some(at) = state.lease.held.iter().position(|range| *range == self.range) {
            state.lease.held.swap_remove(at);
        }
    }
}

/// A read or write that the kernel may keep pages of. Ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Busy<'a> {
    file: &'a File,
    range: Range<u64>,
}

impl<'a> Busy<'a> {
    /// One that was counted under the state's lock.
    pub(crate) fn new(file: &'a File, range: Range<u64>) -> Self {
        Self { file, range }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut state = self.file.state();
        state.lease.busy -= 1;
        if state.lease.recall != Recalling::No {
            let range = self.range.clone();
            state.lease.tainted.push(range);
            drop(state);
            self.file.moved.notify(usize::MAX);
        }
    }
}

impl<S: Server> Core<S> {
    /// Begins a read: what is known of the file is true now, and stays true until the value is dropped, or somebody
    /// waits for the recall, as long as this life of the leases lasts. `false`: it was true now, and no lease holds it.
    pub(crate) async fn begin_read<'a>(
        &self,
        file: &'a File,
        range: Range<u64>,
        how: ReadMode,
        cancel: Option<&Cancel>,
    ) -> Result<(Busy<'a>, u64, bool), Errno> {
        let mut asks = 0;
        loop {
            let shut = {
                let mut state = file.state();
                match state.lease.recall {
                    Recalling::Shut => {
                        let fills = if how.direct { 0..0 } else { range.clone() };
                        Some((file.moved.listen(), Held::new(file, &mut state, fills)))
                    }
                    Recalling::No | Recalling::Open => {
                        let life = self.server.recalls().life();
                        let held = state.lease.holds(life);
                        // The server grants nothing while it waits for a recall's end, which may wait for this read.
                        let enough = if state.lease.recall == Recalling::Open { 1 } else { ASKS_MAX };
                        if state.known.is_some() && (held || asks >= enough) {
                            state.lease.busy += 1;
                            state.lease.is_filled |= !how.direct;
                            return Ok((Busy { file, range }, life, held));
                        }
                        None
                    }
                }
            };
            match shut {
                Some((moved, _held)) => or_cancel(moved, cancel).await?,
                None => {
                    if asks > 0 {
                        or_cancel(timer::sleep(ASK_PAUSE * asks), cancel).await?;
                    }
                    asks += 1;
                    let request = Request::GetAttr { node: file.node };
                    let attr = attr_of(self.call(NOBODY, request, file, cancel).await?)?;
                    file.state().learn(&attr, self.server.recalls().life());
                }
            }
        }
    }

    /// Makes sure that what is known is true now.
    pub(crate) async fn know(&self, file: &File, cancel: Option<&Cancel>) -> Result<(), Errno> {
        self.begin_read(file, 0..0, ReadMode { direct: true }, cancel).await.map(|_| ())
    }

    /// Asks for the exclusive lease. False: it was not granted, this client is asked to give the file back itself.
    pub(crate) async fn acquire(&self, file: &File, cancel: Option<&Cancel>) -> Result<bool, Errno> {
        let request = Request::Acquire { node: file.node };
        let attr = attr_of(self.call(NOBODY, request, file, cancel).await?)?;
        let mut state = file.state();
        state.learn(&attr, self.server.recalls().life());
        Ok(state.lease.is_exclusive(self.server.recalls().life()))
    }

    /// Before bytes go out that were written under leases which are void since: if somebody else has changed the file
    /// meanwhile, they are lost. Writes of this client that the server had applied count as somebody else's when their
    /// answers were lost as well: what became of the file is then not known.
    pub(crate) async fn prove(&self, file: &File) {
        let life = self.server.recalls().life();
        let (needed, version) = {
            let state = file.state();
            (!state.is_clean() && state.written_in != life, state.version())
        };
        if !needed {
            return;
        }
        // Not behind a change of attributes that is on its way: it waits for what is proved here.
        let request = Request::GetAttr { node: file.node };
        match self.server.call_past(NOBODY, request, None).await.and_then(attr_of) {
            Ok(attr) if attr.version > version => {
                file.state().learn(&attr, self.server.recalls().life());
                self.lose_all(file);
            }
            // The inode is gone, or will be asked for again: its writes fail by themselves.
            Ok(_) | Err(_) => file.state().written_in = life,
        }
    }

    fn lose_all(&self, file: &File) {
        tracing::error!(
            ino = file.node.ino.0,
            "this client was cut off for longer than its lease, and another has changed the file since: what was \
             written here and not stored is lost, and its programs get EIO"
        );
        let freed = {
            let mut state = file.state();
            let before = state.dirty.cost();
            state.dirty.cut(self.block_bytes, 0);
            let freed = before - state.dirty.cost();
            state.note_loss(Errno::EIO);
            state.write_error = Some(Errno::EIO);
            state.settle();
            freed
        };
        self.budget.give(freed);
        self.lose(file, Errno::EIO, |_| true);
    }

    // ---- recalls

    /// A recall that leaves a shared lease: what is written from now on goes to the server at once.
    pub(crate) async fn recall_shared(self: &Arc<Self>, file: &Arc<File>) {
        file.state().lease.share();
        self.clean_recalled(file).await;
    }

    /// First step of a recall that leaves nothing: unwritten bytes go to the server.
    pub(crate) async fn recall_begin(self: &Arc<Self>, file: &Arc<File>) {
        loop {
            let ended = {
                let mut state = file.state();
                if state.lease.recall == Recalling::No {
                    state.lease.recall = Recalling::Open;
                    state.lease.tainted.clear();
                    break;
                }
                // One after the other: of a session that was lost one may go on when the next session's comes, and its end would let in
                // the reads that this one holds back.
                file.moved.listen()
            };
            ended.await;
        }
        self.clean_recalled(file).await;
    }

    /// What the kernel may have got since and still have; new reads wait from here on. Blocks until those under way have
    /// ended.
    pub(crate) fn recall_shut(file: &File, within: Duration) -> Vec<Range<u64>> {
        let deadline = clock::now() + within;
        loop {
            let moved = file.moved.listen();
            if let Some(tainted) = Self::recall_try_shut(file) {
                return tainted;
            }
            let left = clock::until(deadline);
            if left.is_zero() || moved.wait_timeout(left).is_none() {
                return take_tainted(&mut file.state());
            }
        }
    }

    /// As `recall_shut`, but does not block: `None` while reads and writes are under way.
    pub(crate) fn recall_try_shut(file: &File) -> Option<Vec<Range<u64>>> {
        let mut state = file.state();
        state.lease.recall = Recalling::Shut;
        (state.lease.busy == 0).then(|| take_tainted(&mut state))
    }

    /// Whether the kernel has nothing of these ranges any more, because reads are held back that it asks them with.
    pub(crate) fn are_held(file: &File, ranges: &[Range<u64>]) -> bool {
        let state = file.state();
        state.lease.recall == Recalling::Shut
            && ranges.iter().all(|range| is_covered(range, &state.lease.held))
    }

    /// Lets reads go on that the kernel's answer depends on.
    pub(crate) fn recall_open(file: &File) {
        file.state().lease.recall = Recalling::Open;
        file.moved.notify(usize::MAX);
    }

    /// Last step. What mapped pages brought since goes to the server; then nothing is left.
    pub(crate) async fn recall_end(self: &Arc<Self>, file: &Arc<File>) {
        self.clean_recalled(file).await;
        {
            let mut state = file.state();
            state.lease.recall = Recalling::No;
            state.lease.drop_all();
            state.lease.tainted.clear();
            state.note_dropped();
            // Whoever changes the file now makes another version of it. That is no news then: the kernel has dropped
            // what it had, and to tell it once more would void the very attributes it is about to ask for.
            state.map = None;
            // A read that goes on all the same would take the file for empty.
            if state.is_clean() && state.lease.busy == 0 {
                state.known = None;
            }
        }
        self.weigh_layout(file);
        file.moved.notify(usize::MAX);
    }

    async fn clean_recalled(self: &Arc<Self>, file: &Arc<File>) {
        // Without a cancellation it cannot end early; errors are kept for the file's programs.
        let _ = self.clean(file, None).await;
    }

    /// Files with bytes that are not at the server, for a server that restarted: it knows of no exclusive lease but theirs. Those of
    /// other files end here: what was written from now on to one of them would be of no file that the server was told of.
    pub(crate) fn declare_dirty(&self) -> Vec<Node> {
        let mut nodes = Vec::new();
        self.each_file(|file| {
            let mut state = file.state();
            if state.is_clean() {
                state.lease.share();
            } else {
                nodes.push(file.node);
            }
        });
        nodes
    }

    /// Whether attributes of the inode that came with `leases` may be kept: not while this client changes them itself.
    pub(crate) fn may_keep(&self, ino: Ino, leases: Leases) -> bool {
        leases.has(Leases::ATTR) && self.find(ino).is_none_or(|file| file.state().is_clean())
    }
}

fn take_tainted(state: &mut State) -> Vec<Range<u64>> {
    let mut tainted = std::mem::take(&mut state.lease.tainted);
    tainted.retain(|range| !is_covered(range, &state.lease.held));
    tainted
}

/// Whether each page of `range` is in one of the `others`.
fn is_covered(range: &Range<u64>, others: &[Range<u64>]) -> bool {
    let end = range.end.next_multiple_of(PAGE_BYTES);
    let mut at = range.start - range.start % PAGE_BYTES;
    while at < end {
        // A read ends within a page only where the file did.
        let further = others
            .iter()
            .filter(|other| other.start <= at)
            .map(|other| other.end.next_multiple_of(PAGE_BYTES))
            .max()
            .unwrap_or(0);
        if further <= at {
            return false;
        }
        at = further;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_covered_whole() {
        let held = [4096..8192, 0..4096, 12_288..16_000];
        for (range, covered) in [
            (0..8192, true),
            (4000..4100, true),
            (8191..8192, true),
            (8191..8193, false),
            (12_300..12_301, true),
            (15_999..16_384, true),
            (16_384..16_385, false),
            (0..16_384, false),
        ] {
            assert_eq!(is_covered(&range, &held), covered, "{range:?}");
        }
        assert!(!is_covered(&(0..1), &[]));
        assert!(!is_covered(&(0..1), &[0..0, 1..1]));
    }
}
