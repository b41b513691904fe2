//! The bytes that files hold, so that reading can tell whether it got them.
//!
//! A file is pages of 4096 bytes. A page begins with its stamp, a little-endian `u64` of `seed << 32 | page number`; the
//! rest is noise that does not compress, the same in every page whose number is equal modulo 256.

use std::sync::LazyLock;

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;
/// Bytes of one transfer of sequential work.
pub(crate) const CHUNK: usize = 1 << 20;
/// Bytes of the stamp in front of a page.
const STAMP: usize = size_of::<u64>();

static NOISE: LazyLock<Vec<u8>> = LazyLock::new(noise);

/// A generator of numbers that look random (xorshift64*), the same in every run.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Zero is the one state it never leaves.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

fn noise() -> Vec<u8> {
    let mut random = Random::new(7);
    (0..CHUNK / STAMP).flat_map(|_| random.next().to_le_bytes()).collect()
}

fn stamp(seed: u64, page: u64) -> [u8; STAMP] {
    (seed << 32 | page).to_le_bytes()
}

fn noise_of(page: u64) -> &'static [u8] {
    let at = usize::try_from(page % (CHUNK / PAGE) as u64).unwrap_or(0) * PAGE;
    &NOISE[at + STAMP..at + PAGE]
}

/// Fills `out` with a file's bytes from `offset` on, which is the start of a page.
pub(crate) fn fill(out: &mut [u8], seed: u64, offset: u64) {
    let first = offset / PAGE as u64;
    for (page, place) in (first..).zip(out.chunks_mut(PAGE)) {
        let (head, rest) = place.split_at_mut(STAMP.min(place.len()));
        head.copy_from_slice(&stamp(seed, page)[..head.len()]);
        rest.copy_from_slice(&noise_of(page)[..rest.len()]);
    }
}

/// Whether `bytes`, whole pages read at `offset`, are the file's: all stamps, and all of one page in each 256, which is
/// little work beside the reading.
pub(crate) fn holds(bytes: &[u8], seed: u64, offset: u64) -> bool {
    let first = offset / PAGE as u64;
    let whole = usize::try_from(first % 251).unwrap_or(0);
    let pages = bytes.chunks(PAGE).len();
    bytes.len().is_multiple_of(PAGE)
        && (first..).zip(bytes.chunks(PAGE)).enumerate().all(|(index, (page, bytes))| {
            let is_looked_at = index % (CHUNK / PAGE) == whole % pages.clamp(1, CHUNK / PAGE);
            bytes[..STAMP] == stamp(seed, page) && (!is_looked_at || bytes[STAMP..] == *noise_of(page))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_in_the_wrong_place_is_seen() {
        let mut bytes = vec![0; 3 * CHUNK];
        fill(&mut bytes, 5, 0);
        assert!(holds(&bytes, 5, 0) && holds(&bytes[CHUNK..], 5, CHUNK as u64));
        assert!(!holds(&bytes, 6, 0) && !holds(&bytes[CHUNK..], 5, 0) && !holds(&bytes[1..], 5, 0));
        bytes.copy_within(PAGE..2 * PAGE, 0);
        assert!(!holds(&bytes, 5, 0));
    }

    #[test]
    fn single_pages_are_compared_whole() {
        let mut page = vec![0; PAGE];
        for number in [0, 1, 255, 256, 1000] {
            fill(&mut page, 1, number * PAGE as u64);
            assert!(holds(&page, 1, number * PAGE as u64));
            page[PAGE - 1] ^= 1;
            assert!(!holds(&page, 1, number * PAGE as u64));
        }
    }
}
