//! The block format: an immutable object holding a row of segments, each compressed and checked on its own, so
//! that a small read fetches one segment and not the block.
//!
//! ```text
//! +---------------+----------------------------+--------------------+-----------+-----------+-- - - -+
//! | header (32)   | index: 24 bytes x segments | checks: 8 x pages  | segment 0 | segment 1 |        |
//! +---------------+----------------------------+--------------------+-----------+-----------+-- - - -+
//!
//! header   0  magic          [u8; 4]  "FXBK"
//!          4  version        u16      2; 1 has no checks of pages: encrypted blocks, and those of older releases
//!          6  compression    u8       of the volume: 0 none, 1 lz4, 2 zstd (tells, decides nothing)
//!          7  encrypted      u8       0, or 1: segments are encrypted (`cipher`), 28 bytes longer each
//!          8  segment_count  u32      1 ..= 128
//!         12  raw_bytes      u32      1 ..= 8 MiB, all segments together
//!         16  stored_bytes   u32      of the whole block, header and index included
//!         20  zero           u32
//!         24  check          u64      XXH3-64 of header bytes 0..24 followed by the index and the checks of pages
//!
//! entry    0  stored_bytes   u32      1 ..= raw_bytes; equal to raw_bytes when codec is Raw or Paged; + 28 when encrypted
//!          4  raw_bytes      u32      64 KiB but for the last segment
//!          8  check          u64      XXH3-64 of the stored bytes; when codec is Paged, of the checks of its pages
//!         16  codec          u8       Codec
//!         17  zero           [u8; 7]
//!
//! checks   0  check          u64      XXH3-64 of each page of 4 KiB of a Paged segment; 0 for pages of others
//! ```
//! All little-endian. Segments lie back to back in the order of the index. Pure: no I/O, no clock; the parser is
//! total, and nothing is decompressed before its checksum was found right.

mod builder;
mod pages;

use std::ops::Range;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use self::builder::Builder;
use self::pages::checks_bytes;
pub use self::pages::{PAGE_BYTES, check_pages, page_range};
use crate::cipher::{BlockCipher, Place, SEGMENT_EXTRA_BYTES};
use crate::limits::{BLOCK_BYTES_MAX, SEGMENT_BYTES};
use crate::message::Segment;
use crate::settings::Compression;

/// Bytes of the fixed header.
pub const HEADER_BYTES: usize = 32;
/// Bytes of one index entry.
pub const ENTRY_BYTES: usize = 24;
/// Most segments of a block.
pub const SEGMENTS_MAX: u32 = BLOCK_BYTES_MAX / SEGMENT_BYTES;
/// Most bytes of header, index and checks of pages.
pub const HEAD_BYTES_MAX: usize = header_bytes(SEGMENTS_MAX) + checks_bytes(BLOCK_BYTES_MAX);
/// Most bytes of a stored block: nothing compresses, largest index, encrypted.
pub const STORED_BYTES_MAX: usize =
    HEAD_BYTES_MAX + BLOCK_BYTES_MAX as usize + SEGMENTS_MAX as usize * SEGMENT_EXTRA_BYTES;

const MAGIC: [u8; 4] = *b"FXBK";
/// Without checks of pages.
const VERSION: u16 = 1;
/// With them.
const VERSION_PAGED: u16 = 2;

/// Bytes of header and index of a block with `segment_count` segments.
const fn header_bytes(segment_count: u32) -> usize {
    HEADER_BYTES + segment_count as usize * ENTRY_BYTES
}

/// Segments that `raw_bytes` make.
#[must_use]
pub const fn segment_count(raw_bytes: u32) -> u32 {
    raw_bytes.div_ceil(SEGMENT_BYTES)
}

/// How the bytes of one segment are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// As they are; in encrypted blocks, and in those of version 1.
    Raw = 0,
    /// LZ4 block format without a size in front.
    Lz4 = 1,
    /// One zstd frame.
    Zstd = 2,
    /// As they are, and each page has a check; never in an encrypted block.
    Paged = 3,
}

impl Codec {
    /// The codec a number stands for.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Raw),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd),
            3 => Some(Self::Paged),
            _ => None,
        }
    }

    /// Whether stored bytes of it are the raw ones: to be read straight to where they are wanted.
    #[must_use]
    pub const fn is_plain(self) -> bool {
        matches!(self, Self::Raw | Self::Paged)
    }
}

/// Why bytes are not a block, or not what its index says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Fewer bytes than header and index take.
    #[error("block is cut short: {found} bytes, {needed} needed")]
    Short {
        /// Bytes there are.
        found: usize,
        /// Bytes there must be.
        needed: usize,
    },
    /// Not a block, or one of a version this program does not know.
    #[error("not a block of a known version")]
    Magic,
    /// Lengths that contradict each other, or an unknown codec.
    #[error("block index is inconsistent")]
    Index,
    /// The checksum of header and index, or of a segment, is wrong: the bytes were damaged.
    #[error("block checksum is wrong: the stored bytes are damaged")]
    Check,
    /// Encrypted bytes that do not open with the volume's key as this segment of this block.
    #[error("segment does not decrypt: it was changed, or is from another place or volume")]
    Tampered,
    /// Checksum right, but the segment does not decompress to its length: the writer was at fault.
    #[error("segment does not decompress")]
    Decompress,
    /// No segment of that number in the block.
    #[error("no such segment")]
    Range,
    /// Nothing, or more than a block holds, was given to seal.
    #[error("a block holds 1 byte to {BLOCK_BYTES_MAX} bytes")]
    Size,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 4],
    version: U16,
    compression: u8,
    encrypted: u8,
    segment_count: U32,
    raw_bytes: U32,
    stored_bytes: U32,
    zero2: U32,
    check: U64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEntry {
    stored_bytes: U32,
    raw_bytes: U32,
    check: U64,
    codec: u8,
    zero: [u8; 7],
}

const _: () = assert!(size_of::<RawHeader>() == HEADER_BYTES && size_of::<RawEntry>() == ENTRY_BYTES);
const _: () = assert!(STORED_BYTES_MAX + 64 * 1024 < crate::limits::FRAME_BYTES_MAX);

/// The fixed header, its bounds checked, its checksum not yet (that one covers the index too). For readers that
/// learn from it how many bytes of index to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Segments in the block.
    pub segment_count: u32,
    /// Raw bytes of all segments.
    pub raw_bytes: u32,
    /// Bytes of the whole stored block.
    pub stored_bytes: u32,
    /// Whether its segments are encrypted.
    pub encrypted: bool,
    /// Whether checks of pages follow the index.
    pub paged: bool,
}

impl Header {
    /// Parses the first [`HEADER_BYTES`] bytes of a block.
    ///
    /// # Errors
    /// `Short`, `Magic`, `Index`.
    pub fn parse(bytes: &[u8]) -> Result<Self, BlockError> {
        let (raw, _) = RawHeader::ref_from_prefix(bytes)
            .map_err(|_| BlockError::Short { found: bytes.len(), needed: HEADER_BYTES })?;
        let version = raw.version.get();
        if raw.magic != MAGIC || !(VERSION..=VERSION_PAGED).contains(&version) {
            return Err(BlockError::Magic);
        }
        let header = Self {
            segment_count: raw.segment_count.get(),
            raw_bytes: raw.raw_bytes.get(),
            stored_bytes: raw.stored_bytes.get(),
            encrypted: raw.encrypted == 1,
            paged: version == VERSION_PAGED,
        };
        let sound = raw.encrypted <= 1
            && !(header.encrypted && header.paged)
            && raw.zero2.get() == 0
            && raw.compression <= 2
            && (1..=BLOCK_BYTES_MAX).contains(&header.raw_bytes)
            && header.segment_count == segment_count(header.raw_bytes)
            && header.stored_bytes as usize > header.head_bytes()
            && header.stored_bytes as usize <= STORED_BYTES_MAX;
        if sound { Ok(header) } else { Err(BlockError::Index) }
    }

    /// Bytes of header, index and checks of pages.
    #[must_use]
    pub fn head_bytes(&self) -> usize {
        header_bytes(self.segment_count) + if self.paged { checks_bytes(self.raw_bytes) } else { 0 }
    }
}

/// Header, index and checks of pages of a block, checked: lengths add up, codecs are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    header: Header,
    segments: Vec<Segment>,
    /// Of all pages; empty when there are none.
    checks: Box<[u8]>,
}

impl Index {
    /// Parses header, index and checks of pages; `bytes` may go on behind them.
    ///
    /// # Errors
    /// `Short` (with the number of bytes needed), `Magic`, `Index`, `Check`.
    pub fn parse(bytes: &[u8]) -> Result<Self, BlockError> {
        let header = Header::parse(bytes)?;
        let needed = header.head_bytes();
        let Some(bytes) = bytes.get(..needed) else {
            return Err(BlockError::Short { found: bytes.len(), needed });
        };
        let (head, index) = bytes.split_at(HEADER_BYTES);
        let raw_header = RawHeader::ref_from_bytes(head).map_err(|_| BlockError::Index)?;
        if raw_header.check.get() != index_check(&head[..24], index) {
            return Err(BlockError::Check);
        }
        let (entries, checks) = index.split_at(header.segment_count as usize * ENTRY_BYTES);
        let entries = <[RawEntry]>::ref_from_bytes(entries).map_err(|_| BlockError::Index)?;
        let mut segments = Vec::with_capacity(entries.len());
        let mut raw_left = header.raw_bytes;
        let mut stored_left = header.stored_bytes as usize - needed;
        for entry in entries {
            let segment = Segment {
                stored_bytes: entry.stored_bytes.get(),
                raw_bytes: entry.raw_bytes.get(),
                codec: entry.codec,
                check: entry.check.get(),
            };
            check_lengths(&segment, header.encrypted)?;
            check_table(&header, &segment, segments.len(), checks)?;
            if entry.zero != [0; 7] || segment.raw_bytes != raw_left.min(SEGMENT_BYTES) {
                return Err(BlockError::Index);
            }
            raw_left -= segment.raw_bytes;
            stored_left = stored_left.checked_sub(segment.stored_bytes as usize).ok_or(BlockError::Index)?;
            segments.push(segment);
        }
        if raw_left != 0 || stored_left != 0 {
            return Err(BlockError::Index);
        }
        Ok(Self { header, segments, checks: checks.into() })
    }

    /// Segments, in the order they are stored.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Raw bytes of all segments.
    #[must_use]
    pub fn raw_bytes(&self) -> u32 {
        self.header.raw_bytes
    }

    /// Whether the segments are encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.header.encrypted
    }

    /// Bytes of the whole stored block, header and index included.
    #[must_use]
    pub fn stored_bytes(&self) -> u32 {
        self.header.stored_bytes
    }

    /// Bytes before the first segment's.
    #[must_use]
    pub fn head_bytes(&self) -> usize {
        self.header.head_bytes()
    }

    /// Where the stored bytes of segments `first .. first + count` lie in the stored block.
    ///
    /// # Errors
    /// `Range` when the block has no such segments, or `count` is 0.
    pub fn stored_range(&self, first: u32, count: u32) -> Result<Range<usize>, BlockError> {
        let wanted = self.select(first, count)?;
        let skipped = &self.segments[..first as usize];
        let sum = |segments: &[Segment]| segments.iter().map(|s| s.stored_bytes as usize).sum::<usize>();
        let start = self.header.head_bytes() + sum(skipped);
        Ok(start..start + sum(wanted))
    }

    /// The checks of the pages of a [`Codec::Paged`] segment, for [`check_pages`]. `None`: it is of another codec, or is not there.
    #[must_use]
    pub fn page_checks(&self, number: u32) -> Option<&[u8]> {
        let segment = self.segments.get(number as usize)?;
        let range = checks_range(number as usize, segment);
        if segment.codec == Codec::Paged as u8 { self.checks.get(range) } else { None }
    }

    /// Segments `first .. first + count`.
    ///
    /// # Errors
    /// `Range` when the block has no such segments, or `count` is 0.
    pub fn select(&self, first: u32, count: u32) -> Result<&[Segment], BlockError> {
        let end = first.checked_add(count).ok_or(BlockError::Range)?;
        let wanted = self.segments.get(first as usize..end as usize).ok_or(BlockError::Range)?;
        if wanted.is_empty() { Err(BlockError::Range) } else { Ok(wanted) }
    }
}

/// Where the checks of the pages of a segment lie in those of the block.
fn checks_range(number: usize, segment: &Segment) -> Range<usize> {
    let start = number * checks_bytes(SEGMENT_BYTES);
    start..start + checks_bytes(segment.raw_bytes)
}

/// Whether the checks of a segment's pages are its own, and there where they must be.
fn check_table(header: &Header, segment: &Segment, number: usize, checks: &[u8]) -> Result<(), BlockError> {
    let is_paged = segment.codec == Codec::Paged as u8;
    if !header.paged {
        return if is_paged { Err(BlockError::Index) } else { Ok(()) };
    }
    let own = checks.get(checks_range(number, segment)).ok_or(BlockError::Index)?;
    let sound = match is_paged {
        true => xxh3_64(own) == segment.check,
        // Whoever may be read by pages is.
        false => segment.codec != Codec::Raw as u8 && own.iter().all(|byte| *byte == 0),
    };
    if sound { Ok(()) } else { Err(BlockError::Index) }
}

/// Whether the lengths and the codec of one index entry can be: also what a client checks of a `Segments` reply.
///
/// # Errors
/// `Index`.
pub fn check_lengths(segment: &Segment, encrypted: bool) -> Result<(), BlockError> {
    let extra = if encrypted { EXTRA_BYTES } else { 0 };
    let stored_bytes = segment.stored_bytes.checked_sub(extra).ok_or(BlockError::Index)?;
    let sound = (1..=SEGMENT_BYTES).contains(&segment.raw_bytes)
        && match Codec::new(segment.codec) {
            Some(Codec::Raw) => stored_bytes == segment.raw_bytes,
            Some(Codec::Paged) => !encrypted && stored_bytes == segment.raw_bytes,
            Some(Codec::Lz4 | Codec::Zstd) => (1..segment.raw_bytes).contains(&stored_bytes),
            None => false,
        };
    if sound { Ok(()) } else { Err(BlockError::Index) }
}

/// Checks and opens one segment: `stored` are its stored bytes, `out` takes exactly its raw bytes. On an error
/// `out` may hold anything.
///
/// # Errors
/// `Index` (lengths), `Check`, `Decompress`.
pub fn open_segment(segment: &Segment, stored: &[u8], out: &mut [u8]) -> Result<(), BlockError> {
    check_stored(segment, stored)?;
    decode(segment, stored, out)
}

/// Decrypts and opens one segment of an encrypted block, which has the number `index` in it: `stored` are its stored bytes, `out` takes exactly
/// its raw bytes. `plain` is used for what comes between decryption and decompression. On an error `out` may hold anything.
/// The checksum is not looked at: GCM's tag says more.
///
/// # Errors
/// `Index` (lengths), `Tampered`, `Decompress`.
pub fn open_encrypted(
    cipher: &BlockCipher,
    index: u32,
    segment: &Segment,
    stored: &[u8],
    out: &mut [u8],
    plain: &mut Vec<u8>,
) -> Result<(), BlockError> {
    check_lengths(segment, true)?;
    if stored.len() != segment.stored_bytes as usize || out.len() != segment.raw_bytes as usize {
        return Err(BlockError::Index);
    }
    let place = Place { index, raw_bytes: segment.raw_bytes, codec: segment.codec };
    if segment.codec == Codec::Raw as u8 {
        return cipher.open(place, stored, out).map_err(|_| BlockError::Tampered);
    }
    plain.clear();
    plain.resize(stored.len() - SEGMENT_EXTRA_BYTES, 0);
    cipher.open(place, stored, plain).map_err(|_| BlockError::Tampered)?;
    decode(segment, plain, out)
}

/// Undoes the compression.
fn decode(segment: &Segment, stored: &[u8], out: &mut [u8]) -> Result<(), BlockError> {
    if out.len() != segment.raw_bytes as usize {
        return Err(BlockError::Index);
    }
    let opened = match Codec::new(segment.codec) {
        Some(Codec::Raw | Codec::Paged) => {
            out.copy_from_slice(stored);
            Some(out.len())
        }
        Some(Codec::Lz4) => lz4_flex::block::decompress_into(stored, out).ok(),
        Some(Codec::Zstd) => zstd::bulk::decompress_to_buffer(stored, out).ok(),
        None => None,
    };
    if opened == Some(out.len()) { Ok(()) } else { Err(BlockError::Decompress) }
}

/// Checks the stored bytes of a segment without opening it: all there is to do for plain bytes ([`Codec::is_plain`])
/// that were received where they belong.
///
/// # Errors
/// `Index` (lengths), `Check`.
pub fn check_stored(segment: &Segment, stored: &[u8]) -> Result<(), BlockError> {
    check_lengths(segment, false)?;
    if stored.len() != segment.stored_bytes as usize {
        return Err(BlockError::Index);
    }
    let is_paged = segment.codec == Codec::Paged as u8;
    let check = if is_paged { pages::segment_check(stored) } else { xxh3_64(stored) };
    if check == segment.check { Ok(()) } else { Err(BlockError::Check) }
}

/// Appends the block made of `raw` to `out`.
///
/// # Errors
/// `Size` for nothing and for more than a block holds; `out` is then as it was.
pub fn seal(raw: &[u8], compression: Compression, out: &mut Vec<u8>) -> Result<(), BlockError> {
    build(raw, compression, None, out)
}

/// The same, encrypted.
///
/// # Errors
/// As [`seal`].
pub fn seal_encrypted(
    raw: &[u8],
    compression: Compression,
    cipher: BlockCipher,
    out: &mut Vec<u8>,
) -> Result<(), BlockError> {
    build(raw, compression, Some(cipher), out)
}

fn build(
    raw: &[u8],
    compression: Compression,
    cipher: Option<BlockCipher>,
    out: &mut Vec<u8>,
) -> Result<(), BlockError> {
    let raw_bytes = u32::try_from(raw.len()).map_err(|_| BlockError::Size)?;
    let mut builder = Builder::new(raw_bytes, compression, cipher, std::mem::take(out))?;
    for segment in raw.chunks(SEGMENT_BYTES as usize) {
        builder.push(segment)?;
    }
    *out = builder.finish()?;
    Ok(())
}

/// [`SEGMENT_EXTRA_BYTES`] as an entry counts.
#[expect(clippy::cast_possible_truncation, reason = "28")]
const EXTRA_BYTES: u32 = SEGMENT_EXTRA_BYTES as u32;

fn index_check(header: &[u8], index: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(header);
    hash.update(index);
    hash.digest()
}

#[cfg(test)]
mod tests;
