//! Files that are written from front to end, closed, and not read here: checkpoints, results, copies. Where a directory gets such
//! files, the next ones are opened for direct I/O: the kernel makes no pages of what nobody will read, which saves a copy and an
//! allocation for each page written, and leaves its memory to files that are read. It is said when a file is opened or never, so
//! the files before tell. The same for small files, for another reason ([`Smalls`]).

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Bytes that make a file one of these: of smaller ones the pages cost little, and are soon read by somebody (`cc`, `git`).
const BYTES_MIN: u64 = 64 << 20;
/// Such files of a directory after which the next one is taken for one: one may be chance.
const SOME: u8 = 2;

/// Of a directory, how many such files it got since one of them was read here; of a file, whether it is one.
#[derive(Debug, Default)]
pub(crate) struct Streams(AtomicU8);

impl Streams {
    /// Whether the next file is expected to be one.
    pub(crate) fn has_some(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= SOME
    }

    /// One more.
    pub(crate) fn add(&self) {
        // At the top it stays.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| now.checked_add(1));
    }

    /// None so far. Whether there was one.
    pub(crate) fn forget(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0 && self.0.swap(0, Ordering::Relaxed) > 0
    }
}

/// Bytes of a file that it costs little to read once more.
const SMALL_BYTES_MAX: u64 = 16 << 10;

/// Of a directory, whether files that are made in it are small and only written: without pages the kernel does not ask before the first
/// write whether the file has capabilities, which is one request less of seven. Who reads one asks for its bytes, once.
#[derive(Debug, Default)]
pub(crate) struct Smalls(AtomicU8);

impl Smalls {
    /// Whether the next file is expected to be one.
    pub(crate) fn has_some(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= SOME
    }

    /// A file was written up to there, and closed.
    pub(crate) fn note(&self, end: u64) {
        if end > SMALL_BYTES_MAX {
            self.0.store(0, Ordering::Relaxed);
        } else if !self.has_some() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What was written through a descriptor that only writes.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: AtomicU64,
    end: AtomicU64,
    farthest: AtomicU64,
}

impl Writer {
    /// So many bytes were written at `offset`. One that goes back is no stream, and begins anew.
    pub(crate) fn note(&self, offset: u64, bytes: u64) {
        self.farthest.fetch_max(offset + bytes, Ordering::Relaxed);
        let goes_on = self.end.swap(offset + bytes, Ordering::Relaxed) == offset;
        if goes_on {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        } else {
            self.bytes.store(bytes, Ordering::Relaxed);
        }
    }

    /// Where the last byte that was written lies, and one.
    pub(crate) fn farthest(&self) -> u64 {
        self.farthest.load(Ordering::Relaxed)
    }

    /// Whether it wrote a file of the kind above.
    pub(crate) fn is_stream(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= BYTES_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_is_chance_and_a_reader_ends_it() {
        let streams = Streams::default();
        assert!(!streams.forget());
        streams.add();
        assert!(!streams.has_some());
        (0..300).for_each(|_| streams.add());
        assert!(streams.has_some());
        assert!(streams.forget() && !streams.has_some() && !streams.forget());
    }

    #[test]
    fn a_larger_file_ends_the_row_of_small_ones() {
        let smalls = Smalls::default();
        smalls.note(4096);
        assert!(!smalls.has_some());
        (0..300).for_each(|_| smalls.note(SMALL_BYTES_MAX));
        assert!(smalls.has_some());
        let writer = Writer::default();
        writer.note(0, SMALL_BYTES_MAX + 1);
        writer.note(0, 100);
        smalls.note(writer.farthest());
        assert!(!smalls.has_some(), "its head was written again");
    }

    #[test]
    fn who_goes_back_begins_anew() {
        let writer = Writer::default();
        let pieces = BYTES_MIN >> 20;
        (0..pieces - 1).for_each(|number| writer.note(number << 20, 1 << 20));
        assert!(!writer.is_stream());
        writer.note(0, 1 << 20);
        assert!(!writer.is_stream(), "the file's head, written again");
        (1..pieces).for_each(|number| writer.note(number << 20, 1 << 20));
        assert!(writer.is_stream());
    }
}
