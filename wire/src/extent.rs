//! Where the bytes of a file are.

use serde::{Deserialize, Serialize};

use crate::id::BlockId;

/// A contiguous range of a file, mapped to a range of a block's raw (uncompressed) bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Offset in the file, bytes.
    pub offset: u64,
    /// Length in bytes, never 0.
    pub length: u32,
    /// The block; `BlockId(0)` stands for allocated zeros (`fallocate`).
    pub block: BlockId,
    /// Offset in the block's raw bytes.
    pub block_offset: u32,
}

/// `Extent::block` of space that is allocated and reads as zeros.
pub const ZERO_BLOCK: BlockId = BlockId(0);

impl Extent {
    /// Offset just past the range.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.length)
    }
}

/// A block first referred to by a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewBlock {
    /// Its id, from a range granted to the session and stored before the write.
    pub block: BlockId,
    /// Raw bytes in it.
    pub raw_bytes: u32,
    /// Bytes it takes in the store.
    pub stored_bytes: u32,
}

/// Content of a file, or of a part of it. Extents win over inline bytes, both over holes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Bytes from offset 0 of the file; what they do not reach is a hole.
    #[serde(with = "serde_bytes")]
    pub inline: Vec<u8>,
    /// Extents in ascending order, not overlapping.
    pub extents: Vec<Extent>,
    /// The range described, bytes: `start .. end`. `end` is `u64::MAX` when nothing follows.
    pub start: u64,
    /// End of the range described.
    pub end: u64,
    /// The data version described (`Attr::version`).
    pub version: u64,
}
