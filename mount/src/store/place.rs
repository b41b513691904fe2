//! Where the raw bytes of a segment are wanted.

/// A destination for one segment.
#[derive(Debug)]
pub enum Place<'a> {
    /// Exactly here: the reader knows from its layout that the segment has this many raw bytes.
    Slice(&'a mut [u8]),
    /// Into a vector, which gets the segment's length. What it held may stay where nothing is written.
    Buffer(&'a mut Vec<u8>),
}

impl Place<'_> {
    /// Room for `raw_bytes`; `None` when the slice has another length.
    pub(crate) fn room(&mut self, raw_bytes: u32) -> Option<&mut [u8]> {
        let raw_bytes = raw_bytes as usize;
        match self {
            Self::Slice(slice) => (slice.len() == raw_bytes).then_some(&mut **slice),
            Self::Buffer(buffer) => {
                // Not cleared before: what is to be overwritten need not be zero.
                buffer.resize(raw_bytes, 0);
                Some(buffer.as_mut_slice())
            }
        }
    }
}
