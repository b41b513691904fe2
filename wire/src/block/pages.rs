//! Checks of the pages of a segment, so that a reader of one page need not be given the other fifteen to verify it.
//!
//! They lie behind the index, 8 bytes each: XXH3-64 of the page, little-endian, in the order of the pages of the block. The check
//! of a [`Codec::Paged`] segment is XXH3-64 of those of its pages, so who has the segment whole needs no table, and who has a part
//! of it and all checks of its pages knows that the part is the one that was stored.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use super::{BlockError, Codec, check_lengths};
use crate::limits::SEGMENT_BYTES;
use crate::message::Segment;

/// Raw bytes of a page with a check of its own; the last of a block may be shorter.
pub const PAGE_BYTES: u32 = 4096;
/// Bytes of a page's check.
const PAGE_CHECK_BYTES: usize = 8;

const PAGE: usize = PAGE_BYTES as usize;

/// Bytes of the checks of the pages that `raw_bytes` make.
pub(super) const fn checks_bytes(raw_bytes: u32) -> usize {
    raw_bytes.div_ceil(PAGE_BYTES) as usize * PAGE_CHECK_BYTES
}

/// Where pages `first .. first + count` of a segment lie in its raw bytes.
///
/// # Errors
/// `Range` when it has no such pages, or `count` is 0.
pub fn page_range(segment: &Segment, first: u32, count: u32) -> Result<Range<usize>, BlockError> {
    let end = first.checked_add(count).ok_or(BlockError::Range)?;
    if count == 0 || end > segment.raw_bytes.div_ceil(PAGE_BYTES) {
        return Err(BlockError::Range);
    }
    Ok(first as usize * PAGE..(end as usize * PAGE).min(segment.raw_bytes as usize))
}

/// Verifies pages `first ..` of a [`Codec::Paged`] segment, all of them whole (but for the segment's last): `checks` are those of all of its
/// pages.
///
/// # Errors
/// `Index` (another codec, lengths), `Range`, `Check`.
pub fn check_pages(segment: &Segment, checks: &[u8], first: u32, pages: &[u8]) -> Result<(), BlockError> {
    check_lengths(segment, false)?;
    let count = u32::try_from(pages.len().div_ceil(PAGE)).map_err(|_| BlockError::Range)?;
    let range = page_range(segment, first, count)?;
    if segment.codec != Codec::Paged as u8
        || range.len() != pages.len()
        || checks.len() != checks_bytes(segment.raw_bytes)
    {
        return Err(BlockError::Index);
    }
    let behind = checks.get(first as usize * PAGE_CHECK_BYTES..).ok_or(BlockError::Range)?;
    let is_right = |(page, check): (&[u8], &[u8])| xxh3_64(page).to_le_bytes() == *check;
    let all_right = pages.chunks(PAGE).zip(behind.chunks_exact(PAGE_CHECK_BYTES)).all(is_right);
    if all_right && xxh3_64(checks) == segment.check { Ok(()) } else { Err(BlockError::Check) }
}

/// Writes the checks of the pages of a segment to `checks`, which has room for just them; the check of the segment.
pub(super) fn write_checks(raw: &[u8], checks: &mut [u8]) -> u64 {
    for (page, check) in raw.chunks(PAGE).zip(checks.chunks_exact_mut(PAGE_CHECK_BYTES)) {
        check.copy_from_slice(&xxh3_64(page).to_le_bytes());
    }
    xxh3_64(checks)
}

/// The check of a segment that is here whole: at most `SEGMENT_BYTES`.
pub(super) fn segment_check(raw: &[u8]) -> u64 {
    let mut checks = [0; checks_bytes(SEGMENT_BYTES)];
    let bytes = (raw.len().div_ceil(PAGE) * PAGE_CHECK_BYTES).min(checks.len());
    write_checks(raw, &mut checks[..bytes])
}
