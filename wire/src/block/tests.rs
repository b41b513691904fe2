//! Blocks, made and opened again, whole and damaged.

use super::builder::TRIED_OF;
use super::*;
use crate::cipher::{Cipher, VolumeKey};
use crate::id::BlockId;

fn mixed(bytes: usize) -> Vec<u8> {
    // Text, noise, zeros in turn of 100 000 bytes: some segments shrink, some do not.
    let mut state = 1u64;
    (0..bytes)
        .map(|i| match i / 100_000 % 3 {
            0 => b"flexfs "[i % 7],
            1 => {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state.to_be_bytes()[0]
            }
            _ => 0,
        })
        .collect()
}

#[test]
fn noise_is_seldom_tried_and_what_follows_it_is_found() {
    let noise = {
        let mut state = 7u64;
        move |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        }
    };
    let mut raw: Vec<u8> = (0..20 * 65_536).map(noise).collect();
    raw.resize(40 * 65_536, b'x');
    let mut block = Vec::new();
    seal(&raw, Compression::Lz4, &mut block).unwrap();
    let index = Index::parse(&block).unwrap();
    let codecs: Vec<u8> = index.segments().iter().map(|segment| segment.codec).collect();
    let raws = codecs.iter().take_while(|codec| **codec == Codec::Paged as u8).count();
    assert!((20..20 + TRIED_OF as usize).contains(&raws), "{codecs:?}");
    assert!(codecs[raws..].iter().all(|codec| *codec == Codec::Lz4 as u8), "{codecs:?}");
    assert!(open(&block).unwrap() == raw);
}

fn open(block: &[u8]) -> Result<Vec<u8>, BlockError> {
    let index = Index::parse(block)?;
    let mut raw = vec![0; index.raw_bytes() as usize];
    let mut at = 0;
    for (number, segment) in (0..).zip(index.segments()) {
        let stored = &block[index.stored_range(number, 1)?];
        open_segment(segment, stored, &mut raw[at..at + segment.raw_bytes as usize])?;
        at += segment.raw_bytes as usize;
    }
    Ok(raw)
}

#[test]
fn round_trip_in_every_codec() {
    for bytes in [1, 4096, 65_535, 65_536, 65_537, 300_000] {
        let raw = mixed(bytes);
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let mut out = b"before".to_vec();
            seal(&raw, compression, &mut out).unwrap();
            let block = &out[6..];
            assert_eq!(Index::parse(block).unwrap().stored_bytes() as usize, block.len());
            assert_eq!(open(block).unwrap(), raw);
        }
    }
}

#[test]
fn encrypted_blocks_open_with_their_key_and_as_themselves_only() {
    let cipher = Cipher::new(&VolumeKey::random());
    let raw = mixed(300_000);
    let mut stored = Vec::new();
    seal_encrypted(&raw, Compression::Lz4, cipher.block(BlockId(9)), &mut stored).unwrap();
    let index = Index::parse(&stored).unwrap();
    assert!(index.is_encrypted());
    let count = u32::try_from(index.segments().len()).unwrap();
    let open = |block, number: u32, plain: &mut Vec<u8>| {
        let segment = &index.segments()[number as usize];
        let mut out = vec![0; segment.raw_bytes as usize];
        let bytes = &stored[index.stored_range(number, 1).unwrap()];
        open_encrypted(&cipher.block(block), number, segment, bytes, &mut out, plain).map(|()| out)
    };
    let mut plain = Vec::new();
    let opened: Vec<u8> =
        (0..count).flat_map(|number| open(BlockId(9), number, &mut plain).unwrap()).collect();
    assert_eq!(opened, raw);
    assert_eq!(open(BlockId(8), 0, &mut plain), Err(BlockError::Tampered));
    assert!(!stored.windows(14).any(|bytes| bytes == b"flexfs flexfs "));
    let (first, second) = (&index.segments()[0], &stored[index.stored_range(1, 1).unwrap()]);
    let mut out = vec![0; first.raw_bytes as usize];
    let swapped = open_encrypted(&cipher.block(BlockId(9)), 0, first, second, &mut out, &mut plain);
    assert!(swapped.is_err());
}

#[test]
fn what_does_not_shrink_is_stored_raw() {
    let raw = mixed(300_000);
    let mut out = Vec::new();
    seal(&raw, Compression::Lz4, &mut out).unwrap();
    let codecs: Vec<u8> = Index::parse(&out).unwrap().segments().iter().map(|s| s.codec).collect();
    assert!(codecs.contains(&(Codec::Paged as u8)) && codecs.contains(&(Codec::Lz4 as u8)), "{codecs:?}");
}

#[test]
fn sizes_are_bounded() {
    let mut out = Vec::new();
    assert_eq!(seal(&[], Compression::None, &mut out), Err(BlockError::Size));
    let raw = vec![0; BLOCK_BYTES_MAX as usize + 1];
    assert_eq!(seal(&raw, Compression::None, &mut out), Err(BlockError::Size));
    let mut builder = Builder::new(65_537, Compression::None, None, Vec::new()).unwrap();
    assert_eq!(builder.push(&[0; 1]), Err(BlockError::Size));
    builder.push(&[0; 65_536]).unwrap();
    assert_eq!(builder.wanted(), 1);
    assert!(builder.finish().is_err());
}

#[test]
fn every_damaged_byte_is_found() {
    let mut out = Vec::new();
    seal(&mixed(70_000), Compression::Lz4, &mut out).unwrap();
    for at in (0..out.len()).step_by(if out.len() > 5_000 { 7 } else { 1 }) {
        out[at] ^= 0x10;
        assert!(open(&out).is_err(), "byte {at}");
        out[at] ^= 0x10;
    }
    assert_eq!(Index::parse(&out[..40]), Err(BlockError::Short { found: 40, needed: 80 + 18 * 8 }));
}

/// A block of the version before: no checks of pages.
fn old(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    seal(raw, Compression::None, &mut out).unwrap();
    let index = Index::parse(&out).unwrap();
    let (count, body) = (segment_count(index.raw_bytes()), out.split_off(index.header.head_bytes()));
    out.truncate(header_bytes(count));
    out[4] = 1;
    let stored_bytes = u32::try_from(out.len() + body.len()).unwrap();
    out[16..20].copy_from_slice(&stored_bytes.to_le_bytes());
    for (number, stored) in body.chunks(SEGMENT_BYTES as usize).enumerate() {
        let entry = HEADER_BYTES + number * ENTRY_BYTES;
        out[entry + 8..entry + 16].copy_from_slice(&xxh3_64(stored).to_le_bytes());
        out[entry + 16] = Codec::Raw as u8;
    }
    let check = index_check(&out[..24], &out[HEADER_BYTES..]);
    out[24..32].copy_from_slice(&check.to_le_bytes());
    out.extend_from_slice(&body);
    out
}

#[test]
fn blocks_of_older_releases_are_read() {
    let raw = mixed(300_000);
    let block = old(&raw);
    assert_eq!(open(&block).unwrap(), raw);
    assert_eq!(Index::parse(&block).unwrap().page_checks(0), None);
}

#[test]
fn any_pages_of_a_segment_are_verified_without_the_others() {
    let raw = mixed(200_001);
    let mut block = Vec::new();
    seal(&raw, Compression::None, &mut block).unwrap();
    let index = Index::parse(&block).unwrap();
    for (number, segment) in (0..).zip(index.segments()) {
        let stored = &block[index.stored_range(number, 1).unwrap()];
        let checks = index.page_checks(number).unwrap();
        let pages = segment.raw_bytes.div_ceil(PAGE_BYTES);
        for first in 0..pages {
            for count in 1..=pages - first {
                let range = page_range(segment, first, count).unwrap();
                assert_eq!(check_pages(segment, checks, first, &stored[range]), Ok(()));
            }
        }
        assert_eq!(page_range(segment, pages, 1), Err(BlockError::Range));
        assert_eq!(page_range(segment, 0, 0), Err(BlockError::Range));
        assert_eq!(page_range(segment, 1, u32::MAX), Err(BlockError::Range));
    }
    let segment = &index.segments()[1];
    let stored = &block[index.stored_range(1, 1).unwrap()];
    let (page, checks) = (&stored[4096..8192], index.page_checks(1).unwrap());
    let check = |checks: &[u8], first, page: &[u8]| check_pages(segment, checks, first, page);
    let mut damaged = page.to_vec();
    damaged[7] ^= 1;
    assert_eq!(check(checks, 1, &damaged), Err(BlockError::Check));
    assert_eq!(check(checks, 2, page), Err(BlockError::Check), "another page's");
    assert_eq!(check(index.page_checks(0).unwrap(), 1, page), Err(BlockError::Check), "another segment's");
    assert_eq!(check(checks, 1, &page[..4095]), Err(BlockError::Index), "not whole");
    assert_eq!(check(&checks[8..], 0, page), Err(BlockError::Index));
    // Who forges a page's check does not get past the segment's.
    let mut forged = checks.to_vec();
    forged[8..16].copy_from_slice(&xxh3_64(&damaged).to_le_bytes());
    assert_eq!(check(&forged, 1, &damaged), Err(BlockError::Check));
}

#[test]
fn only_plain_segments_are_read_by_pages() {
    let raw = vec![b'x'; 100_000];
    let mut block = Vec::new();
    seal(&raw, Compression::Lz4, &mut block).unwrap();
    let index = Index::parse(&block).unwrap();
    assert_eq!(index.page_checks(0), None);
    assert_eq!(index.page_checks(9), None);
    let cipher = Cipher::new(&VolumeKey::random());
    let mut block = Vec::new();
    seal_encrypted(&mixed(200_000), Compression::None, cipher.block(BlockId(9)), &mut block).unwrap();
    assert_eq!((Index::parse(&block).unwrap().page_checks(1), block[4]), (None, 1));
}
