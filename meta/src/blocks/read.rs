//! Reading segments of a block: stored bytes go from the file into the buffer that is sealed and sent.

use std::io;

use flexfs_wire::errno::Errno;
use flexfs_wire::id::{BlockId, Ino};
use flexfs_wire::message::{Reply, Segment};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::Task;
use super::path;
use crate::session::clock;
use crate::volume::ToVolume;

/// What is to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) ino: Ino,
    pub(crate) block: BlockId,
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// Serves `ReadBlock`.
pub(crate) async fn read(task: Task, wanted: Wanted) {
    match fetch(&task, wanted).await {
        Ok((segments, payload, room)) => {
            task.core.metrics.block_bytes_out.increment(payload.len() as u64);
            task.answer(Ok(Reply::Segments(segments)), payload, room);
        }
        Err(errno) => task.answer(Err(errno), Vec::new(), Vec::new()),
    }
}

type Fetched = (Vec<Segment>, Vec<u8>, Vec<OwnedSemaphorePermit>);

async fn fetch(task: &Task, wanted: Wanted) -> Result<Fetched, Errno> {
    let Wanted { ino, block, first, count } = wanted;
    let (answer, wait) = oneshot::channel();
    let volume = &task.session.volume;
    volume.send(ToVolume::ReadRight { session: task.session.info.id, ino, block, answer });
    // No answer: the volume is being closed.
    wait.await.map_err(|_| Errno::EIO)??;
    let failed = |error: io::Error| {
        let file = path::file(&volume.blocks, block);
        tracing::error!(%block, %ino, file = %file.display(), %error, "a block cannot be read");
        match error.kind() {
            io::ErrorKind::NotFound => Errno::ENOENT,
            _ => Errno::EIO,
        }
    };
    let opened = task.core.blocks.open(&volume.blocks, block, clock::now()).await.map_err(failed)?;
    let segments = opened.index.select(first, count).map_err(|_| Errno::EINVAL)?.to_vec();
    let range = opened.index.stored_range(first, count).map_err(|_| Errno::EINVAL)?;
    // Held until the bytes are sealed: a slow reader holds its own share, not the core's memory.
    let room = task.core.block_room(&task.link, range.len()).await;
    let payload = opened.file.read_exact(range.len(), range.start as u64).await.map_err(failed)?;
    Ok((segments, payload, room))
}
