//! The block format: an immutable object holding a row of segments, each compressed and checked on its own, so
//! that a small read fetches one segment and not the block.
//!
//! ```text
//! +---------------+----------------------------+-----------+-----------+-- - - -+
//! | header (32)   | index: 24 bytes x segments | segment 0 | segment 1 |        |
//! +---------------+----------------------------+-----------+-----------+-- - - -+
//!
//! header   0  magic          [u8; 4]  "FXBK"
//!          4  version        u16      1
//!          6  compression    u8       of the volume: 0 none, 1 lz4, 2 zstd (tells, decides nothing)
//!          7  encrypted      u8       0, or 1: segments are encrypted (`cipher`), 28 bytes longer each
//!          8  segment_count  u32      1 ..= 128
//!         12  raw_bytes      u32      1 ..= 8 MiB, all segments together
//!         16  stored_bytes   u32      of the whole block, header and index included
//!         20  zero           u32
//!         24  check          u64      XXH3-64 of header bytes 0..24 followed by the index
//!
//! entry    0  stored_bytes   u32      1 ..= raw_bytes; equal to raw_bytes when codec is Raw; + 28 when encrypted
//!          4  raw_bytes      u32      64 KiB but for the last segment
//!          8  check          u64      XXH3-64 of the stored bytes
//!         16  codec          u8       Codec
//!         17  zero           [u8; 7]
//! ```
//! All little-endian. Segments lie back to back in the order of the index. Pure: no I/O, no clock; the parser is
//! total, and nothing is decompressed before its checksum was found right.

use std::ops::Range;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

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
/// Most bytes of a stored block: nothing compresses, largest index, encrypted.
pub const STORED_BYTES_MAX: usize =
    header_bytes(SEGMENTS_MAX) + BLOCK_BYTES_MAX as usize + SEGMENTS_MAX as usize * SEGMENT_EXTRA_BYTES;

const MAGIC: [u8; 4] = *b"FXBK";
const VERSION: u16 = 1;
/// A segment is kept compressed only when at least one part in this many is saved: below that, opening it
/// costs more than the bytes it saves.
const GAIN_MIN: usize = 16;
const ZSTD_LEVEL: i32 = 1;

/// Bytes of header and index of a block with `segment_count` segments.
#[must_use]
pub const fn header_bytes(segment_count: u32) -> usize {
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
    /// As they are.
    Raw = 0,
    /// LZ4 block format without a size in front.
    Lz4 = 1,
    /// One zstd frame.
    Zstd = 2,
}

impl Codec {
    /// The codec a number stands for.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Raw),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd),
            _ => None,
        }
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
}

impl Header {
    /// Parses the first [`HEADER_BYTES`] bytes of a block.
    ///
    /// # Errors
    /// `Short`, `Magic`, `Index`.
    pub fn parse(bytes: &[u8]) -> Result<Self, BlockError> {
        let (raw, _) = RawHeader::ref_from_prefix(bytes)
            .map_err(|_| BlockError::Short { found: bytes.len(), needed: HEADER_BYTES })?;
        if raw.magic != MAGIC || raw.version.get() != VERSION {
            return Err(BlockError::Magic);
        }
        let header = Self {
            segment_count: raw.segment_count.get(),
            raw_bytes: raw.raw_bytes.get(),
            stored_bytes: raw.stored_bytes.get(),
            encrypted: raw.encrypted == 1,
        };
        let sound = raw.encrypted <= 1
            && raw.zero2.get() == 0
            && raw.compression <= 2
            && (1..=BLOCK_BYTES_MAX).contains(&header.raw_bytes)
            && header.segment_count == segment_count(header.raw_bytes)
            && header.stored_bytes as usize > header_bytes(header.segment_count)
            && header.stored_bytes as usize <= STORED_BYTES_MAX;
        if sound { Ok(header) } else { Err(BlockError::Index) }
    }

    /// Bytes of header and index.
    #[must_use]
    pub fn index_bytes(&self) -> usize {
        header_bytes(self.segment_count)
    }
}

/// Header and index of a block, checked: lengths add up, codecs are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    header: Header,
    segments: Vec<Segment>,
}

impl Index {
    /// Parses header and index; `bytes` may go on behind them.
    ///
    /// # Errors
    /// `Short` (with the number of bytes needed), `Magic`, `Index`, `Check`.
    pub fn parse(bytes: &[u8]) -> Result<Self, BlockError> {
        let header = Header::parse(bytes)?;
        let needed = header.index_bytes();
        let Some(bytes) = bytes.get(..needed) else {
            return Err(BlockError::Short { found: bytes.len(), needed });
        };
        let (head, entries) = bytes.split_at(HEADER_BYTES);
        let raw_header = RawHeader::ref_from_bytes(head).map_err(|_| BlockError::Index)?;
        if raw_header.check.get() != index_check(&head[..24], entries) {
            return Err(BlockError::Check);
        }
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
        Ok(Self { header, segments })
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

    /// Where the stored bytes of segments `first .. first + count` lie in the stored block.
    ///
    /// # Errors
    /// `Range` when the block has no such segments, or `count` is 0.
    pub fn stored_range(&self, first: u32, count: u32) -> Result<Range<usize>, BlockError> {
        let wanted = self.select(first, count)?;
        let skipped = &self.segments[..first as usize];
        let sum = |segments: &[Segment]| segments.iter().map(|s| s.stored_bytes as usize).sum::<usize>();
        let start = self.header.index_bytes() + sum(skipped);
        Ok(start..start + sum(wanted))
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
        Some(Codec::Raw) => {
            out.copy_from_slice(stored);
            Some(out.len())
        }
        Some(Codec::Lz4) => lz4_flex::block::decompress_into(stored, out).ok(),
        Some(Codec::Zstd) => zstd::bulk::decompress_to_buffer(stored, out).ok(),
        None => None,
    };
    if opened == Some(out.len()) { Ok(()) } else { Err(BlockError::Decompress) }
}

/// Checks the stored bytes of a segment without opening it: all there is to do for `Codec::Raw` bytes that were
/// received where they belong.
///
/// # Errors
/// `Index` (lengths), `Check`.
pub fn check_stored(segment: &Segment, stored: &[u8]) -> Result<(), BlockError> {
    check_lengths(segment, false)?;
    if stored.len() != segment.stored_bytes as usize {
        return Err(BlockError::Index);
    }
    if xxh3_64(stored) == segment.check { Ok(()) } else { Err(BlockError::Check) }
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

/// Makes a block segment by segment, so that a shard can do other things in between: 64 KiB take up to about
/// 0.2 ms to compress, a whole block of 8 MiB 25 ms.
pub struct Builder {
    compression: Compression,
    cipher: Option<BlockCipher>,
    index: u32,
    raw_bytes: u32,
    raw_left: u32,
    start: usize,
    entry: usize,
    out: Vec<u8>,
    /// Segments in a row that did not shrink.
    in_vain: u32,
    /// Where segments are compressed to: zeroed once, not for each of them.
    scratch: Vec<u8>,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    lz4: Option<lz4_flex::block::CompressTable>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("raw_bytes", &self.raw_bytes).finish_non_exhaustive()
    }
}

impl Builder {
    /// A block of `raw_bytes` raw bytes, appended to `out`, encrypted when there is a cipher.
    ///
    /// # Errors
    /// `Size` for nothing and for more than a block holds.
    pub fn new(
        raw_bytes: u32,
        compression: Compression,
        cipher: Option<BlockCipher>,
        mut out: Vec<u8>,
    ) -> Result<Self, BlockError> {
        if !(1..=BLOCK_BYTES_MAX).contains(&raw_bytes) {
            return Err(BlockError::Size);
        }
        let start = out.len();
        let segment_count = segment_count(raw_bytes);
        let index = header_bytes(segment_count);
        let extra = if cipher.is_some() { segment_count as usize * SEGMENT_EXTRA_BYTES } else { 0 };
        // The usual case is room for all of it stored raw; growing would copy megabytes.
        out.reserve_exact(index + raw_bytes as usize + extra);
        out.resize(start + index, 0);
        Ok(Self {
            compression,
            cipher,
            index: 0,
            raw_bytes,
            raw_left: raw_bytes,
            start,
            entry: start + HEADER_BYTES,
            out,
            in_vain: 0,
            scratch: Vec::new(),
            zstd: None,
            lz4: None,
        })
    }

    /// Bytes the next segment must have; 0 when all are there.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.raw_left.min(SEGMENT_BYTES) as usize
    }

    /// Adds the next segment.
    ///
    /// # Errors
    /// `Size` when it does not have [`Builder::wanted`] bytes.
    pub fn push(&mut self, raw: &[u8]) -> Result<(), BlockError> {
        if raw.is_empty() || raw.len() != self.wanted() {
            return Err(BlockError::Size);
        }
        let start = self.out.len();
        if self.cipher.is_some() {
            BlockCipher::begin(&mut self.out);
        }
        let codec = self.compress(raw);
        let raw_bytes = self.wanted_u32();
        if let Some(cipher) = &self.cipher {
            let place = Place { index: self.index, raw_bytes, codec: codec as u8 };
            cipher.seal(place, start, &mut self.out);
        }
        let stored = &self.out[start..];
        let entry = RawEntry {
            stored_bytes: u32::try_from(stored.len()).map_err(|_| BlockError::Size)?.into(),
            raw_bytes: raw_bytes.into(),
            check: xxh3_64(stored).into(),
            codec: codec as u8,
            zero: [0; 7],
        };
        self.out[self.entry..self.entry + ENTRY_BYTES].copy_from_slice(entry.as_bytes());
        self.entry += ENTRY_BYTES;
        self.index += 1;
        self.raw_left -= raw_bytes;
        Ok(())
    }

    /// The buffer with the block at its end.
    ///
    /// # Errors
    /// `Size` when segments are missing.
    pub fn finish(mut self) -> Result<Vec<u8>, BlockError> {
        if self.raw_left != 0 {
            return Err(BlockError::Size);
        }
        let count = segment_count(self.raw_bytes);
        let mut header = RawHeader {
            magic: MAGIC,
            version: VERSION.into(),
            compression: match self.compression {
                Compression::None => 0,
                Compression::Lz4 => 1,
                Compression::Zstd => 2,
            },
            encrypted: u8::from(self.cipher.is_some()),
            segment_count: count.into(),
            raw_bytes: self.raw_bytes.into(),
            stored_bytes: u32::try_from(self.out.len() - self.start).map_err(|_| BlockError::Size)?.into(),
            zero2: 0.into(),
            check: 0.into(),
        };
        let index = &self.out[self.start + HEADER_BYTES..self.start + header_bytes(count)];
        header.check = index_check(&header.as_bytes()[..24], index).into();
        self.out[self.start..self.start + HEADER_BYTES].copy_from_slice(header.as_bytes());
        Ok(self.out)
    }

    fn wanted_u32(&self) -> u32 {
        self.raw_left.min(SEGMENT_BYTES)
    }

    /// Appends `raw` in the volume's codec, or as it is when that does not pay.
    fn compress(&mut self, raw: &[u8]) -> Codec {
        // What follows noise is noise as a rule: archives, pictures, weights. It is tried now and then.
        let is_tried = self.in_vain < IN_VAIN_MAX || self.index.is_multiple_of(TRIED_OF);
        let made = match self.compression {
            _ if !is_tried => None,
            Compression::None => None,
            Compression::Lz4 => {
                let table = self.lz4.get_or_insert_with(lz4_flex::block::CompressTable::large);
                self.scratch.resize(lz4_flex::block::get_maximum_output_size(raw.len()), 0);
                lz4_flex::block::compress_into_with_table(raw, &mut self.scratch, table)
                    .ok()
                    .map(|stored| (Codec::Lz4, stored))
            }
            Compression::Zstd => {
                if self.zstd.is_none() {
                    // Fails only without memory; the segment is then stored as it is.
                    self.zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
                }
                self.scratch.resize(zstd::zstd_safe::compress_bound(raw.len()), 0);
                let scratch = self.scratch.as_mut_slice();
                self.zstd
                    .as_mut()
                    .and_then(|zstd| zstd.compress_to_buffer(raw, scratch).ok())
                    .map(|stored| (Codec::Zstd, stored))
            }
        };
        if let Some((codec, stored)) = made
            && stored < raw.len()
            && stored <= raw.len() - raw.len() / GAIN_MIN
        {
            self.in_vain = 0;
            self.out.extend_from_slice(&self.scratch[..stored]);
            return codec;
        }
        self.in_vain += u32::from(is_tried);
        self.out.extend_from_slice(raw);
        Codec::Raw
    }
}

/// After so many segments in a row that did not shrink only one of [`TRIED_OF`] is tried.
const IN_VAIN_MAX: u32 = 2;
/// See [`IN_VAIN_MAX`].
const TRIED_OF: u32 = 8;

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
mod tests {
    use super::*;
    use crate::cipher::{Cipher, VolumeKey};
    use crate::id::BlockId;

    fn mixed(bytes: usize) -> Vec<u8> {
        // Text, noise, zeros in turn of 100 000 bytes: some segments shrink, some do not.
        let mut state = 1u64;
        (0..bytes)
            .map(|i| match i / 100_000 % 3 {
                0 => b"flexfs "[i % 7],
                1 => {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    state.to_be_bytes()[0]
                }
                _ => 0,
            })
            .collect()
    }

    #[test]
    fn noise_is_seldom_tried_and_what_follows_it_is_found() {
        let noise = {
            let mut state = 7u64;
            move |_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state.to_be_bytes()[0]
            }
        };
        let mut raw: Vec<u8> = (0..20 * 65_536).map(noise).collect();
        raw.resize(40 * 65_536, b'x');
        let mut block = Vec::new();
        seal(&raw, Compression::Lz4, &mut block).unwrap();
        let index = Index::parse(&block).unwrap();
        let codecs: Vec<u8> = index.segments().iter().map(|segment| segment.codec).collect();
        let raws = codecs.iter().take_while(|codec| **codec == Codec::Raw as u8).count();
        assert!((20..20 + TRIED_OF as usize).contains(&raws), "{codecs:?}");
        assert!(codecs[raws..].iter().all(|codec| *codec == Codec::Lz4 as u8), "{codecs:?}");
        assert!(open(&block).unwrap() == raw);
    }

    fn open(block: &[u8]) -> Result<Vec<u8>, BlockError> {
        let index = Index::parse(block)?;
        let mut raw = vec![0; index.raw_bytes() as usize];
        let mut at = 0;
        for (number, segment) in (0..).zip(index.segments()) {
            let stored = &block[index.stored_range(number, 1)?];
            open_segment(segment, stored, &mut raw[at..at + segment.raw_bytes as usize])?;
            at += segment.raw_bytes as usize;
        }
        Ok(raw)
    }

    #[test]
    fn round_trip_in_every_codec() {
        for bytes in [1, 4096, 65_535, 65_536, 65_537, 300_000] {
            let raw = mixed(bytes);
            for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
                let mut out = b"before".to_vec();
                seal(&raw, compression, &mut out).unwrap();
                let block = &out[6..];
                assert_eq!(Index::parse(block).unwrap().stored_bytes() as usize, block.len());
                assert_eq!(open(block).unwrap(), raw);
            }
        }
    }

    #[test]
    fn encrypted_blocks_open_with_their_key_and_as_themselves_only() {
        let cipher = Cipher::new(&VolumeKey::random());
        let raw = mixed(300_000);
        let mut stored = Vec::new();
        seal_encrypted(&raw, Compression::Lz4, cipher.block(BlockId(9)), &mut stored).unwrap();
        let index = Index::parse(&stored).unwrap();
        assert!(index.is_encrypted());
        let count = u32::try_from(index.segments().len()).unwrap();
        let open = |block, number: u32, plain: &mut Vec<u8>| {
            let segment = &index.segments()[number as usize];
            let mut out = vec![0; segment.raw_bytes as usize];
            let bytes = &stored[index.stored_range(number, 1).unwrap()];
            open_encrypted(&cipher.block(block), number, segment, bytes, &mut out, plain).map(|()| out)
        };
        let mut plain = Vec::new();
        let opened: Vec<u8> =
            (0..count).flat_map(|number| open(BlockId(9), number, &mut plain).unwrap()).collect();
        assert_eq!(opened, raw);
        assert_eq!(open(BlockId(8), 0, &mut plain), Err(BlockError::Tampered));
        assert!(!stored.windows(14).any(|bytes| bytes == b"flexfs flexfs "));
        let (first, second) = (&index.segments()[0], &stored[index.stored_range(1, 1).unwrap()]);
        let mut out = vec![0; first.raw_bytes as usize];
        let swapped = open_encrypted(&cipher.block(BlockId(9)), 0, first, second, &mut out, &mut plain);
        assert!(swapped.is_err());
    }

    #[test]
    fn what_does_not_shrink_is_stored_raw() {
        let raw = mixed(300_000);
        let mut out = Vec::new();
        seal(&raw, Compression::Lz4, &mut out).unwrap();
        let codecs: Vec<u8> = Index::parse(&out).unwrap().segments().iter().map(|s| s.codec).collect();
        assert!(codecs.contains(&(Codec::Raw as u8)) && codecs.contains(&(Codec::Lz4 as u8)), "{codecs:?}");
    }

    #[test]
    fn sizes_are_bounded() {
        let mut out = Vec::new();
        assert_eq!(seal(&[], Compression::None, &mut out), Err(BlockError::Size));
        let raw = vec![0; BLOCK_BYTES_MAX as usize + 1];
        assert_eq!(seal(&raw, Compression::None, &mut out), Err(BlockError::Size));
        let mut builder = Builder::new(65_537, Compression::None, None, Vec::new()).unwrap();
        assert_eq!(builder.push(&[0; 1]), Err(BlockError::Size));
        builder.push(&[0; 65_536]).unwrap();
        assert_eq!(builder.wanted(), 1);
        assert!(builder.finish().is_err());
    }

    #[test]
    fn every_damaged_byte_is_found() {
        let mut out = Vec::new();
        seal(&mixed(70_000), Compression::Lz4, &mut out).unwrap();
        for at in (0..out.len()).step_by(if out.len() > 5_000 { 7 } else { 1 }) {
            out[at] ^= 0x10;
            assert!(open(&out).is_err(), "byte {at}");
            out[at] ^= 0x10;
        }
        assert_eq!(Index::parse(&out[..40]), Err(BlockError::Short { found: 40, needed: 80 }));
    }
}
