//! Blocks at the metadata server.

use flexfs_wire::block::{Codec, check_stored, open_encrypted, open_segment};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::BlockId;
use flexfs_wire::message::Segment;
use flexfs_wire::seal::Node;

use super::place::Place;
use crate::cancel::Cancel;
use crate::link::Remote;

/// How often a read whose link breaks in the middle of the answer is begun anew before it counts as a fault. The waits in
/// between are the link's.
const ATTEMPTS: u32 = 100;

/// What one attempt came to.
enum Attempt {
    Done,
    /// The link broke; all of it is to be asked for again.
    Broken,
}

/// See [`super::Store::read`].
pub(crate) async fn read(
    remote: &Remote,
    node: Node,
    block: BlockId,
    first: u32,
    places: &mut [Place<'_>],
    cancel: Option<&Cancel>,
) -> Result<(), Errno> {
    for _ in 0..ATTEMPTS {
        match attempt(remote, node, block, first, places, cancel).await? {
            Attempt::Done => return Ok(()),
            Attempt::Broken => {}
        }
    }
    tracing::error!(%block, first, "links keep breaking in the middle of this block");
    Err(Errno::EIO)
}

/// Nothing is awaited here but the payload's own bytes: the link's receiving half is ours meanwhile.
async fn attempt(
    remote: &Remote,
    node: Node,
    block: BlockId,
    first: u32,
    places: &mut [Place<'_>],
    cancel: Option<&Cancel>,
) -> Result<Attempt, Errno> {
    let count = u32::try_from(places.len()).map_err(|_| Errno::EINVAL)?;
    let (segments, mut payload) = remote.ask_block(node, block, first, count, cancel).await?;
    let cipher = remote.cipher().map(|cipher| cipher.block(block));
    let (mut stored, mut plain) = (Vec::new(), Vec::new());
    for ((segment, place), number) in segments.iter().zip(places).zip(first..) {
        let Some(room) = place.room(segment.raw_bytes) else {
            tracing::error!(%node.ino, %block, segment = number, raw_bytes = segment.raw_bytes, "a segment is shorter than the file's extents say");
            return Err(Errno::EIO);
        };
        let opened = if cipher.is_none() && segment.codec == Codec::Raw as u8 {
            if payload.read(room).await.is_err() {
                return Ok(Attempt::Broken);
            }
            check_stored(segment, room)
        } else {
            stored.resize(segment.stored_bytes as usize, 0);
            if payload.read(&mut stored).await.is_err() {
                return Ok(Attempt::Broken);
            }
            match &cipher {
                Some(cipher) => open_encrypted(cipher, number, segment, &stored, room, &mut plain),
                None => open_segment(segment, &stored, room),
            }
        };
        opened.map_err(|error| damaged(node, block, number, segment, &error))?;
    }
    Ok(Attempt::Done)
}

fn damaged(
    node: Node,
    block: BlockId,
    number: u32,
    segment: &Segment,
    error: &flexfs_wire::block::BlockError,
) -> Errno {
    tracing::error!(ino = %node.ino, %block, segment = number, stored_bytes = segment.stored_bytes, %error, "a block cannot be read");
    Errno::EIO
}
