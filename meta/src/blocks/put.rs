//! Storing a block: checked, written beside its place, renamed, file and folder synced at once; then answered.
//!
//! The name comes before the sync: both syncs then wait for one commit of the disk's file system, and not one after the other for
//! two, which was half of the time an `fsync(2)` of a few bytes took. So a crash may leave a block in its place that is not whole. It was
//! never answered, and no file refers to it: it goes with its session, or is written anew when the session stores it again.

use std::io;
use std::path::Path;

use flexfs_wire::block::{HEAD_BYTES_MAX, Index, check_stored};
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
    volume.call(ToVolume::PutRight { session: session.info.id, block, bytes: payload.len() as u64, answer });
    match wait.await {
        Ok(Ok(PutRight::Write)) => {}
        Ok(Ok(PutRight::Stored)) => return Ok(()),
        Ok(Err(errno)) => return Err(errno.into()),
        Err(_) => return Err(Unserved::VolumeEnded),
    }
    let written = write(store, &volume.blocks, block, payload).await;
    volume.call(ToVolume::PutDone { block, stored: written.is_ok() });
    written.map_err(|error| {
        let file = path::file(&volume.blocks, block);
        tracing::error!(%block, file = %file.display(), %error, "a block could not be stored");
        errno_of(&error).into()
    })
}

async fn write(store: &Store, blocks: &Path, block: BlockId, payload: Payload) -> io::Result<()> {
    let (folder, file) = (path::folder(blocks, block), path::file(blocks, block));
    let folders = store.folders();
    if front::exists(&file).await? {
        let opened = File::open(&file).await?;
        if is_whole(&opened).await? {
            // By an earlier try, which may have died before it synced; the first bytes stay.
            opened.sync_data().await?;
            opened.close().await?;
            return folders.sync(&folder).await;
        }
    }
    let stored = place(store, blocks, block, payload).await?;
    let (bytes, name) = tokio::join!(stored.sync_data(), folders.sync(&folder));
    if let Err(error) = bytes.and(name) {
        // Not to be taken for stored by the next try: what a failed sync dropped would not be missed by a second one.
        let _ = front::remove(&file).await;
        return Err(error);
    }
    // It closes itself: after a sync there is nothing that could fail.
    Ok(())
}

/// Puts a block in its place; it is not synced.
async fn place(store: &Store, blocks: &Path, block: BlockId, payload: Payload) -> io::Result<File> {
    let (folder, file, fresh) =
        (path::folder(blocks, block), path::file(blocks, block), path::fresh(blocks, block));
    let direct = payload.len() >= DIRECT_BYTES_MIN && store.writes_directly();
    let opened = match create(store, &fresh, direct).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            store.folders().make(&folder).await?;
            create(store, &fresh, direct).await
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Left by a server that died; nobody else writes this block (`ToVolume::PutRight`).
            front::remove(&fresh).await?;
            create(store, &fresh, direct).await
        }
        other => other,
    }?;
    let (written, buffer) = opened.write_all(payload).await;
    store.give_spare(buffer);
    let stored = match written {
        Ok(()) => front::rename(&fresh, &file).await,
        Err(error) => Err(error),
    };
    if let Err(error) = stored {
        // Best effort: what failed is reported, and the sweep removes what is left.
        let _ = front::remove(&fresh).await;
        return Err(error);
    }
    Ok(opened)
}

/// Whether the file has all that a block says of itself. Segment by segment: it takes no room but what one of them does.
async fn is_whole(file: &File) -> io::Result<bool> {
    let Ok(index) = Index::parse(&file.read_head(HEAD_BYTES_MAX).await?) else { return Ok(false) };
    let mut offset = index.head_bytes() as u64;
    for segment in index.segments() {
        match file.read_exact(segment.stored_bytes as usize, offset).await {
            Ok(stored) if check_stored(segment, &stored).is_ok() => {}
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
            Ok(_) | Err(_) => return Ok(false),
        }
        offset += u64::from(segment.stored_bytes);
    }
    Ok(true)
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

fn errno_of(error: &io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Errno::ENOSPC,
        _ => Errno::EIO,
    }
}
