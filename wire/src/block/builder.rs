//! Making a block.

use xxhash_rust::xxh3::xxh3_64;
use zerocopy::IntoBytes as _;

use super::{
    BlockError, Codec, ENTRY_BYTES, HEADER_BYTES, MAGIC, RawEntry, RawHeader, VERSION, VERSION_PAGED,
    checks_bytes, header_bytes, index_check, pages, segment_count,
};
use crate::cipher::{BlockCipher, Place, SEGMENT_EXTRA_BYTES};
use crate::limits::{BLOCK_BYTES_MAX, SEGMENT_BYTES};
use crate::settings::Compression;

/// A segment is kept compressed only when at least one part in this many is saved: below that, opening it
/// costs more than the bytes it saves.
const GAIN_MIN: usize = 16;
const ZSTD_LEVEL: i32 = 1;
/// After so many segments in a row that did not shrink only one of [`TRIED_OF`] is tried.
const IN_VAIN_MAX: u32 = 2;
/// See [`IN_VAIN_MAX`].
pub(super) const TRIED_OF: u32 = 8;

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
    /// Where the checks of the next segment's pages go, behind the last one's; an encrypted block has none.
    checks: usize,
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
        let (checks, extra) = match cipher {
            Some(_) => (0, segment_count as usize * SEGMENT_EXTRA_BYTES),
            None => (checks_bytes(raw_bytes), 0),
        };
        // The usual case is room for all of it stored raw; growing would copy megabytes.
        out.reserve_exact(index + checks + raw_bytes as usize + extra);
        out.resize(start + index + checks, 0);
        Ok(Self {
            compression,
            cipher,
            index: 0,
            raw_bytes,
            raw_left: raw_bytes,
            start,
            entry: start + HEADER_BYTES,
            checks: start + index,
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
        let stored_bytes = self.out.len() - start;
        let check = if codec == Codec::Paged {
            let checks = &mut self.out[self.checks..self.checks + checks_bytes(raw_bytes)];
            pages::write_checks(raw, checks)
        } else {
            xxh3_64(&self.out[start..])
        };
        if self.cipher.is_none() {
            self.checks += checks_bytes(raw_bytes);
        }
        let entry = RawEntry {
            stored_bytes: u32::try_from(stored_bytes).map_err(|_| BlockError::Size)?.into(),
            raw_bytes: raw_bytes.into(),
            check: check.into(),
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
            version: if self.cipher.is_some() { VERSION } else { VERSION_PAGED }.into(),
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
        let index = &self.out[self.start + HEADER_BYTES..self.checks];
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
        if self.cipher.is_some() { Codec::Raw } else { Codec::Paged }
    }
}
