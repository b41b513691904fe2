//! Flights become blocks in the store.

use std::sync::Arc;

use flexfs_wire::errno::Errno;
use flexfs_wire::extent::NewBlock;
use flexfs_wire::limits::CARRIED_BYTES_MAX;

use super::core::Core;
use super::file::{Batch, Carry, File, Progress};
use super::pack;
use super::server::Server;

/// Raw bytes of a block from which on its work is spread over shards: a tenth of a millisecond and more.
const SPREAD_BYTES_MIN: usize = 256 << 10;
/// Times a block is sent anew under another number because the session that owned its number was lost.
const NUMBERS_MAX: u32 = 3;

impl<S: Server> Core<S> {
    /// Encodes and stores a flight in the background, then commits what can be committed.
    pub(crate) fn spawn_put(self: &Arc<Self>, file: &Arc<File>, number: u64) {
        let Some(batch) = file.state().flight(number).map(|flight| Arc::clone(&flight.batch)) else { return };
        let (core, file) = (Arc::clone(self), Arc::clone(file));
        let is_large = pack::raw_bytes(&batch.pieces) >= SPREAD_BYTES_MIN;
        let sending =
            Sending { file: Arc::clone(&file), number, progress: Some(Progress::Waiting), carry: None };
        let work = move || async move {
            core.put(sending, &batch).await;
            drop(batch);
            core.commit_stored(&file).await;
            core.release(file);
        };
        if is_large {
            self.spread.spawn(work);
        } else {
            drop(flexfs_uring::spawn(work()));
        }
    }

    async fn put(&self, mut sending: Sending, batch: &Batch) {
        let (file, number) = (Arc::clone(&sending.file), sending.number);
        let permit = self.puts.acquire().await;
        let stored = self.store(batch).await;
        drop(permit);
        match stored {
            Ok((block, carry)) => {
                sending.progress = Some(Progress::Stored(block));
                sending.carry = carry;
            }
            Err(errno) => {
                sending.progress = None;
                self.lose(&file, errno, |flight| flight.number == number);
            }
        }
    }

    /// Encodes a flight, and stores it unless it is so small that it goes along with its `Write`.
    async fn store(&self, batch: &Batch) -> Result<(NewBlock, Option<Carry>), Errno> {
        let mut tries = 0;
        loop {
            tries += 1;
            let block = self.server.next_block().await?;
            let cipher = self.cipher.as_ref().map(|cipher| cipher.block(block));
            let encoded = pack::encode(&batch.pieces, self.compression, cipher).await.map_err(|error| {
                tracing::error!(%error, "a block could not be encoded: this is a fault of this program");
                Errno::EIO
            })?;
            let raw_bytes = u32::try_from(pack::raw_bytes(&batch.pieces)).map_err(|_| Errno::EIO)?;
            let stored_bytes = u32::try_from(encoded.len()).map_err(|_| Errno::EIO)?;
            let new = NewBlock { block, raw_bytes, stored_bytes };
            if encoded.len() <= CARRIED_BYTES_MAX
                && let Some(permit) = self.carries.try_acquire_arc()
            {
                return Ok((new, Some(Carry::new(encoded, permit))));
            }
            match self.server.put_block(block, encoded).await {
                Ok(()) => return Ok((new, None)),
                // The number went with its session; the next one is the new session's.
                Err(Errno::ESTALE) if tries < NUMBERS_MAX => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// A flight in the hands of a task. When the task ends in the middle (its shard ends), another may begin anew.
struct Sending {
    file: Arc<File>,
    number: u64,
    progress: Option<Progress>,
    carry: Option<Carry>,
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(progress) = self.progress
            && let Some(flight) = self.file.state().flight(self.number)
        {
            flight.progress = progress;
            flight.carry = self.carry.take();
        }
        self.file.moved.notify(usize::MAX);
    }
}
