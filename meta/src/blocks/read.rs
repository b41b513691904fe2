//! Reading segments of a block: stored bytes go from the file into the buffer that is sealed and sent.

use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use flexfs_wire::block::{Index, page_range};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::{BlockId, Ino};
use flexfs_wire::message::Reply;
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
    pub(crate) part: Part,
}

/// The part of the block.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    /// Segments `first .. first + count`.
    Segments { first: u32, count: u32 },
    /// Pages `first .. first + count` of one segment; all of it when it has no checks of pages.
    Pages { segment: u32, first: u32, count: u32 },
}

/// Bytes that are there and may be read; they are fetched when there is room for them.
#[derive(Debug)]
pub(crate) struct Found {
    /// What the index says of them.
    pub(crate) reply: Reply,
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

/// Finds a part of a block, if the session may read it.
///
/// # Errors
/// `ENOENT`: no right through that inode, or collected. `EINVAL`: no such segments or pages. `EIO`. Or the volume has ended.
pub(crate) async fn locate(store: &Store, session: &Shared, wanted: Wanted) -> Result<Found, Unserved> {
    let Wanted { ino, block, part } = wanted;
    let (answer, wait) = oneshot::channel();
    let volume = &session.volume;
    volume.call(ToVolume::ReadRight { session: session.info.id, ino, block, answer });
    match wait.await.map_err(|_| Unserved::VolumeEnded)?? {
        Place::File => {
            let opened = store.open(&volume.blocks, block, clock::now()).await;
            let opened = opened.map_err(|error| failed(volume, block, &error))?;
            let (reply, range) = select(&opened.index, part)?;
            Ok(Found { reply, range, source: Source::File(opened), block, volume: volume.clone() })
        }
        Place::Row(head) => {
            let index = Index::parse(&head).map_err(|error| {
                tracing::error!(%block, %error, "a small block in the volume's database cannot be read: run meta.flexfs verify");
                Errno::EIO
            })?;
            let (reply, range) = select(&index, part)?;
            Ok(Found { reply, range, source: Source::Row, block, volume: volume.clone() })
        }
    }
}

/// What to say of a part, and where its bytes lie in the stored block.
fn select(index: &Index, part: Part) -> Result<(Reply, Range<usize>), Errno> {
    let (first, count) = match part {
        Part::Segments { first, count } => (first, count),
        Part::Pages { segment, .. } => (segment, 1),
    };
    let segments = index.select(first, count).map_err(|_| Errno::EINVAL)?;
    let range = index.stored_range(first, count).map_err(|_| Errno::EINVAL)?;
    if let (Part::Pages { segment: number, first, count }, [segment]) = (part, segments) {
        let pages = page_range(segment, first, count).map_err(|_| Errno::EINVAL)?;
        if let Some(checks) = index.page_checks(number) {
            let reply = Reply::Pages { segment: *segment, checks: checks.to_vec() };
            return Ok((reply, range.start + pages.start..range.start + pages.end));
        }
    }
    Ok((Reply::Segments(segments.to_vec()), range))
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
