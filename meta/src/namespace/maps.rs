//! Extent maps of the files that are worked on, as they stand in the store.
//!
//! An engine that logs its changes keeps the old versions of a row, and a scan walks over all of them: where a file is
//! overwritten again and again (a database, fsx), reading its few extents from the store cost more than everything
//! else of a write together. Nothing here is ahead of the store: changes come in when their batch was committed.

use std::collections::{BTreeMap, HashMap};

use flexfs_wire::id::Ino;

use super::record::StoredExtent;

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

/// Two generations, as [`Cache`](crate::cache::Cache) has them, weighed by extents.
#[derive(Debug, Default)]
pub(super) struct Maps {
    young: HashMap<Ino, Map>,
    old: HashMap<Ino, Map>,
    /// Of the young ones.
    weight: usize,
}

impl Map {
    fn weight(&self) -> usize {
        1 + match self {
            Self::Whole(extents) => extents.len(),
            Self::Large => 0,
        }
    }
}

impl Maps {
    /// What is known of `ino`, which counts as a use.
    pub(super) fn get(&mut self, ino: Ino) -> Option<&Map> {
        if let Some(map) = self.old.remove(&ino) {
            self.insert(ino, map);
        }
        self.young.get(&ino)
    }

    /// Keeps what was read from the store.
    pub(super) fn insert(&mut self, ino: Ino, map: Map) {
        if self.weight + map.weight() > GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
        self.old.remove(&ino);
        self.weight += map.weight();
        if let Some(before) = self.young.insert(ino, map) {
            self.weight = self.weight.saturating_sub(before.weight());
        }
    }

    /// A committed change of the extent that ends at `end`.
    pub(super) fn apply(&mut self, ino: Ino, end: u64, extent: Option<StoredExtent>) {
        let Some(Map::Whole(_)) = self.get(ino) else { return };
        let Some(map) = self.young.get_mut(&ino) else { return };
        let before = map.weight();
        if let Map::Whole(extents) = map {
            match extent {
                Some(extent) => extents.insert(end, extent),
                None => extents.remove(&end),
            };
            if extents.len() > MAP_EXTENTS_MAX {
                *map = Map::Large;
            }
        }
        self.weight = (self.weight + map.weight()).saturating_sub(before);
    }

    /// A committed change of the file: how many extents it has, `None` when it is gone.
    pub(super) fn settle(&mut self, ino: Ino, extents: Option<u64>) {
        let is_over = match extents {
            None => true,
            // Half, so that a file at the border is not read again and again.
            Some(count) => {
                count <= (MAP_EXTENTS_MAX / 2) as u64
                    && matches!(self.young.get(&ino).or_else(|| self.old.get(&ino)), Some(Map::Large))
            }
        };
        if is_over {
            self.old.remove(&ino);
            if let Some(map) = self.young.remove(&ino) {
                self.weight = self.weight.saturating_sub(map.weight());
            }
        }
    }

    /// Files of which something is known.
    #[cfg(test)]
    pub(super) fn files(&self) -> Vec<Ino> {
        self.young.keys().chain(self.old.keys()).copied().collect()
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
            assert!(maps.weight <= GENERATION_MAX);
        }
        let sum: usize = maps.young.values().map(Map::weight).sum();
        assert_eq!(maps.weight, sum);
        assert!(maps.get(Ino(1)).is_none() && maps.old.len() < 300);
    }

    #[test]
    fn a_file_that_grows_too_large_is_read_anew_when_it_has_shrunk() {
        let mut maps = Maps::default();
        maps.insert(Ino(1), whole(MAP_EXTENTS_MAX));
        let end = MAP_EXTENTS_MAX as u64 + 1;
        maps.apply(Ino(1), end, Some(extent(end)));
        maps.settle(Ino(1), Some(end));
        assert!(matches!(maps.get(Ino(1)), Some(Map::Large)));
        assert_eq!(maps.weight, 1);
        maps.settle(Ino(1), Some(10));
        assert!(maps.get(Ino(1)).is_none());
        maps.insert(Ino(1), whole(3));
        maps.apply(Ino(1), 2, None);
        maps.settle(Ino(1), Some(2));
        assert!(matches!(maps.get(Ino(1)), Some(Map::Whole(map)) if map.len() == 2));
        maps.settle(Ino(1), None);
        assert!(maps.get(Ino(1)).is_none());
        assert_eq!(maps.weight, 0);
    }
}
