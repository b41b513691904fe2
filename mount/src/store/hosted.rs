//! Blocks at the metadata server, and on this machine's disk what was read of them before.

use std::ops::Range;

use flexfs_wire::block::{BlockError, Codec, check_stored};
use flexfs_wire::cipher::BlockCipher;
use flexfs_wire::errno::Errno;
use flexfs_wire::id::BlockId;
use flexfs_wire::message::Segment;
use flexfs_wire::seal::Node;

use super::opened;
use super::place::Place;
use crate::cancel::Cancel;
use crate::disk::Disk;
use crate::link::{Incoming, Remote};

/// How often a read whose link breaks in the middle of the answer is begun anew before it counts as a fault. The waits in
/// between are the link's.
pub(super) const ATTEMPTS: u32 = 100;

/// What one attempt came to.
pub(super) enum Attempt {
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
    let Some(disk) = remote.disk() else { return fetch(remote, node, block, first, places, cancel).await };
    // Who may not ask the server may not ask the disk either, before and after: the session may end meanwhile.
    remote.check()?;
    let missing = read_disk(remote, disk, block, first, places).await;
    remote.check()?;
    for range in missing {
        let first = first + u32::try_from(range.start).map_err(|_| Errno::EINVAL)?;
        fetch(remote, node, block, first, &mut places[range], cancel).await?;
    }
    Ok(())
}

/// Fills the places with what the disk has; the ranges of places that it has not, or not any more. An error there is none: what is not
/// right is the server's to give.
async fn read_disk(
    remote: &Remote,
    disk: &Disk,
    block: BlockId,
    first: u32,
    places: &mut [Place<'_>],
) -> Vec<Range<usize>> {
    let cipher = remote.cipher().map(|cipher| cipher.block(block));
    let mut plain = Vec::new();
    let mut missing: Vec<Range<usize>> = Vec::new();
    let pieces = disk.read(block, first, places.len()).await;
    for ((index, (place, piece)), number) in places.iter_mut().zip(pieces).enumerate().zip(first..) {
        let Some(piece) = piece else {
            miss(&mut missing, index);
            continue;
        };
        let segment = &piece.segment;
        let opened = match place.room(segment.raw_bytes) {
            Some(room) => opened::open(cipher.as_ref(), number, segment, piece.stored(), room, &mut plain),
            None => Err(BlockError::Index),
        };
        match opened {
            Ok(()) => disk.accept(piece),
            Err(error) => {
                disk.refuse(block, number, piece, &error);
                miss(&mut missing, index);
            }
        }
    }
    missing
}

/// One more that is missing.
fn miss(missing: &mut Vec<Range<usize>>, index: usize) {
    match missing.last_mut() {
        Some(range) if range.end == index => range.end += 1,
        _ => missing.push(index..index + 1),
    }
}

async fn fetch(
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
    let mut receiver = Receiver::new(remote, node, block);
    for ((segment, place), number) in segments.iter().zip(places).zip(first..) {
        if let Attempt::Broken = receiver.take(number, segment, &mut payload, place).await? {
            return Ok(Attempt::Broken);
        }
    }
    Ok(Attempt::Done)
}

/// Takes in segments of a block as they come.
pub(super) struct Receiver<'a> {
    remote: &'a Remote,
    node: Node,
    block: BlockId,
    cipher: Option<BlockCipher>,
    /// Stored bytes that do not go straight to their place, and what comes between decryption and decompression.
    stored: Vec<u8>,
    plain: Vec<u8>,
}

impl<'a> Receiver<'a> {
    pub(super) fn new(remote: &'a Remote, node: Node, block: BlockId) -> Self {
        let cipher = remote.cipher().map(|cipher| cipher.block(block));
        Self { remote, node, block, cipher, stored: Vec::new(), plain: Vec::new() }
    }

    /// Reads, verifies and opens segment `number` into its place; the disk may have it, too.
    pub(super) async fn take(
        &mut self,
        number: u32,
        segment: &Segment,
        payload: &mut Incoming,
        place: &mut Place<'_>,
    ) -> Result<Attempt, Errno> {
        let Some(room) = place.room(segment.raw_bytes) else {
            return Err(too_short(self.node, self.block, number, segment));
        };
        let is_straight = self.cipher.is_none() && Codec::new(segment.codec).is_some_and(Codec::is_plain);
        let stored = if is_straight {
            &mut *room
        } else {
            self.stored.resize(segment.stored_bytes as usize, 0);
            &mut self.stored[..]
        };
        if payload.read(stored).await.is_err() {
            return Ok(Attempt::Broken);
        }
        let opened = if is_straight {
            check_stored(segment, room)
        } else {
            opened::open(self.cipher.as_ref(), number, segment, &self.stored, room, &mut self.plain)
        };
        opened.map_err(|error| damaged(self.node, self.block, number, segment, &error))?;
        if let Some(disk) = self.remote.disk() {
            disk.offer(self.block, number, segment, if is_straight { room } else { &self.stored });
        }
        Ok(Attempt::Done)
    }
}

pub(super) fn too_short(node: Node, block: BlockId, number: u32, segment: &Segment) -> Errno {
    tracing::error!(%node.ino, %block, segment = number, raw_bytes = segment.raw_bytes, "a segment is shorter than the file's extents say");
    Errno::EIO
}

pub(super) fn damaged(
    node: Node,
    block: BlockId,
    number: u32,
    segment: &Segment,
    error: &BlockError,
) -> Errno {
    tracing::error!(ino = %node.ino, %block, segment = number, stored_bytes = segment.stored_bytes, %error, "a block cannot be read");
    Errno::EIO
}
