//! Storing a block: checked, written beside its place, synced, renamed, folder synced; then answered.

use std::io;
use std::path::Path;

use flexfs_wire::block::Index;
use flexfs_wire::errno::Errno;
use flexfs_wire::id::BlockId;
use tokio::sync::oneshot;

use super::store::Store;
use super::{Unserved, path};
use crate::front::{self, File};
use crate::payload::Payload;
use crate::volume::{PutRight, Shared, ToVolume};

/// Blocks from this size on are written past the page cache: they are of large files, and seldom read again soon. Bytes.
const DIRECT_BYTES_MIN: usize = 256 << 10;

/// Stores a block for a session; done when it is on stable storage.
///
/// # Errors
/// `EINVAL`: no block, or a plain one on an encrypted volume. `EACCES`: not this session's number. `ENOSPC`, `EIO`. Or the volume has ended.
pub(crate) async fn put(
    store: &Store,
    session: &Shared,
    block: BlockId,
    payload: Payload,
) -> Result<(), Unserved> {
    match Index::parse(&payload) {
        Ok(index)
            if index.stored_bytes() as usize == payload.len()
                && index.is_encrypted() == session.info.encrypted => {}
        Ok(_) | Err(_) => {
            let bytes = payload.len();
            tracing::warn!(session = %session.info.id, %block, bytes, "refused: these bytes are no block of this volume");
            return Err(Errno::EINVAL.into());
        }
    }
    let (answer, wait) = oneshot::channel();
    let volume = &session.volume;
    volume.send(ToVolume::PutRight { session: session.info.id, block, bytes: payload.len() as u64, answer });
    match wait.await {
        Ok(Ok(PutRight::Write)) => {}
        Ok(Ok(PutRight::Stored)) => return Ok(()),
        Ok(Err(errno)) => return Err(errno.into()),
        Err(_) => return Err(Unserved::VolumeEnded),
    }
    let written = write(store, &volume.blocks, block, payload).await;
    volume.send(ToVolume::PutDone { block, stored: written.is_ok() });
    written.map_err(|error| {
        let file = path::file(&volume.blocks, block);
        tracing::error!(%block, file = %file.display(), %error, "a block could not be stored");
        errno_of(&error).into()
    })
}

async fn write(store: &Store, blocks: &Path, block: BlockId, payload: Payload) -> io::Result<()> {
    let (folder, file, fresh) =
        (path::folder(blocks, block), path::file(blocks, block), path::fresh(blocks, block));
    if front::exists(&file).await? {
        return Ok(()); // Stored by an earlier try; the first bytes stay.
    }
    let folders = store.folders();
    let direct = payload.len() >= DIRECT_BYTES_MIN && store.writes_directly();
    let opened = match create(store, &fresh, direct).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            folders.make(&folder).await?;
            create(store, &fresh, direct).await
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Left by a server that died; nobody else writes this block (`ToVolume::PutRight`).
            front::remove(&fresh).await?;
            create(store, &fresh, direct).await
        }
        other => other,
    }?;
    let written = fill(store, opened, payload).await;
    if let Err(error) = written {
        // Best effort: what failed is reported, and the sweep removes what is left.
        let _ = front::remove(&fresh).await;
        return Err(error);
    }
    front::rename(&fresh, &file).await?;
    folders.sync(&folder).await
}

/// Makes the file; past the page cache when that is wanted and the file system can.
async fn create(store: &Store, fresh: &Path, direct: bool) -> io::Result<File> {
    match File::create_new(fresh, direct).await {
        // Not on this file system, which says so when the file is made already (open(2)).
        Err(error) if direct && error.kind() == io::ErrorKind::InvalidInput => {
            store.write_through_cache();
            match front::remove(fresh).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            File::create_new(fresh, false).await
        }
        other => other,
    }
}

async fn fill(store: &Store, file: File, payload: Payload) -> io::Result<()> {
    let (written, buffer) = file.write_all(payload).await;
    store.give_spare(buffer);
    written?;
    file.sync_data().await?;
    file.close().await
}

fn errno_of(error: &io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Errno::ENOSPC,
        _ => Errno::EIO,
    }
}
