//! Reading blocks: what the server says of them, and their bytes as they come in.

use std::ops::Range;

use flexfs_wire::block::{PAGE_BYTES, check_lengths, page_range};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::BlockId;
use flexfs_wire::limits::SEGMENT_BYTES;
use flexfs_wire::message::{Call, Reply, Request, Segment};
use flexfs_wire::seal::Node;

use super::incoming::Incoming;
use super::local::NOBODY;
use super::remote::Remote;
use crate::cancel::Cancel;

/// The part of a segment that came, as its block's index describes it.
#[derive(Debug)]
pub(crate) enum Part {
    /// The pages asked for, and the checks of all pages of the segment.
    Pages(Segment, Vec<u8>),
    /// All of it, for its pages do not come alone.
    Segment(Segment),
}

impl Remote {
    /// Segments `first .. first + count` of a block: what its index says of them, and their stored bytes one behind the
    /// other. Nothing is checked or opened (see `wire::block::open_segment`). One copy: records into the vector.
    ///
    /// # Errors
    /// As [`Remote::call`]. `ENOENT`: the block was collected; the layout is old.
    pub async fn read_block(
        &self,
        node: Node,
        block: BlockId,
        first: u32,
        count: u32,
        cancel: Option<&Cancel>,
    ) -> Result<(Vec<Segment>, Vec<u8>), Errno> {
        loop {
            let (segments, mut payload) = self.ask_block(node, block, first, count, cancel).await?;
            let mut stored = vec![0; payload.left()];
            if payload.read(&mut stored).await.is_ok() {
                return Ok((segments, stored));
            }
        }
    }

    /// Asks for segments of a block; the payload is read by the caller, who waits for nothing else until it is read
    /// or dropped. When reading fails the link broke: ask again.
    pub(crate) async fn ask_block(
        &self,
        node: Node,
        block: BlockId,
        first: u32,
        count: u32,
        cancel: Option<&Cancel>,
    ) -> Result<(Vec<Segment>, Incoming), Errno> {
        let request = Request::ReadBlock { node, block, first, count };
        let (reply, payload) =
            self.ask_bytes(request, count as usize * SEGMENT_BYTES as usize, cancel).await?;
        let Reply::Segments(segments) = reply else {
            tracing::error!(%block, "the server answered a read of a block with something else");
            return Err(Errno::EPROTO);
        };
        let sum: usize = segments.iter().map(|segment| segment.stored_bytes as usize).sum();
        if segments.len() != count as usize
            || sum != payload.left()
            || segments.iter().any(|segment| check_lengths(segment, self.cipher().is_some()).is_err())
        {
            tracing::error!(%block, first, count, "the server's segments do not add up");
            return Err(Errno::EPROTO);
        }
        Ok((segments, payload))
    }

    /// Asks for pages of a segment; the payload as of [`Remote::ask_block`].
    pub(crate) async fn ask_pages(
        &self,
        node: Node,
        block: BlockId,
        segment: u32,
        pages: Range<u32>,
        cancel: Option<&Cancel>,
    ) -> Result<(Part, Incoming), Errno> {
        let (first, count) = (pages.start, pages.end - pages.start);
        let request = Request::ReadPages { node, block, segment, first, count };
        let (reply, payload) = self.ask_bytes(request, count as usize * PAGE_BYTES as usize, cancel).await?;
        let (part, bytes) = match reply {
            Reply::Pages { segment, checks } => {
                let bytes = page_range(&segment, first, count).ok().filter(|_| self.cipher().is_none());
                (Part::Pages(segment, checks), bytes.map(|range| range.len()))
            }
            Reply::Segments(segments) if segments.len() == 1 => {
                let segment = segments[0];
                let is_sound = check_lengths(&segment, self.cipher().is_some()).is_ok();
                (Part::Segment(segment), is_sound.then_some(segment.stored_bytes as usize))
            }
            _ => {
                tracing::error!(%block, "the server answered a read of pages with something else");
                return Err(Errno::EPROTO);
            }
        };
        if bytes != Some(payload.left()) {
            tracing::error!(%block, segment, first, count, "the server's pages do not add up");
            return Err(Errno::EPROTO);
        }
        Ok((part, payload))
    }

    /// Makes a call whose answer has bytes, about so many, behind it.
    async fn ask_bytes(
        &self,
        request: Request,
        bytes: usize,
        cancel: Option<&Cancel>,
    ) -> Result<(Reply, Incoming), Errno> {
        self.wait_behind(&request, cancel).await?;
        let link = self.link_for(bytes)?;
        self.admit(&link, false, cancel).await?;
        let outcome = self.ask(&link, Call::new(NOBODY, request), None, true, cancel).await?;
        let (reply, Some(payload)) = (outcome.result?, outcome.payload) else {
            tracing::error!("the server answered a read of a block without bytes");
            return Err(Errno::EPROTO);
        };
        Ok((reply, payload))
    }
}
