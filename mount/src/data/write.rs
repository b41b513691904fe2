//! `write(2)`: bytes are copied, and sent later.

use std::sync::Arc;

use flexfs_uring::clock;
use flexfs_wire::errno::Errno;
use flexfs_wire::limits::FILE_BYTES_MAX;
use flexfs_wire::message::Caller;

use super::core::Core;
use super::file::{File, Progress};
use super::server::Server;
use crate::cancel::Cancel;

impl<S: Server> Core<S> {
    /// Takes all of `data`, or nothing. Waits while the budget is used up.
    pub(crate) async fn write(
        self: &Arc<Self>,
        caller: Caller,
        file: &Arc<File>,
        (offset, data): (u64, &[u8]),
        kill_privileges: bool,
        cancel: Option<&Cancel>,
    ) -> Result<(), Errno> {
        if data.is_empty() {
            return Ok(());
        }
        let fits = offset.checked_add(data.len() as u64).is_some_and(|end| end <= FILE_BYTES_MAX);
        if !fits {
            return Err(Errno::EFBIG);
        }
        if let Some(errno) = file.state().write_error.take() {
            return Err(errno);
        }
        self.server.check()?;
        self.know(file, cancel).await?;
        let taken = data.len() as u64;
        self.budget.take(taken, cancel, || self.relieve()).await?;
        let (full, needed, list) = {
            let mut state = file.state();
            state.written = Some(Self::write_time(&state));
            state.writer = Some(caller);
            state.kill_privileges |= kill_privileges;
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
            (full, after - before, !std::mem::replace(&mut state.listed, true))
        };
        self.budget.settle(taken, needed);
        if list {
            self.list_dirty(file);
        }
        for number in full {
            self.spawn_put(file, number);
        }
        self.cache.fit();
        if self.budget.is_pressed() {
            self.relieve();
        }
        self.counters.count_written(data.len());
        Ok(())
    }
}
