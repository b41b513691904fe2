//! Bounds of a volume's space.
//!
//! What counts: bytes allocated by files (extents and inline parts; an extent that files share counts in each of them)
//! and inodes, orphans included until they are gone. A call that would pass a bound gets `ENOSPC`, as `statfs` shows the
//! bound as the size of the volume; a call that grows nothing is never refused, also when a bound was lowered.

use flexfs_wire::errno::Errno;

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
