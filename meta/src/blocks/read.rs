//! Reading segments of a block: stored bytes go from the file into the buffer that is sealed and sent.

use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use flexfs_wire::block::Index;
use flexfs_wire::errno::Errno;
use flexfs_wire::id::{BlockId, Ino};
use flexfs_wire::message::Segment;
use tokio::sync::oneshot;

use super::store::{Opened, Store};
use super::{Unserved, path};
use crate::clock;
use crate::volume::{Place, Shared, ToVolume, Volume};

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
    source: Source,
    block: BlockId,
    volume: Arc<Volume>,
}

/// Where they are.
#[derive(Debug)]
enum Source {
    File(Rc<Opened>),
    /// A small block, which the volume's engine has.
    Row,
}

/// Finds segments, if the session may read them.
///
/// # Errors
/// `ENOENT`: no right through that inode, or collected. `EINVAL`: no such segments. `EIO`. Or the volume has ended.
pub(crate) async fn locate(store: &Store, session: &Shared, wanted: Wanted) -> Result<Found, Unserved> {
    let Wanted { ino, block, first, count } = wanted;
    let (answer, wait) = oneshot::channel();
    let volume = &session.volume;
    volume.call(ToVolume::ReadRight { session: session.info.id, ino, block, answer });
    match wait.await.map_err(|_| Unserved::VolumeEnded)?? {
        Place::File => {
            let opened = store.open(&volume.blocks, block, clock::now()).await;
            let opened = opened.map_err(|error| failed(volume, block, &error))?;
            let (segments, range) = select(&opened.index, first, count)?;
            Ok(Found { segments, range, source: Source::File(opened), block, volume: volume.clone() })
        }
        Place::Row(head) => {
            let index = Index::parse(&head).map_err(|error| {
                tracing::error!(%block, %error, "a small block in the volume's database cannot be read: run meta.flexfs verify");
                Errno::EIO
            })?;
            let (segments, range) = select(&index, first, count)?;
            Ok(Found { segments, range, source: Source::Row, block, volume: volume.clone() })
        }
    }
}

fn select(index: &Index, first: u32, count: u32) -> Result<(Vec<Segment>, Range<usize>), Errno> {
    let segments = index.select(first, count).map_err(|_| Errno::EINVAL)?.to_vec();
    let range = index.stored_range(first, count).map_err(|_| Errno::EINVAL)?;
    Ok((segments, range))
}

impl Found {
    /// Bytes that `fetch` will give.
    pub(crate) fn bytes(&self) -> usize {
        self.range.len()
    }

    /// The stored bytes.
    ///
    /// # Errors
    /// `ENOENT`: collected meanwhile. `EIO`. Or the volume has ended.
    pub(crate) async fn fetch(&self) -> Result<Vec<u8>, Unserved> {
        match &self.source {
            Source::File(opened) => {
                let read = opened.file.read_exact(self.range.len(), self.range.start as u64).await;
                read.map_err(|error| failed(&self.volume, self.block, &error).into())
            }
            Source::Row => {
                let (answer, wait) = oneshot::channel();
                self.volume.call(ToVolume::ReadRow { block: self.block, answer });
                let row = wait.await.map_err(|_| Unserved::VolumeEnded)??;
                let mut row = row.ok_or(Errno::ENOENT)?;
                row.truncate(self.range.end);
                row.drain(..self.range.start.min(row.len()));
                Ok(row)
            }
        }
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
