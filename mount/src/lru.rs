//! Weighted entries in the order of their last use.

use std::collections::HashMap;
use std::hash::Hash;

use slab::Slab;

/// Entries from the coldest to the warmest, found by key. No bound of its own: the owner evicts.
#[derive(Debug)]
pub(crate) struct Lru<K, V> {
    places: HashMap<K, usize>,
    entries: Slab<Entry<K, V>>,
    coldest: Option<usize>,
    warmest: Option<usize>,
    weight: u64,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    weight: u64,
    colder: Option<usize>,
    warmer: Option<usize>,
}

impl<K, V> Default for Lru<K, V> {
    fn default() -> Self {
        Self { places: HashMap::new(), entries: Slab::new(), coldest: None, warmest: None, weight: 0 }
    }
}

impl<K: Hash + Eq + Clone, V> Lru<K, V> {
    /// Sum of all weights.
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    /// How many entries there are.
    pub(crate) fn count(&self) -> usize {
        self.entries.len()
    }

    /// The value of `key`, which becomes the warmest.
    pub(crate) fn touch(&mut self, key: &K) -> Option<&mut V> {
        let place = *self.places.get(key)?;
        if self.warmest != Some(place) {
            self.unlink(place);
            self.link_warmest(place);
        }
        Some(&mut self.entries[place].value)
    }

    /// Whether `key` is here; changes no order.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.places.contains_key(key)
    }

    /// Puts `key` in as the warmest, in place of what it had.
    pub(crate) fn insert(&mut self, key: K, value: V, weight: u64) {
        self.remove(&key);
        let entry = Entry { key: key.clone(), value, weight, colder: None, warmer: None };
        let place = self.entries.insert(entry);
        self.places.insert(key, place);
        self.weight += weight;
        self.link_warmest(place);
    }

    /// Takes `key` out.
    pub(crate) fn remove(&mut self, key: &K) -> Option<(V, u64)> {
        let place = self.places.remove(key)?;
        self.unlink(place);
        let entry = self.entries.remove(place);
        self.weight -= entry.weight;
        Some((entry.value, entry.weight))
    }

    /// The value of the coldest; changes no order.
    pub(crate) fn coldest(&self) -> Option<&V> {
        self.coldest.map(|place| &self.entries[place].value)
    }

    /// Takes the coldest out.
    pub(crate) fn evict(&mut self) -> Option<(K, V, u64)> {
        let place = self.coldest?;
        self.unlink(place);
        let entry = self.entries.remove(place);
        self.places.remove(&entry.key);
        self.weight -= entry.weight;
        Some((entry.key, entry.value, entry.weight))
    }

    fn unlink(&mut self, place: usize) {
        let (colder, warmer) = (self.entries[place].colder, self.entries[place].warmer);
        match colder {
            Some(colder) => self.entries[colder].warmer = warmer,
            None => self.coldest = warmer,
        }
        match warmer {
            Some(warmer) => self.entries[warmer].colder = colder,
            None => self.warmest = colder,
        }
    }

    fn link_warmest(&mut self, place: usize) {
        let colder = self.warmest.replace(place);
        match colder {
            Some(colder) => self.entries[colder].warmer = Some(place),
            None => self.coldest = Some(place),
        }
        self.entries[place].colder = colder;
        self.entries[place].warmer = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(lru: &mut Lru<u32, ()>) -> Vec<u32> {
        std::iter::from_fn(|| lru.evict().map(|(key, (), _)| key)).collect()
    }

    fn filled() -> Lru<u32, ()> {
        let mut lru = Lru::default();
        for key in 1..=4 {
            lru.insert(key, (), u64::from(key));
        }
        lru
    }

    #[test]
    fn the_coldest_goes_first() {
        let mut lru = filled();
        assert_eq!(lru.weight(), 10);
        assert!(lru.touch(&2).is_some() && lru.touch(&9).is_none());
        lru.insert(3, (), 7);
        assert_eq!((lru.weight(), lru.contains(&3)), (14, true));
        assert_eq!(lru.remove(&1), Some(((), 1)));
        assert_eq!(order(&mut lru), [4, 2, 3]);
        assert_eq!((lru.weight(), lru.evict()), (0, None));
    }

    #[test]
    fn order_against_a_list() {
        let mut lru = filled();
        let mut list = vec![1, 2, 3, 4];
        let mut seed = 7_u32;
        for _ in 0..2_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let key = seed >> 20 & 7;
            let had = list.iter().position(|&other| other == key);
            if let Some(at) = had {
                list.remove(at);
            }
            match seed >> 28 & 3 {
                0 => {
                    lru.insert(key, (), 1);
                    list.push(key);
                }
                1 if lru.touch(&key).is_some() => list.push(key),
                _ => assert_eq!(lru.remove(&key).is_some(), had.is_some()),
            }
        }
        assert_eq!(order(&mut lru), list);
    }
}
