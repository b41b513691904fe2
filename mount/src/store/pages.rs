//! Pages of a segment, without the rest of it.

use std::ops::Range;

use flexfs_wire::block::{PAGE_BYTES, check_pages};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::BlockId;
use flexfs_wire::seal::Node;

use super::hosted::{ATTEMPTS, Attempt, Receiver, damaged, too_short};
use super::place::Place;
use crate::cancel::Cancel;
use crate::link::{Part, Remote};

const PAGE: usize = PAGE_BYTES as usize;

/// A part of a segment, and where it is wanted.
#[derive(Debug)]
pub struct Piece<'a> {
    /// The block.
    pub block: BlockId,
    /// Number of the segment in it.
    pub segment: u32,
    /// The part, in raw bytes of the segment.
    pub range: Range<usize>,
    /// Takes just that.
    pub out: &'a mut [u8],
    /// Takes all of the segment when it can only be had whole.
    pub whole: &'a mut Vec<u8>,
}

/// Whether pages come alone: not where the disk is to have whole segments, nor where only whole ones can be decrypted.
pub(crate) fn gives_pages(remote: &Remote) -> bool {
    remote.disk().is_none() && remote.cipher().is_none()
}

/// Fills the piece out of its pages: `true`. `false`: its segment is stored in a way that it can only be had whole, and is there whole.
///
/// # Errors
/// As of [`super::Store::read`].
pub(crate) async fn read(
    remote: &Remote,
    node: Node,
    piece: Piece<'_>,
    cancel: Option<&Cancel>,
) -> Result<bool, Errno> {
    let Piece { block, segment: number, range, out, whole } = piece;
    let pages = range.start / PAGE..range.end.div_ceil(PAGE);
    let first = u32::try_from(pages.start).map_err(|_| Errno::EINVAL)?;
    let count = u32::try_from(pages.len()).map_err(|_| Errno::EINVAL)?;
    let skip = range.start % PAGE;
    let mut buffer = Vec::new();
    for _ in 0..ATTEMPTS {
        let (part, mut payload) = remote.ask_pages(node, block, number, first..first + count, cancel).await?;
        match part {
            Part::Pages(segment, checks) => {
                let bytes = payload.left();
                if bytes < skip + out.len() {
                    return Err(too_short(node, block, number, &segment));
                }
                // Whole pages go straight to where they are wanted.
                let is_straight = bytes == out.len();
                let pages = if is_straight {
                    &mut *out
                } else {
                    buffer.resize(bytes, 0);
                    &mut buffer[..]
                };
                if payload.read(pages).await.is_err() {
                    continue;
                }
                check_pages(&segment, &checks, first, pages)
                    .map_err(|error| damaged(node, block, number, &segment, &error))?;
                if !is_straight {
                    out.copy_from_slice(&buffer[skip..skip + out.len()]);
                }
                return Ok(true);
            }
            Part::Segment(segment) => {
                let (mut receiver, mut place) = (Receiver::new(remote, node, block), Place::Buffer(whole));
                match receiver.take(number, &segment, &mut payload, &mut place).await? {
                    Attempt::Done => return Ok(false),
                    Attempt::Broken => {}
                }
            }
        }
    }
    tracing::error!(%block, segment = number, "links keep breaking in the middle of this segment");
    Err(Errno::EIO)
}
