//! Where blocks live. One kind so far: the metadata server keeps them and serves them over the session's links.

mod hosted;
mod opened;
mod pages;
mod place;

use std::sync::Arc;

use flexfs_wire::errno::Errno;
use flexfs_wire::id::BlockId;
use flexfs_wire::seal::Node;

use crate::cancel::Cancel;
use crate::link::Remote;

pub(crate) use hosted::read as read_hosted;
pub use pages::Piece;
pub(crate) use pages::{gives_pages, read as read_pages};
pub use place::Place;

/// A store of blocks.
#[derive(Clone, Debug)]
pub enum Store {
    /// At the metadata server.
    Hosted(Arc<Remote>),
}

impl Store {
    /// Stores an encoded block under a new id; it is on stable storage when this returns.
    ///
    /// # Errors
    /// As [`Remote::put_block`].
    pub async fn put(&self, block: BlockId, encoded: Vec<u8>, cancel: Option<&Cancel>) -> Result<(), Errno> {
        match self {
            Self::Hosted(remote) => remote.put_block(block, encoded, cancel).await,
        }
    }

    /// Reads, checks and opens segments `first ..` of a block, one for each place. Bytes that are stored raw and have a
    /// [`Place::Slice`] go from the socket's buffer to there with no stop but the decryption.
    ///
    /// # Errors
    /// `ENOENT`: the block was collected, the layout is old. `EIO`: damaged, with a log line that names the block.
    /// Otherwise as [`Remote::call`]. The places may then hold anything.
    pub async fn read(
        &self,
        node: Node,
        block: BlockId,
        first: u32,
        places: &mut [Place<'_>],
        cancel: Option<&Cancel>,
    ) -> Result<(), Errno> {
        match self {
            Self::Hosted(remote) => hosted::read(remote, node, block, first, places, cancel).await,
        }
    }
}
