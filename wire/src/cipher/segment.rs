//! Segments of blocks, each encrypted on its own: a small read still fetches one segment.
//!
//! ```text
//! nonce 12 ‖ AES-256-GCM( compressed or raw bytes ) ‖ tag 16
//!   key             HMAC-SHA-256( blocks key, block id u64 LE )
//!   associated data block id u64 LE ‖ index u32 LE ‖ raw bytes u32 LE ‖ codec u8
//! ```
//! A key of its own for each block, and random nonces: a server that hands one block id out twice, or a client that seals a
//! block again, repeats no pair of key and nonce (at most 128 segments a block; NIST SP 800-38D allows 2^32). A segment opens
//! only as the one it was made as: of that block, at that index, with that length and codec. A block that lost segments at its
//! end lacks what the file's extents ask for.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hmac, rand};

use super::{Cipher, Tampered};
use crate::id::BlockId;

/// Bytes of a GCM tag.
const TAG_BYTES: usize = 16;
/// Bytes that an encrypted segment is longer than what it holds.
pub const SEGMENT_EXTRA_BYTES: usize = NONCE_LEN + TAG_BYTES;

/// Encrypts and decrypts the segments of one block.
pub struct BlockCipher {
    key: LessSafeKey,
    block: BlockId,
}

impl fmt::Debug for BlockCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BlockCipher").field(&self.block).finish()
    }
}

/// What a segment is besides its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Its number in the block.
    pub(crate) index: u32,
    /// Its bytes when opened and decompressed.
    pub(crate) raw_bytes: u32,
    /// `block::Codec` as a number.
    pub(crate) codec: u8,
}

impl Cipher {
    /// The cipher of one block; about half a microsecond.
    #[must_use]
    pub fn block(&self, block: BlockId) -> BlockCipher {
        let key = hmac::sign(&self.blocks, &block.0.to_le_bytes());
        let key = UnboundKey::new(&AES_256_GCM, key.as_ref()).expect("SHA-256 has the length of the key");
        BlockCipher { key: LessSafeKey::new(key), block }
    }
}

impl BlockCipher {
    /// Room for what comes before a segment's bytes in `out`; they follow, then [`BlockCipher::seal`].
    pub(crate) fn begin(out: &mut Vec<u8>) {
        out.resize(out.len() + NONCE_LEN, 0);
    }

    /// Encrypts what lies in `out` from `start` on, where [`BlockCipher::begin`] was called, and appends the tag.
    ///
    /// # Panics
    /// When the operating system gives no random bytes.
    pub(crate) fn seal(&self, place: Place, start: usize, out: &mut Vec<u8>) {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).expect("the operating system gives random bytes");
        let (head, plain) = out[start..].split_at_mut(NONCE_LEN);
        head.copy_from_slice(&nonce);
        let tag = self
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(self.describe(place)),
                plain,
            )
            .expect("a segment is far below what GCM takes");
        out.extend_from_slice(tag.as_ref());
    }

    /// Decrypts `stored` to `out`, which takes exactly its bytes without [`SEGMENT_EXTRA_BYTES`].
    ///
    /// # Errors
    /// [`Tampered`]; `out` may hold anything.
    pub(crate) fn open(&self, place: Place, stored: &[u8], out: &mut [u8]) -> Result<(), Tampered> {
        let (nonce, rest) = stored.split_first_chunk::<NONCE_LEN>().ok_or(Tampered)?;
        let (text, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(Tampered)?;
        if text.len() != out.len() {
            return Err(Tampered);
        }
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.key
            .open_separate_gather(nonce, Aad::from(self.describe(place)), text, tag, out)
            .map_err(|_| Tampered)
    }

    fn describe(&self, place: Place) -> [u8; 17] {
        let mut text = [0; 17];
        text[..8].copy_from_slice(&self.block.0.to_le_bytes());
        text[8..12].copy_from_slice(&place.index.to_le_bytes());
        text[12..16].copy_from_slice(&place.raw_bytes.to_le_bytes());
        text[16] = place.codec;
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::VolumeKey;
    use super::*;

    const PLACE: Place = Place { index: 3, raw_bytes: 9, codec: 0 };

    fn sealed(cipher: &Cipher) -> Vec<u8> {
        let mut out = Vec::new();
        BlockCipher::begin(&mut out);
        out.extend_from_slice(b"plaintext");
        cipher.block(BlockId(7)).seal(PLACE, 0, &mut out);
        out
    }

    #[test]
    fn a_segment_opens_in_its_place_only() {
        let cipher = Cipher::new(&VolumeKey::random());
        let stored = sealed(&cipher);
        assert_eq!(stored.len(), 9 + SEGMENT_EXTRA_BYTES);
        assert_ne!(stored, sealed(&cipher), "nonces are random");
        let mut out = [0; 9];
        let open = |cipher: &Cipher, block, place, out: &mut [u8]| {
            cipher.block(BlockId(block)).open(place, &stored, out)
        };
        assert_eq!(open(&cipher, 7, PLACE, &mut out), Ok(()));
        assert_eq!(&out, b"plaintext");
        assert_eq!(open(&cipher, 8, PLACE, &mut out), Err(Tampered), "swapped blocks");
        for place in
            [Place { index: 2, ..PLACE }, Place { raw_bytes: 10, ..PLACE }, Place { codec: 1, ..PLACE }]
        {
            assert_eq!(open(&cipher, 7, place, &mut out), Err(Tampered), "{place:?}");
        }
        assert_eq!(open(&Cipher::new(&VolumeKey::random()), 7, PLACE, &mut out), Err(Tampered));
        assert_eq!(open(&cipher, 7, PLACE, &mut [0; 8]), Err(Tampered));
    }

    #[test]
    fn every_changed_or_missing_byte_is_found() {
        let cipher = Cipher::new(&VolumeKey::random());
        let block = cipher.block(BlockId(7));
        let mut stored = sealed(&cipher);
        let mut out = [0; 9];
        for at in 0..stored.len() {
            stored[at] ^= 1;
            assert_eq!(block.open(PLACE, &stored, &mut out), Err(Tampered), "byte {at}");
            stored[at] ^= 1;
            assert_eq!(block.open(PLACE, &stored[..at], &mut out), Err(Tampered), "cut at {at}");
        }
    }
}
