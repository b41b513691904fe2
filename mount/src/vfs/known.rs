//! Which names of a directory the kernel may know: only those need be taken from it when they change.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{LazyLock, Mutex, PoisonError};

use flexfs_wire::name::Name;

/// Names remembered for one directory, 8 bytes and some each. With more, the kernel may know any.
const NAMES_MAX: usize = 1 << 16;

/// Hashes of names. Never forgets one that the kernel may know; two names of one hash are one.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<Names>);

#[derive(Debug, Default)]
struct Names {
    hashes: HashSet<u64>,
    any: bool,
}

impl Known {
    /// The kernel is about to be told of a name, present or absent.
    pub(crate) fn add(&self, name: &Name) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.any {
            return;
        }
        names.hashes.insert(hash(name));
        if names.hashes.len() > NAMES_MAX {
            names.any = true;
            names.hashes = HashSet::default();
        }
    }

    /// Whether the kernel may know it.
    pub(crate) fn has(&self, name: &Name) -> bool {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.any || names.hashes.contains(&hash(name))
    }

    /// It is surely not there.
    pub(crate) fn remove(&self, hash: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).hashes.remove(&hash);
    }

    /// The kernel knows none of them any more.
    pub(crate) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Names::default();
    }
}

/// Stands for a name. Nobody outside can find two names of one hash: it is keyed anew in each process.
pub(crate) fn hash(name: &Name) -> u64 {
    static KEYED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEYED.hash_one(name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_forgotten() {
        let known = Known::default();
        let name = |number: usize| Name::new(format!("n{number}").as_bytes()).unwrap();
        known.add(&name(1));
        assert!(known.has(&name(1)) && !known.has(&name(2)));
        known.add(&name(2));
        known.remove(hash(&name(2)));
        assert!(known.has(&name(1)) && !known.has(&name(2)));
        for number in 0..=NAMES_MAX {
            known.add(&name(number));
        }
        assert!(known.has(&name(1)) && known.has(&name(NAMES_MAX + 7)), "too many: any");
        known.clear();
        assert!(!known.has(&name(1)));
    }
}
