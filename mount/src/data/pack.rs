//! Dirty bytes become blocks and extents.
//!
//! Log-structured: whatever is dirty shares blocks in the order of the file, so scattered small writes cost one
//! block and no read. Pieces are never cut: a block with some room left is cheaper than copying megabytes.

use flexfs_wire::block::{BlockError, Builder};
use flexfs_wire::cipher::BlockCipher;
use flexfs_wire::extent::Extent;
use flexfs_wire::id::BlockId;
use flexfs_wire::limits::{EXTENTS_PER_WRITE_MAX, SEGMENT_BYTES};
use flexfs_wire::message::Inline;
use flexfs_wire::settings::Compression;

use super::dirty::Piece;

/// Segments made between two turns of the shard: 4 x 64 KiB take below a millisecond to compress.
const SEGMENTS_PER_TURN: usize = 4;

/// Deals ascending pieces, none longer than `room`, out to blocks of at most `room` raw bytes.
pub(crate) fn split(pieces: Vec<Piece>, room: u32) -> Vec<Vec<Piece>> {
    let mut blocks: Vec<Vec<Piece>> = Vec::new();
    let mut left = 0;
    for piece in pieces {
        let bytes = piece.bytes.len();
        match blocks.last_mut() {
            Some(block) if bytes <= left && block.len() < EXTENTS_PER_WRITE_MAX => block.push(piece),
            _ => {
                left = room as usize;
                blocks.push(vec![piece]);
            }
        }
        left -= bytes;
    }
    blocks
}

/// The extents of pieces stored back to back in `block`.
pub(crate) fn extents(pieces: &[Piece], block: BlockId) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    let mut block_offset = 0;
    for piece in pieces {
        let length = u32::try_from(piece.bytes.len()).expect("a piece fits into a block");
        match extents.last_mut() {
            Some(last) if last.end() == piece.offset => last.length += length,
            _ => extents.push(Extent { offset: piece.offset, length, block, block_offset }),
        }
        block_offset += length;
    }
    extents
}

/// Pieces within the inline part as messages carry them: one for each contiguous run, so that nothing is sent that
/// was not written.
pub(crate) fn runs(pieces: &[Piece]) -> Vec<Inline> {
    let mut runs: Vec<Inline> = Vec::new();
    for piece in pieces {
        match runs.last_mut() {
            Some(run) if u64::from(run.offset) + run.bytes.len() as u64 == piece.offset => {
                run.bytes.extend_from_slice(&piece.bytes);
            }
            _ => runs.push(Inline {
                offset: u32::try_from(piece.offset).expect("the inline part is 16 KiB"),
                bytes: piece.bytes.clone(),
            }),
        }
    }
    runs
}

/// Raw bytes of pieces.
pub(crate) fn raw_bytes(pieces: &[Piece]) -> usize {
    pieces.iter().map(|piece| piece.bytes.len()).sum()
}

/// Encodes pieces as one block, giving other tasks of the shard their turn in between.
pub(crate) async fn encode(
    pieces: &[Piece],
    compression: Compression,
    cipher: Option<BlockCipher>,
) -> Result<Vec<u8>, BlockError> {
    let raw_bytes = u32::try_from(raw_bytes(pieces)).map_err(|_| BlockError::Size)?;
    let mut builder = Builder::new(raw_bytes, compression, cipher, Vec::new())?;
    let mut carry = Vec::new();
    let mut count = 0;
    for piece in pieces {
        let mut bytes = &piece.bytes[..];
        while !bytes.is_empty() {
            let wanted = builder.wanted();
            if carry.is_empty() && bytes.len() >= wanted {
                builder.push(&bytes[..wanted])?;
                bytes = &bytes[wanted..];
            } else {
                // The segment has bytes of several pieces.
                let taken = bytes.len().min(wanted - carry.len());
                carry.reserve_exact((SEGMENT_BYTES as usize).min(wanted) - carry.len());
                carry.extend_from_slice(&bytes[..taken]);
                bytes = &bytes[taken..];
                if carry.len() < wanted {
                    continue;
                }
                builder.push(&carry)?;
                carry.clear();
            }
            count += 1;
            if count % SEGMENTS_PER_TURN == 0 && builder.wanted() > 0 {
                flexfs_uring::yield_now().await;
            }
        }
    }
    builder.finish()
}

#[cfg(test)]
mod tests {
    use flexfs_uring::{Shard, ShardConfig};
    use flexfs_wire::block::{Index, open_segment};
    use proptest::prelude::*;

    use super::*;

    fn pieces(parts: &[(u64, usize)]) -> Vec<Piece> {
        let mut end = 0;
        let mut pieces = Vec::new();
        for (number, (skip, length)) in (1..=250_u8).cycle().zip(parts) {
            let offset = end + skip;
            pieces.push(Piece { offset, bytes: vec![number; *length] });
            end = offset + *length as u64;
        }
        pieces
    }

    fn open(block: &[u8]) -> Vec<u8> {
        let index = Index::parse(block).unwrap();
        let mut raw = Vec::new();
        for (number, segment) in (0..).zip(index.segments()) {
            let mut bytes = vec![0; segment.raw_bytes as usize];
            open_segment(segment, &block[index.stored_range(number, 1).unwrap()], &mut bytes).unwrap();
            raw.extend_from_slice(&bytes);
        }
        raw
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
        #[test]
        fn every_byte_is_where_its_extent_says(
            parts in proptest::collection::vec((0..3_u64, 1..90_000_usize), 1..12),
        ) {
            let pieces = pieces(&parts);
            let shard = Shard::new(&ShardConfig { recv_buffers: 0, ..ShardConfig::default() }).unwrap();
            shard.block_on(async {
                for (number, block) in (1..).zip(split(pieces.clone(), 262_144)) {
                    let raw = open(&encode(&block, Compression::Lz4, None).await.unwrap());
                    assert!(raw.len() <= 262_144);
                    let extents = extents(&block, BlockId(number));
                    assert!(extents.windows(2).all(|pair| pair[0].end() < pair[1].offset));
                    let mut expected = block.iter().flat_map(|piece| {
                        (piece.offset..).zip(&piece.bytes).map(|(at, byte)| (at, *byte))
                    });
                    for extent in extents {
                        let start = extent.block_offset as usize;
                        for (at, byte) in (extent.offset..).zip(&raw[start..start + extent.length as usize]) {
                            assert_eq!(expected.next(), Some((at, *byte)));
                        }
                    }
                    assert_eq!(expected.next(), None);
                }
            });
        }
    }

    #[test]
    fn splits_keep_order_and_bounds() {
        let many = pieces(&vec![(1, 1); EXTENTS_PER_WRITE_MAX + 5]);
        let blocks = split(many.clone(), 262_144);
        assert_eq!(blocks.iter().map(Vec::len).collect::<Vec<_>>(), [EXTENTS_PER_WRITE_MAX, 5]);
        assert_eq!(blocks.concat(), many);
        assert!(split(Vec::new(), 5).is_empty());
        assert_eq!(split(pieces(&[(0, 3), (0, 3), (0, 2)]), 5).len(), 2);
    }
}
