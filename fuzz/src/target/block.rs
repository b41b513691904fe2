//! Blocks: a foreign one is refused or its segments are; a damaged one is never taken for data.

use std::sync::LazyLock;

use flexfs_wire::block::{self, Index};
use flexfs_wire::cipher::{Cipher, VolumeKey};
use flexfs_wire::id::BlockId;
use flexfs_wire::limits::{BLOCK_BYTES_MAX, SEGMENT_BYTES};
use flexfs_wire::settings::Compression;

/// The bytes as a block; then as raw bytes of one: first byte the compression, two more the place of a flipped bit.
pub fn run(data: &[u8]) {
    open_foreign(data);
    let [choice, low, high, raw @ ..] = data else { return };
    let compression = [Compression::None, Compression::Lz4, Compression::Zstd][usize::from(*choice) % 3];
    let mut stored = Vec::new();
    if block::seal(raw, compression, &mut stored).is_err() {
        assert!(raw.is_empty() || raw.len() > BLOCK_BYTES_MAX as usize);
        return;
    }
    assert_eq!(open_all(&stored).as_deref(), Ok(raw), "what we seal, we open");
    let place = usize::from(u16::from_le_bytes([*low, *high])) % stored.len();
    stored[place] ^= 1 << (choice / 3 % 8);
    if let Ok(opened) = open_all(&stored) {
        assert_eq!(opened, raw, "byte {place} of {} was changed and nobody saw it", stored.len());
    }
    let cut = &stored[..place];
    assert!(open_all(cut).is_err(), "a block cut at {place} is no block");
    encrypted(raw, compression, place, *choice);
}

/// Encrypted, no bit of a segment can be changed, nor can it be opened as one of another block.
fn encrypted(raw: &[u8], compression: Compression, place: usize, choice: u8) {
    static CIPHER: LazyLock<Cipher> = LazyLock::new(|| Cipher::new(&VolumeKey::random()));
    let block = BlockId(u64::from(choice));
    let mut stored = Vec::new();
    block::seal_encrypted(raw, compression, CIPHER.block(block), &mut stored).expect("plain it was taken");
    assert_eq!(decrypt(&CIPHER, block, &stored).as_deref(), Ok(raw), "what we encrypt, we decrypt");
    assert!(decrypt(&CIPHER, BlockId(block.0 + 1), &stored).is_err(), "as another block");
    let place = place % stored.len();
    stored[place] ^= 1 << (choice / 3 % 8);
    // A change of the checksums of segments is no change of data.
    if let Ok(opened) = decrypt(&CIPHER, block, &stored) {
        assert_eq!(opened, raw, "byte {place} was changed and nobody saw it");
    }
}

fn decrypt(cipher: &Cipher, block: BlockId, stored: &[u8]) -> Result<Vec<u8>, String> {
    let index = Index::parse(stored).map_err(|error| error.to_string())?;
    let (cipher, mut opened, mut plain) = (cipher.block(block), Vec::new(), Vec::new());
    for (number, segment) in (0u32..).zip(index.segments()) {
        let range = index.stored_range(number, 1).map_err(|error| error.to_string())?;
        let start = opened.len();
        opened.resize(start + segment.raw_bytes as usize, 0);
        let bytes = stored.get(range).ok_or("a segment beyond the end")?;
        block::open_encrypted(&cipher, number, segment, bytes, &mut opened[start..], &mut plain)
            .map_err(|error| error.to_string())?;
    }
    Ok(opened)
}

/// Opens what claims to be a block, segment by segment.
fn open_foreign(data: &[u8]) {
    let Ok(index) = Index::parse(data) else { return };
    let mut at = index.stored_range(0, 1).map_or(0, |range| range.start);
    let mut out = vec![0; SEGMENT_BYTES as usize];
    for (number, segment) in (0..).zip(index.segments()) {
        let end = at + segment.stored_bytes as usize;
        if let Some(stored) = data.get(at..end) {
            let verdict = block::open_segment(segment, stored, &mut out[..segment.raw_bytes as usize]);
            if let Some(checks) = index.page_checks(number) {
                assert_eq!(
                    block::check_pages(segment, checks, 0, stored),
                    verdict,
                    "pages are right when all of it is"
                );
            }
        }
        at = end;
    }
}

/// All raw bytes, or a text saying what was refused.
fn open_all(stored: &[u8]) -> Result<Vec<u8>, String> {
    let index = Index::parse(stored).map_err(|error| error.to_string())?;
    let mut opened = Vec::new();
    for (number, segment) in (0u32..).zip(index.segments()) {
        let range = index.stored_range(number, 1).map_err(|error| error.to_string())?;
        let start = opened.len();
        opened.resize(start + segment.raw_bytes as usize, 0);
        let bytes = stored.get(range).ok_or("a segment beyond the end")?;
        block::open_segment(segment, bytes, &mut opened[start..]).map_err(|error| error.to_string())?;
    }
    Ok(opened)
}
