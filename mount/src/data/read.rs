//! `read(2)`.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use flexfs_wire::errno::Errno;
use flexfs_wire::extent::Layout;
use flexfs_wire::limits::SEGMENT_BYTES;
use flexfs_wire::message::{Reply, Request};

use super::core::{Core, NOBODY, unexpected};
use super::dirty::each_piece;
use super::fetch::FetchError;
use super::file::{File, State};
use super::files::{Got, ReadMode};
use super::layout::{Gaps, Map, Want};
use super::server::Server;
use crate::cancel::Cancel;
use crate::cancel::or_cancel;

/// Layout asked for at once, in bytes of file: 64 extents of a file written in blocks of 4 MiB.
const WINDOW_BYTES: u64 = 256 << 20;
/// Most bytes that are fetched without their neighbours: a quarter of a segment, which costs a third of all of it.
const ALONE_BYTES_MAX: usize = SEGMENT_BYTES as usize / 4;
/// Tries to see layout and attributes of one version before changes of this client are held back.
const FREE_TRIES: u32 = 3;
/// Tries before a file that somebody changes all the time is given up.
const TRIES_MAX: u32 = 64;

/// What a read needs next.
enum Plan {
    /// The layout from here on.
    Layout(u64),
    /// So many bytes, some of them out of blocks.
    Fetch(usize, Vec<Want>),
}

impl<S: Server> Core<S> {
    /// Fills `out` with the file from `offset` on. The number of bytes: less than `out` takes only at the end of
    /// the file.
    pub(crate) async fn read(
        self: &Arc<Self>,
        file: &Arc<File>,
        offset: u64,
        out: &mut [u8],
        how: ReadMode,
        cancel: Option<&Cancel>,
    ) -> Result<Got, Errno> {
        loop {
            let range = offset..offset + out.len() as u64;
            let (_busy, life, held) = self.begin_read(file, range, how, cancel).await?;
            let bytes = self.read_begun(file, offset, out, cancel).await?;
            if !held {
                // What it fills goes once it is there.
                file.state().note_dropped();
            }
            // All leases became void on the way: what was found may be what was before. Others that have begun to read since
            // wait for the kernel's same page.
            if self.server.recalls().life() == life {
                return Ok(Got { bytes, is_unheld: !held });
            }
        }
    }

    async fn read_begun(
        self: &Arc<Self>,
        file: &Arc<File>,
        offset: u64,
        out: &mut [u8],
        cancel: Option<&Cancel>,
    ) -> Result<usize, Errno> {
        let mut gone = None;
        let mut tries = 0;
        let mut reached = 0;
        loop {
            let plan = plan(&file.state(), self.block_bytes, offset, out);
            match plan {
                Plan::Layout(start) => {
                    // Each part of a fragmented range gets its own tries.
                    tries = if start > reached { 0 } else { tries + 1 };
                    reached = start;
                    self.try_layout(file, start, tries, cancel).await?;
                }
                Plan::Fetch(length, wants) => match self.fetch_at(file, offset, &wants, out, cancel).await {
                    Ok(is_missed) => {
                        self.counters.count_read(length);
                        self.read_ahead(file, offset, length);
                        if is_missed && length < SEGMENT_BYTES as usize {
                            self.read_around(file, offset);
                        }
                        return Ok(length);
                    }
                    // Collected after the layout was read: somebody wrote over it. Or lost: then it stays away.
                    Err(FetchError::Gone(block)) if gone != Some(block) && tries < TRIES_MAX => {
                        gone = Some(block);
                        tries += 1;
                        file.state().map = None;
                    }
                    Err(FetchError::Gone(block)) => {
                        tracing::error!(
                            ino = file.node.ino.0,
                            block = block.0,
                            offset,
                            length,
                            "the file names a block that the store does not have: this read answers EIO; \
                             run meta.flexfs verify"
                        );
                        self.counters.count_error();
                        return Err(Errno::EIO);
                    }
                    Err(FetchError::Failed(errno)) => return Err(errno),
                },
            }
        }
    }

    /// Asks for the layout from `start` on, for somebody who did so `tries` times before and did not find it in
    /// place: changes of this client alone can outrun him for ever.
    pub(crate) async fn try_layout(
        &self,
        file: &File,
        start: u64,
        tries: u32,
        cancel: Option<&Cancel>,
    ) -> Result<(), Errno> {
        if tries >= TRIES_MAX {
            tracing::error!(ino = file.node.ino.0, "given up: the file changes faster than it can be read");
            self.counters.count_error();
            return Err(Errno::EIO);
        }
        let order = if tries < FREE_TRIES { None } else { Some(or_cancel(file.order.lock(), cancel).await?) };
        let result = self.read_layout(file, start, cancel).await;
        drop(order);
        result
    }

    /// Asks the server where the bytes from `start` on are.
    async fn read_layout(&self, file: &File, start: u64, cancel: Option<&Cancel>) -> Result<(), Errno> {
        let version = file.state().version();
        let request = Request::ReadLayout { node: file.node, start, end: start.saturating_add(WINDOW_BYTES) };
        let layout = match self.call(NOBODY, request, file, cancel).await? {
            Reply::Layout(layout) => layout,
            other => return Err(unexpected(&other)),
        };
        if layout.start > start || layout.end <= start {
            tracing::error!(
                ino = file.node.ino.0,
                start,
                "the server's layout does not begin where it was asked for"
            );
            return Err(Errno::EIO);
        }
        adopt(&mut file.state(), version, layout).map_err(|error| {
            tracing::error!(ino = file.node.ino.0, %error, "the file cannot be read");
            Errno::EIO
        })?;
        self.weigh_layout(file);
        Ok(())
    }

    /// Notes where the reader is, and fetches what comes next.
    fn read_ahead(self: &Arc<Self>, file: &Arc<File>, offset: u64, length: usize) {
        let end = offset + length as u64;
        let (ahead, unknown) = {
            let mut state = file.state();
            let size = state.size();
            if offset == 0 && end >= size {
                return;
            }
            let window_max = self.window_max();
            let ahead = state.streams.get_or_insert_default().advance(offset, end, window_max);
            let Some(ahead) = ahead.filter(|ahead| self.has_room_ahead(ahead.bytes())) else { return };
            let within = |range: Range<u64>| range.start..range.end.min(size);
            let ranges = || ahead.ranges().map(within).filter(|range| !range.is_empty());
            let Some(first) = ranges().next() else { return };
            let map = state.map().filter(|map| ranges().all(|range| map.first_unknown(&range).is_none()));
            match map {
                Some(map) => (Some(ranges().flat_map(|range| map.wants(&range)).collect::<Vec<_>>()), first),
                // Of jumps the next read asks for the layout anyway.
                None if ahead.count > 1 => return,
                None => (None, first),
            }
        };
        match ahead {
            Some(wants) => self.fetch_ahead(file.node, &wants),
            None => {
                let (core, file) = (Arc::clone(self), Arc::clone(file));
                drop(flexfs_uring::spawn(async move {
                    core.read_layout_ahead(&file, unknown).await;
                    core.release(file);
                }));
            }
        }
    }

    /// Whether so many bytes may be fetched that nobody asked for yet.
    fn has_room_ahead(&self, bytes: u64) -> bool {
        self.budget.cache_max() > 2 * bytes && self.ahead.load(Ordering::Relaxed) + bytes <= self.ahead_max()
    }

    /// Fetches what a read from `offset` on wants of blocks: of a jump to where its neighbours are not likely to be wanted, the pages alone.
    async fn fetch_at(
        &self,
        file: &File,
        offset: u64,
        wants: &[Want],
        out: &mut [u8],
        cancel: Option<&Cancel>,
    ) -> Result<bool, FetchError> {
        let is_short = !wants.is_empty() && out.len() <= ALONE_BYTES_MAX;
        let alone = is_short && self.server.gives_pages() && {
            let busy = self.alone.is_busy();
            let mut state = file.state();
            let range = offset..(offset + out.len() as u64).min(state.size());
            state.streams.get_or_insert_default().is_alone(range, u64::from(self.block_bytes), busy)
        };
        self.fetch(file.node, wants, alone, out, cancel).await
    }

    /// Notes that a reader jumped to where nothing was, and fetches what is around when he does so often.
    fn read_around(self: &Arc<Self>, file: &File, offset: u64) {
        let mut state = file.state();
        let size = state.size();
        let busy = self.alone.is_busy();
        let block = state.streams.get_or_insert_default().miss(offset, u64::from(self.block_bytes), busy);
        let Some(block) = block.map(|block| block.start..block.end.min(size)) else { return };
        if block.is_empty() || !self.has_room_ahead(block.end - block.start) {
            return;
        }
        let wants =
            state.map().filter(|map| map.first_unknown(&block).is_none()).map(|map| map.wants(&block));
        drop(state);
        if let Some(wants) = wants {
            self.fetch_around(file.node, wants);
        }
    }

    async fn read_layout_ahead(self: &Arc<Self>, file: &File, ahead: Range<u64>) {
        let start = file.state().map().map_or(Some(ahead.start), |map| map.first_unknown(&ahead));
        if let Some(start) = start
            && self.read_layout(file, start, None).await.is_err()
        {
            // The reader will meet the same error and report it.
            return;
        }
        let wants =
            file.state().map().filter(|map| map.first_unknown(&ahead).is_none()).map(|map| map.wants(&ahead));
        if let Some(wants) = wants {
            self.fetch_ahead(file.node, &wants);
        }
    }
}

/// Fills `out` with what is here, at one moment: dirty bytes, flights, inline bytes, zeros.
fn plan(state: &State, block_bytes: u32, offset: u64, out: &mut [u8]) -> Plan {
    let length = usize::try_from(state.size().saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
    let out = &mut out[..length];
    let mut gaps = Gaps::new(offset..offset + length as u64);
    gaps.lay(out, |range, each| state.dirty.each_in(block_bytes, range, each));
    for flight in state.flights.iter().rev() {
        if gaps.left().is_empty() {
            break;
        }
        gaps.lay(out, |range, mut each| each_piece(&flight.batch.pieces, &range, &mut each));
    }
    let mut wants = Vec::new();
    for gap in gaps.left() {
        let Some(map) = state.map() else { return Plan::Layout(gap.start) };
        if let Some(start) = map.first_unknown(gap) {
            return Plan::Layout(start);
        }
        map.resolve(gap, offset, out, &mut wants);
    }
    Plan::Fetch(length, wants)
}

/// Takes in a layout that was asked for when `asked_at` was the version known.
pub(crate) fn adopt(state: &mut State, asked_at: u64, layout: Layout) -> Result<(), super::layout::Unsound> {
    let version = layout.version;
    let Some(known) = &mut state.known else {
        state.map = None;
        return Ok(());
    };
    if version < asked_at {
        // The server went back to what was durable before it died; changes of a client that died too are lost.
        tracing::warn!(version, asked_at, "the server knows an older version of a file than this client");
    } else if version < known.version {
        // Overtaken by a change of this client.
        return Ok(());
    }
    if version != known.version {
        known.version = version;
        state.stale_kernel = true;
        state.map = None;
    }
    match &mut state.map {
        Some(map) if map.version() == version => map.merge(layout)?,
        map => *map = Some(Box::new(Map::new(layout)?)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use flexfs_wire::attr::Attr;
    use flexfs_wire::id::Ino;
    use flexfs_wire::time::Time;

    use super::*;

    fn layout(version: u64) -> Layout {
        Layout { end: u64::MAX, version, ..Layout::default() }
    }

    /// A state that knows version 5 and its map.
    fn state() -> State {
        let known = Attr { version: 5, ..Attr::new(Ino(7), 0, Time::default()) };
        State { known: Some(known), map: Some(Box::new(Map::empty(5))), ..State::default() }
    }

    #[test]
    fn layouts_that_come_late_early_or_after_a_fall() {
        let check = |asked_at, version, expected, stale_kernel| {
            let mut state = state();
            adopt(&mut state, asked_at, layout(version)).unwrap();
            assert_eq!(state.map().map(Map::version), Some(expected), "asked at {asked_at}, got {version}");
            assert_eq!((state.version(), state.stale_kernel), (expected, stale_kernel));
        };
        check(5, 5, 5, false);
        // Overtaken by a change of this client.
        check(3, 4, 5, false);
        // Somebody changed it.
        check(5, 6, 6, true);
        // The server lost what this client knew when it asked.
        check(5, 4, 4, true);
    }
}
