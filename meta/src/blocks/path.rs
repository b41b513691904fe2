//! Where a block's file is.

use std::path::{Path, PathBuf};

use flexfs_wire::id::BlockId;

/// Ending of a file that is being written.
const FRESH: &str = ".new";

/// Folder of a block.
pub(super) fn folder(blocks: &Path, block: BlockId) -> PathBuf {
    blocks.join(format!("{:02x}", (block.0 >> 8) & 0xff))
}

/// File of a block.
pub(super) fn file(blocks: &Path, block: BlockId) -> PathBuf {
    folder(blocks, block).join(format!("{:016x}", block.0))
}

/// File of a block that is being written.
pub(super) fn fresh(blocks: &Path, block: BlockId) -> PathBuf {
    folder(blocks, block).join(format!("{:016x}{FRESH}", block.0))
}

/// What a file's name says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// A stored block.
    Block(BlockId),
    /// A half-written one.
    Fresh,
    /// Not ours.
    Other,
}

/// Reads a file's name.
pub(super) fn parse(name: &str) -> Named {
    let digits = name.strip_suffix(FRESH).unwrap_or(name);
    let plain = digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match u64::from_str_radix(digits, 16) {
        Ok(_) if plain && digits.len() != name.len() => Named::Fresh,
        Ok(id) if plain => Named::Block(BlockId(id)),
        Ok(_) | Err(_) => Named::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        let blocks = Path::new("/b");
        let block = BlockId(0x1234_5678);
        assert_eq!(file(blocks, block), Path::new("/b/56/0000000012345678"));
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(parse(&name(file(blocks, block))), Named::Block(block));
        assert_eq!(parse(&name(fresh(blocks, block))), Named::Fresh);
        for other in ["", "lost+found", "000000001234567", "000000001234567G", "+000000012345678"] {
            assert_eq!(parse(other), Named::Other, "{other}");
        }
    }
}
