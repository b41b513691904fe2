//! One segment in a file of the cache: a header that says what it is, and its stored bytes.
//!
//! ```text
//! slot n begins at n * 69,632 (17 pages); what it does not use of that is a hole
//!
//!  0  magic          [u8; 4]   "FXDC"
//!  4  version        u16       1
//!  6  codec          u8        as in the block's index
//!  7  zero           u8
//!  8  block          u64
//! 16  segment        u32       number in the block
//! 20  stored_bytes   u32       1 ..= 65,564
//! 24  raw_bytes      u32
//! 28  zero           u32
//! 32  check          u64       of the stored bytes, as in the block's index
//! 40  volume         [u8; 16]  its UUID
//! 56  own_check      u64       XXH3-64 of bytes 0..56
//! 64  stored bytes
//! ```
//! All little-endian. A header that holds says that these bytes were written as this segment of this block of this volume;
//! whether they still are what was written is for who opens them (`wire::block`). Pure, the parser is total.

use flexfs_wire::cipher::SEGMENT_EXTRA_BYTES;
use flexfs_wire::id::BlockId;
use flexfs_wire::limits::SEGMENT_BYTES;
use flexfs_wire::message::Segment;
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What files are cut into: the unit that space is counted in, in bytes.
pub(super) const PAGE: usize = 4096;
/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 64;
/// Pages from one slot to the next: header and the longest segment, encrypted.
pub(super) const SLOT_PAGES: u8 = 17;
/// The same in bytes.
pub(super) const SLOT_BYTES: usize = SLOT_PAGES as usize * PAGE;

const MAGIC: [u8; 4] = *b"FXDC";
const VERSION: u16 = 1;
/// Bytes of the header that its own checksum covers.
const CHECKED_BYTES: usize = 56;

const _: () = assert!(HEADER_BYTES + SEGMENT_BYTES as usize + SEGMENT_EXTRA_BYTES <= SLOT_BYTES);
const _: () = assert!(size_of::<RawHeader>() == HEADER_BYTES);

/// UUID of a volume, as bytes.
pub(super) type Volume = [u8; 16];

/// Why bytes of the cache are not the segment that was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SlotError {
    /// Nothing was written here: a hole.
    #[error("nothing there")]
    Empty,
    /// The file ends before the segment does.
    #[error("cut short")]
    Short,
    /// Not a header of this version, or a damaged one.
    #[error("damaged header")]
    Header,
    /// Another segment, block or volume.
    #[error("of another place")]
    Foreign,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 4],
    version: U16,
    codec: u8,
    zero: u8,
    block: U64,
    segment: U32,
    stored_bytes: U32,
    raw_bytes: U32,
    zero2: U32,
    check: U64,
    volume: Volume,
    own_check: U64,
}

/// Where slot `number` begins, in bytes.
pub(super) fn offset(number: u32) -> u64 {
    u64::from(number) * SLOT_BYTES as u64
}

/// Pages that a slot with so many stored bytes takes.
pub(super) fn pages(stored_bytes: u32) -> u8 {
    let pages = (HEADER_BYTES + stored_bytes as usize).div_ceil(PAGE);
    u8::try_from(pages).unwrap_or(SLOT_PAGES).min(SLOT_PAGES)
}

/// Writes a slot into `out`, which is cleared before.
pub(super) fn write(
    volume: &Volume,
    block: BlockId,
    number: u32,
    segment: &Segment,
    stored: &[u8],
    out: &mut Vec<u8>,
) {
    let mut header = RawHeader {
        magic: MAGIC,
        version: VERSION.into(),
        codec: segment.codec,
        zero: 0,
        block: block.0.into(),
        segment: number.into(),
        stored_bytes: segment.stored_bytes.into(),
        raw_bytes: segment.raw_bytes.into(),
        zero2: 0.into(),
        check: segment.check.into(),
        volume: *volume,
        own_check: 0.into(),
    };
    header.own_check = xxh3_64(&header.as_bytes()[..CHECKED_BYTES]).into();
    out.clear();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(stored);
}

/// What a slot holds; its stored bytes are the `stored_bytes` behind the header, which are there.
///
/// # Errors
/// [`SlotError`].
pub(super) fn parse(
    volume: &Volume,
    block: BlockId,
    number: u32,
    bytes: &[u8],
) -> Result<Segment, SlotError> {
    let (header, stored) = RawHeader::ref_from_prefix(bytes).map_err(|_| SlotError::Short)?;
    let raw = &bytes[..HEADER_BYTES];
    if raw.iter().all(|byte| *byte == 0) {
        return Err(SlotError::Empty);
    }
    let sound = header.magic == MAGIC
        && header.version.get() == VERSION
        && header.zero == 0
        && header.zero2.get() == 0
        && header.own_check.get() == xxh3_64(&raw[..CHECKED_BYTES]);
    if !sound {
        return Err(SlotError::Header);
    }
    if header.volume != *volume || header.block.get() != block.0 || header.segment.get() != number {
        return Err(SlotError::Foreign);
    }
    if stored.len() < header.stored_bytes.get() as usize {
        return Err(SlotError::Short);
    }
    Ok(Segment {
        stored_bytes: header.stored_bytes.get(),
        raw_bytes: header.raw_bytes.get(),
        codec: header.codec,
        check: header.check.get(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOLUME: Volume = [7; 16];
    const BLOCK: BlockId = BlockId(0x1a7);

    fn slot() -> (Segment, Vec<u8>) {
        let stored = b"these are the stored bytes";
        let segment = Segment { stored_bytes: 26, raw_bytes: 65_536, codec: 1, check: xxh3_64(stored) };
        let mut out = b"before".to_vec();
        write(&VOLUME, BLOCK, 3, &segment, stored, &mut out);
        (segment, out)
    }

    #[test]
    fn what_was_written_is_read_as_itself_only() {
        let (segment, bytes) = slot();
        assert_eq!(parse(&VOLUME, BLOCK, 3, &bytes), Ok(segment));
        assert_eq!(&bytes[HEADER_BYTES..], b"these are the stored bytes");
        assert_eq!(parse(&[8; 16], BLOCK, 3, &bytes), Err(SlotError::Foreign));
        assert_eq!(parse(&VOLUME, BlockId(1), 3, &bytes), Err(SlotError::Foreign));
        assert_eq!(parse(&VOLUME, BLOCK, 2, &bytes), Err(SlotError::Foreign));
    }

    #[test]
    fn each_damaged_or_missing_byte_is_found() {
        let (_, mut bytes) = slot();
        for at in 0..HEADER_BYTES {
            bytes[at] ^= 0x10;
            assert!(parse(&VOLUME, BLOCK, 3, &bytes).is_err(), "byte {at}");
            bytes[at] ^= 0x10;
        }
        for length in 0..bytes.len() {
            assert_eq!(parse(&VOLUME, BLOCK, 3, &bytes[..length]), Err(SlotError::Short), "{length}");
        }
        assert_eq!(parse(&VOLUME, BLOCK, 3, &[0; PAGE]), Err(SlotError::Empty));
    }

    #[test]
    fn pages_are_enough_for_the_longest() {
        assert_eq!(pages(1), 1);
        assert_eq!(pages(4096 - 64), 1);
        assert_eq!(pages(4096), 2);
        assert_eq!(pages(SEGMENT_BYTES + 28), SLOT_PAGES);
    }
}
