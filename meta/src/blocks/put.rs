//! Storing a block: checked, written beside its place, synced, renamed, folder synced; then answered.

use std::io;
use std::path::Path;

use flexfs_wire::block::Index;
use flexfs_wire::errno::Errno;
use flexfs_wire::id::BlockId;
use flexfs_wire::message::Reply;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::Task;
use super::path;
use crate::net::front::{self, File};
use crate::volume::{PutRight, ToVolume};

/// Serves `PutBlock`.
pub(crate) async fn put(task: Task, block: BlockId, payload: Vec<u8>, room: Vec<OwnedSemaphorePermit>) {
    let bytes = payload.len() as u64;
    let result = store(&task, block, payload).await;
    if result.is_ok() {
        task.core.metrics.block_bytes_in.increment(bytes);
    }
    drop(room);
    task.answer(result.map(|()| Reply::Done), Vec::new(), Vec::new());
}

async fn store(task: &Task, block: BlockId, payload: Vec<u8>) -> Result<(), Errno> {
    match Index::parse(&payload) {
        Ok(index) if index.stored_bytes() as usize == payload.len() => {}
        Ok(_) | Err(_) => {
            tracing::warn!(
                session = %task.session.info.id, %block, bytes = payload.len(), "refused: these bytes are no block"
            );
            return Err(Errno::EINVAL);
        }
    }
    let (answer, wait) = oneshot::channel();
    let volume = &task.session.volume;
    volume.send(ToVolume::PutRight { session: task.session.info.id, block, answer });
    match wait.await {
        Ok(Ok(PutRight::Write)) => {}
        Ok(Ok(PutRight::Stored)) => return Ok(()),
        Ok(Err(errno)) => return Err(errno),
        Err(_) => return Err(Errno::EIO), // The volume is being closed.
    }
    let written = write(task, &volume.blocks, block, payload).await;
    volume.send(ToVolume::PutDone { block, stored: written.is_ok() });
    written.map_err(|error| {
        let file = path::file(&volume.blocks, block);
        tracing::error!(%block, file = %file.display(), %error, "a block could not be stored");
        errno_of(&error)
    })
}

async fn write(task: &Task, blocks: &Path, block: BlockId, payload: Vec<u8>) -> io::Result<()> {
    let (folder, file, fresh) =
        (path::folder(blocks, block), path::file(blocks, block), path::fresh(blocks, block));
    if front::exists(&file).await? {
        return Ok(()); // Stored by an earlier try; the first bytes stay.
    }
    let folders = task.core.blocks.folders();
    let opened = match File::create_new(&fresh).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            folders.make(&folder).await?;
            File::create_new(&fresh).await
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Left by a server that died; nobody else writes this block (`ToVolume::PutRight`).
            front::remove(&fresh).await?;
            File::create_new(&fresh).await
        }
        other => other,
    }?;
    let written = fill(opened, payload).await;
    if let Err(error) = written {
        // Best effort: what failed is reported, and the sweep removes what is left.
        let _ = front::remove(&fresh).await;
        return Err(error);
    }
    front::rename(&fresh, &file).await?;
    folders.sync(&folder).await
}

async fn fill(file: File, payload: Vec<u8>) -> io::Result<()> {
    file.write_all(payload).await?;
    file.sync_data().await?;
    file.close().await
}

fn errno_of(error: &io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Errno::ENOSPC,
        _ => Errno::EIO,
    }
}
