//! The block format: golden bytes, round trips, hostile bytes.

use flexfs_wire::block::{self, BlockError, Index};
use flexfs_wire::settings::Compression;
use proptest::prelude::*;

fn compression() -> impl Strategy<Value = Compression> {
    prop_oneof![Just(Compression::None), Just(Compression::Lz4), Just(Compression::Zstd)]
}

fn open(bytes: &[u8]) -> Result<Vec<u8>, BlockError> {
    let index = Index::parse(bytes)?;
    let mut raw = vec![0; index.raw_bytes() as usize];
    let mut at = 0;
    for (number, segment) in (0..).zip(index.segments()) {
        let range = index.stored_range(number, 1)?;
        let stored = bytes.get(range).ok_or(BlockError::Range)?;
        block::open_segment(segment, stored, &mut raw[at..at + segment.raw_bytes as usize])?;
        at += segment.raw_bytes as usize;
    }
    Ok(raw)
}

const TEXT: &[u8] = b"flexfs flexfs flexfs flexfs flexfs flexfs";
/// `TEXT` as lz4_flex 0.14 makes it. Other versions may compress another way; all must open this.
const GOLDEN_LZ4: &str = "4658424b0100010001000000290000004a0000000000000068e4ecf073fb826312000000\
    2900000052d64e047e8f108001000000000000007f666c657866732007000960666c65786673";
/// `TEXT` as it is, of version 1.
const GOLDEN_RAW: &str = "4658424b01000000010000002900000061000000000000006a1d1d6b07839dfa29000000290000\
    00a8641357b2b48a6b0000000000000000666c6578667320666c6578667320666c6578667320666c6578667320666c657866732\
    0666c65786673";
/// The same of version 2, with the check of its page: every byte is this format's own.
const GOLDEN_PAGED: &str = "4658424b02000000010000002900000069000000000000001d62ac76cdeeace6290000002900\
    00001fcf2e5d66f195f10300000000000000a8641357b2b48a6b666c6578667320666c6578667320666c6578667320666c657866\
    7320666c6578667320666c65786673";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex")).collect()
}

#[test]
fn golden() {
    let mut out = Vec::new();
    block::seal(TEXT, Compression::None, &mut out).unwrap();
    let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN_PAGED, "the block format changed: raise its version, keep reading the old one");
    for old in [GOLDEN_LZ4, GOLDEN_RAW] {
        assert_eq!(open(&bytes(old)).unwrap(), TEXT);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn round_trip(
        noise in proptest::collection::vec(any::<u8>(), 1..3000),
        repeat in 1usize..60,
        compression in compression(),
    ) {
        let raw = noise.repeat(repeat);
        let mut out = Vec::new();
        block::seal(&raw, compression, &mut out).unwrap();
        prop_assert_eq!(open(&out).unwrap(), raw);
    }

    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Index::parse(&bytes).is_err());
        for version in 1..=2 {
            let mut magic = b"FXBK\x00\x00\x00\x00".to_vec();
            magic[4] = version;
            magic.extend(&bytes);
            prop_assert!(Index::parse(&magic).is_err());
        }
    }

    #[test]
    fn damage_is_found(
        noise in proptest::collection::vec(any::<u8>(), 1..300),
        at in any::<proptest::sample::Index>(),
        bit in 0u32..8,
        compression in compression(),
    ) {
        let mut out = Vec::new();
        block::seal(&noise.repeat(300), compression, &mut out).unwrap();
        let at = at.index(out.len());
        out[at] ^= 1 << bit;
        prop_assert!(open(&out).is_err());
    }
}
