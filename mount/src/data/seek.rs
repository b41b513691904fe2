//! `lseek(2)` with `SEEK_DATA` and `SEEK_HOLE`: what is only here counts as data, allocated zeros as a hole.

use std::ops::Range;
use std::sync::Arc;

use flexfs_wire::errno::Errno;

use super::core::Core;
use super::file::{File, State};
use super::server::Server;
use crate::cancel::Cancel;

/// One look at what is known.
enum Look {
    /// The next data.
    Data(Range<u64>),
    /// None up to here; the layout is not known from here on.
    Unknown(u64),
    /// None.
    End,
}

impl<S: Server> Core<S> {
    /// The next data, or hole, from `offset` on. `ENXIO` when `offset` is not within the file, or no data follows.
    pub(crate) async fn seek(
        self: &Arc<Self>,
        file: &Arc<File>,
        offset: u64,
        hole: bool,
        cancel: Option<&Cancel>,
    ) -> Result<u64, Errno> {
        self.know(file, cancel).await?;
        if offset >= file.state().size() {
            return Err(Errno::ENXIO);
        }
        let mut at = offset;
        let mut tries = 0;
        loop {
            let look = look(&file.state(), self.block_bytes, at);
            match look {
                Look::Data(data) if !hole => return Ok(data.start),
                Look::Data(data) if data.start > at => return Ok(at),
                Look::Data(data) => at = data.end,
                Look::Unknown(from) if hole && from > at => return Ok(at),
                Look::Unknown(from) => {
                    // Each part of a long way gets its own tries.
                    tries = if from > at { 0 } else { tries + 1 };
                    at = from;
                    self.try_layout(file, at, tries, cancel).await?;
                }
                Look::End if !hole => return Err(Errno::ENXIO),
                Look::End => break,
            }
            if at >= file.state().size() {
                break;
            }
        }
        // The end of the file is a hole.
        if hole { Ok(at.min(file.state().size())) } else { Err(Errno::ENXIO) }
    }
}

fn look(state: &State, block_bytes: u32, at: u64) -> Look {
    let size = state.size();
    if at >= size {
        return Look::End;
    }
    let held = state
        .flights
        .iter()
        .filter_map(|flight| super::dirty::next_piece(&flight.batch.pieces, at))
        .chain(state.dirty.next(block_bytes, at))
        .min_by_key(|range| range.start);
    let stored = match state.map() {
        Some(map) => map.next_data(at).map_err(|end| (end < size).then_some(end)),
        None => Err(Some(at)),
    };
    // Data at the server may be cut by a size that is known here only.
    let stored = stored.map(|range| range.start..range.end.min(size));
    match (held, stored) {
        (Some(held), Ok(stored)) if held.start <= stored.start => Look::Data(held),
        (_, Ok(stored)) if stored.start < size => Look::Data(stored),
        (Some(held), Err(Some(end))) if held.start <= end => Look::Data(held),
        (_, Err(Some(end))) => Look::Unknown(end),
        (Some(held), _) => Look::Data(held),
        (None, _) => Look::End,
    }
}
