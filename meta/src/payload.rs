//! The payload of a request, where `O_DIRECT` can write it from (open(2)): it begins at the beginning of a page, and there is
//! room behind it up to the end of one. Written through the page cache each block would be copied once more, into pages that
//! are seldom read before they are needed for something else.

use std::ops::{Deref, Range};

/// What `O_DIRECT` wants addresses, offsets and lengths to be multiples of; no disk asks for more.
pub const PAGE_BYTES: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub struct Payload {
    buffer: Vec<u8>,
    start: usize,
    length: usize,
}

impl Payload {
    /// Zeros, or what `spare` held, with `behind` bytes of room that are not part of it.
    #[must_use]
    pub fn of(length: usize, behind: usize, mut spare: Vec<u8>) -> Self {
        let room = (length + behind).max(length.next_multiple_of(PAGE_BYTES));
        let needed = room + PAGE_BYTES - 1;
        if spare.capacity() < needed {
            spare = vec![0; needed];
        }
        let start = spare.as_ptr().align_offset(PAGE_BYTES).min(PAGE_BYTES - 1);
        // Within the capacity: it stays where it is.
        spare.resize(start + room, 0);
        Self { buffer: spare, start, length }
    }

    /// A part of it, or of the room behind it.
    pub fn part_mut(&mut self, range: Range<usize>) -> Option<&mut [u8]> {
        self.buffer.get_mut(self.start + range.start..self.start + range.end)
    }

    /// The buffer, and where in it the payload is with zeros up to the end of its last page.
    #[must_use]
    pub fn into_pages(mut self) -> (Vec<u8>, Range<usize>) {
        let end = self.start + self.length.next_multiple_of(PAGE_BYTES);
        if let Some(padding) = self.buffer.get_mut(self.start + self.length..end) {
            padding.fill(0);
        }
        (self.buffer, self.start..end)
    }
}

impl Deref for Payload {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_the_payload_and_zeros() {
        let mut spare = Vec::new();
        for length in [0, 1, 4095, 4096, 4097, 100_000, 50_000] {
            let mut payload = Payload::of(length, 1, spare);
            assert_eq!(payload.len(), length);
            payload.part_mut(0..length + 1).unwrap().fill(7);
            let place = payload.as_ptr();
            let (buffer, pages) = payload.into_pages();
            assert_eq!(buffer[pages.clone()].as_ptr(), place);
            assert!((place.addr().is_multiple_of(PAGE_BYTES)) && pages.len().is_multiple_of(PAGE_BYTES));
            let (bytes, padding) = buffer[pages].split_at(length);
            assert!(bytes.iter().all(|byte| *byte == 7) && padding.iter().all(|byte| *byte == 0));
            spare = buffer;
        }
        assert!(Payload::default().is_empty());
    }
}
