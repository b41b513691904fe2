//! Reading segments of a block: stored bytes go from the file into the buffer that is sealed and sent.

use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use flexfs_wire::errno::Errno;
use flexfs_wire::id::{BlockId, Ino};
use flexfs_wire::message::Segment;
use tokio::sync::oneshot;

use super::store::{Opened, Store};
use super::{Unserved, path};
use crate::clock;
use crate::volume::{Shared, ToVolume, Volume};

/// What is to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) ino: Ino,
    pub(crate) block: BlockId,
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// Segments that are there and may be read; their bytes are fetched when there is room for them.
#[derive(Debug)]
pub(crate) struct Found {
    /// What the index says of them.
    pub(crate) segments: Vec<Segment>,
    range: Range<usize>,
    opened: Rc<Opened>,
    block: BlockId,
    volume: Arc<Volume>,
}

/// Finds segments, if the session may read them.
///
/// # Errors
/// `ENOENT`: no right through that inode, or collected. `EINVAL`: no such segments. `EIO`. Or the volume has ended.
pub(crate) async fn locate(store: &Store, session: &Shared, wanted: Wanted) -> Result<Found, Unserved> {
    let Wanted { ino, block, first, count } = wanted;
    let (answer, wait) = oneshot::channel();
    let volume = &session.volume;
    volume.send(ToVolume::ReadRight { session: session.info.id, ino, block, answer });
    wait.await.map_err(|_| Unserved::VolumeEnded)??;
    let opened = store.open(&volume.blocks, block, clock::now()).await;
    let opened = opened.map_err(|error| failed(volume, block, &error))?;
    let segments = opened.index.select(first, count).map_err(|_| Errno::EINVAL)?.to_vec();
    let range = opened.index.stored_range(first, count).map_err(|_| Errno::EINVAL)?;
    Ok(Found { segments, range, opened, block, volume: volume.clone() })
}

impl Found {
    /// Bytes that `fetch` will give.
    pub(crate) fn bytes(&self) -> usize {
        self.range.len()
    }

    /// The stored bytes.
    ///
    /// # Errors
    /// `EIO`.
    pub(crate) async fn fetch(&self) -> Result<Vec<u8>, Errno> {
        let read = self.opened.file.read_exact(self.range.len(), self.range.start as u64).await;
        read.map_err(|error| failed(&self.volume, self.block, &error))
    }
}

fn failed(volume: &Volume, block: BlockId, error: &io::Error) -> Errno {
    let file = path::file(&volume.blocks, block);
    tracing::error!(%block, file = %file.display(), %error, "a block cannot be read");
    match error.kind() {
        io::ErrorKind::NotFound => Errno::ENOENT,
        _ => Errno::EIO,
    }
}
