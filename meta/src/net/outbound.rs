//! What waits to be written on one link: frames back to back, block payloads by themselves; sealed only when the socket
//! takes them, so that many small replies share a record and a write.

use std::collections::VecDeque;

use flexfs_wire::record::{PLAIN_BYTES_MAX, RecordError, Sealer};
use tokio::sync::OwnedSemaphorePermit;

/// Small frames are gathered up to this many bytes per chunk.
const CHUNK_BYTES: usize = 64 * 1024;
/// Plaintext sealed for one write: 32 full records, about 0.2 ms of AES.
const WRITE_BYTES: usize = 32 * PLAIN_BYTES_MAX;

#[derive(Debug)]
enum Chunk {
    Small(Vec<u8>),
    Payload { bytes: Vec<u8>, sent: usize, _room: Vec<OwnedSemaphorePermit> },
}

/// The queue of one link.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    chunks: VecDeque<Chunk>,
    bytes: usize,
}

impl Outbound {
    /// Plaintext bytes waiting.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a frame by letting `write` add it to a buffer; `write` returns what the frame's encoder said.
    pub(crate) fn frame<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        if !matches!(self.chunks.back(), Some(Chunk::Small(bytes)) if bytes.len() < CHUNK_BYTES) {
            self.chunks.push_back(Chunk::Small(Vec::with_capacity(512)));
        }
        let Some(Chunk::Small(bytes)) = self.chunks.back_mut() else { return Ok(()) };
        let before = bytes.len();
        write(bytes)?;
        self.bytes += bytes.len() - before;
        Ok(())
    }

    /// Appends the payload of the frame just appended. `room` is given back when it has been sealed.
    pub(crate) fn payload(&mut self, bytes: Vec<u8>, room: Vec<OwnedSemaphorePermit>) {
        self.bytes += bytes.len();
        self.chunks.push_back(Chunk::Payload { bytes, sent: 0, _room: room });
    }

    /// Seals the next bytes to write into `out`; false when nothing waits.
    ///
    /// # Errors
    /// The key is used up: the link must end.
    pub(crate) fn seal(&mut self, sealer: &mut Sealer, out: &mut Vec<u8>) -> Result<bool, RecordError> {
        let mut left = WRITE_BYTES;
        while left > 0 {
            match self.chunks.front_mut() {
                None => break,
                Some(Chunk::Small(bytes)) => {
                    let bytes = std::mem::take(bytes);
                    self.chunks.pop_front();
                    self.bytes -= bytes.len();
                    left = left.saturating_sub(bytes.len());
                    sealer.seal(&[&bytes], out)?;
                }
                Some(Chunk::Payload { bytes, sent, .. }) => {
                    let part = (bytes.len() - *sent).min(left.next_multiple_of(PLAIN_BYTES_MAX));
                    sealer.seal(&[&bytes[*sent..*sent + part]], out)?;
                    *sent += part;
                    self.bytes -= part;
                    left = left.saturating_sub(part);
                    if *sent == bytes.len() {
                        self.chunks.pop_front();
                    }
                }
            }
        }
        Ok(!out.is_empty())
    }
}
