//! Bounds of a volume's space.
//!
//! What counts: bytes allocated by files (extents and inline parts; an extent that files share counts in each of them)
//! and inodes, orphans included until they are gone. A call that would pass a bound gets `ENOSPC`, as `statfs` shows the
//! bound as the size of the volume; a call that grows nothing is never refused, also when a bound was lowered.
//!
//! Blocks that are stored and that no file refers to count when a block is put. A file is overwritten by new blocks beside its old
//! ones, and in a full volume that goes on: so much may be under way over the bound ([`with_under_way`]).

use flexfs_wire::errno::Errno;

/// One in so many bytes of a volume may be under way over its bound.
const UNDER_WAY_PART: u64 = 16;
/// Least, blocks: as many as a client sends at once.
const UNDER_WAY_BLOCKS: u64 = 16;

/// Bytes that files and blocks without a file may take together, where files may take `max`.
pub(crate) fn with_under_way(max: u64, block_bytes: u32) -> u64 {
    max.saturating_add((max / UNDER_WAY_PART).max(UNDER_WAY_BLOCKS * u64::from(block_bytes)))
}

/// Usage before and after a call, and the bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) before: u64,
    pub(crate) after: u64,
    pub(crate) max: u64,
}

impl Usage {
    /// # Errors
    /// `ENOSPC`.
    pub(crate) fn check(self) -> Result<(), Errno> {
        if self.after > self.before && self.after > self.max { Err(Errno::ENOSPC) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_growth_is_refused() {
        assert_eq!(Usage { before: 9, after: 10, max: 10 }.check(), Ok(()));
        assert_eq!(Usage { before: 10, after: 11, max: 10 }.check(), Err(Errno::ENOSPC));
        assert_eq!(Usage { before: 20, after: 15, max: 10 }.check(), Ok(()));
        assert_eq!(Usage { before: 20, after: 20, max: 10 }.check(), Ok(()));
    }
}
