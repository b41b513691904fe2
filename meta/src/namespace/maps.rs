//! Extent maps of the files that are worked on, as they stand in the store.
//!
//! An engine that logs its changes keeps the old versions of a row, and a scan walks over all of them: where a file is
//! overwritten again and again (a database, fsx), reading its few extents from the store cost more than everything
//! else of a write together. Nothing here is ahead of the store: changes come in when their batch was committed.

use std::collections::BTreeMap;

use flexfs_wire::id::Ino;

use super::record::StoredExtent;
use crate::cache::Cache;

/// Extents of one file at most; those of a larger one are read from the store. A map is read whole, in some 10 ms then.
pub(super) const MAP_EXTENTS_MAX: usize = 16 * 1024;
/// Extents and files in one generation: some 20 MiB.
const GENERATION_MAX: usize = 256 * 1024;

/// What is known of a file.
#[derive(Debug)]
pub(super) enum Map {
    /// All its extents, each under the offset just past it.
    Whole(BTreeMap<u64, StoredExtent>),
    /// They are too many.
    Large,
}

/// The maps that are kept.
#[derive(Debug)]
pub(super) struct Maps(Cache<Ino, Map>);

impl Map {
    fn weight(&self) -> usize {
        1 + match self {
            Self::Whole(extents) => extents.len(),
            Self::Large => 0,
        }
    }
}

impl Default for Maps {
    fn default() -> Self {
        Self(Cache::weighed(GENERATION_MAX, Map::weight))
    }
}

impl Maps {
    /// What is known of `ino`, which counts as a use.
    pub(super) fn get(&mut self, ino: Ino) -> Option<&Map> {
        self.0.look(&ino)
    }

    /// Keeps what was read from the store.
    pub(super) fn insert(&mut self, ino: Ino, map: Map) {
        self.0.insert(ino, map);
    }

    /// A committed change of the extent that ends at `end`.
    pub(super) fn apply(&mut self, ino: Ino, end: u64, extent: Option<StoredExtent>) {
        self.0.change(&ino, |map| {
            let Map::Whole(extents) = map else { return };
            match extent {
                Some(extent) => extents.insert(end, extent),
                None => extents.remove(&end),
            };
            if extents.len() > MAP_EXTENTS_MAX {
                *map = Map::Large;
            }
        });
    }

    /// A committed change of the file: how many extents it has, `None` when it is gone.
    pub(super) fn settle(&mut self, ino: Ino, extents: Option<u64>) {
        // Half, so that a file at the border is not read again and again.
        let is_small = extents.is_some_and(|count| count <= (MAP_EXTENTS_MAX / 2) as u64);
        if extents.is_none() || is_small && matches!(self.get(ino), Some(Map::Large)) {
            self.0.remove(&ino);
        }
    }

    /// Files of which something is known.
    #[cfg(test)]
    pub(super) fn files(&self) -> Vec<Ino> {
        self.0.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use flexfs_wire::id::BlockId;

    use super::*;

    fn whole(count: usize) -> Map {
        let extents = (1..=count as u64).map(|end| (end, extent(end))).collect();
        Map::Whole(extents)
    }

    fn extent(end: u64) -> StoredExtent {
        StoredExtent { start: end - 1, end, block: BlockId(1), block_offset: 0, version: 0 }
    }

    #[test]
    fn weighs_what_it_keeps() {
        let mut maps = Maps::default();
        for ino in 0..1_000 {
            maps.insert(Ino(ino), whole(1_000));
            assert!(matches!(maps.get(Ino(0)), Some(Map::Whole(map)) if map.len() == 1_000));
            assert!(maps.0.weight() <= GENERATION_MAX);
        }
        assert!(maps.get(Ino(1)).is_none() && maps.files().len() < 600);
    }

    #[test]
    fn a_file_that_grows_too_large_is_read_anew_when_it_has_shrunk() {
        let mut maps = Maps::default();
        maps.insert(Ino(1), whole(MAP_EXTENTS_MAX));
        let end = MAP_EXTENTS_MAX as u64 + 1;
        maps.apply(Ino(1), end, Some(extent(end)));
        maps.settle(Ino(1), Some(end));
        assert!(matches!(maps.get(Ino(1)), Some(Map::Large)));
        assert_eq!(maps.0.weight(), 1);
        maps.settle(Ino(1), Some(10));
        assert!(maps.get(Ino(1)).is_none());
        maps.insert(Ino(1), whole(3));
        maps.apply(Ino(1), 2, None);
        maps.settle(Ino(1), Some(2));
        assert!(matches!(maps.get(Ino(1)), Some(Map::Whole(map)) if map.len() == 2));
        maps.settle(Ino(1), None);
        assert!(maps.get(Ino(1)).is_none());
        assert_eq!(maps.0.weight(), 0);
    }
}
