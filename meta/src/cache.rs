//! A bounded map that forgets what was not used lately.

use std::collections::HashMap;
use std::hash::Hash;

/// Two generations: what is used is in the young one; when that is full it becomes the old one, and the old one is
/// dropped. Constant time, at most twice `young_max` of weight, and whatever was used among the last `young_max` of distinct
/// keys is there. A value weighs 1, unless the cache is told how to weigh.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    young_max: usize,
    /// Of the young ones.
    weight: usize,
    weigh: fn(&V) -> usize,
}

impl<K: Hash + Eq, V> Cache<K, V> {
    pub(crate) fn new(young_max: usize) -> Self {
        Self::weighed(young_max, |_| 1)
    }

    /// One whose values have different weights.
    pub(crate) fn weighed(young_max: usize, weigh: fn(&V) -> usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), young_max: young_max.max(1), weight: 0, weigh }
    }

    /// A copy of the value. One look where it is young, as most are that are asked for.
    pub(crate) fn get(&mut self, key: &K) -> Option<V>
    where
        V: Clone,
    {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        self.look(key).cloned()
    }

    /// The value where it is.
    pub(crate) fn look(&mut self, key: &K) -> Option<&V> {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.insert(key, value);
        }
        self.young.get(key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        let weight = (self.weigh)(&value);
        if self.weight + weight > self.young_max && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
        self.old.remove(&key);
        self.weight += weight;
        if let Some(before) = self.young.insert(key, value) {
            self.weight -= (self.weigh)(&before);
        }
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.remove(key) {
            self.weight -= (self.weigh)(&value);
            return Some(value);
        }
        self.old.remove(key)
    }

    /// Changes a value where it is, if it is there.
    pub(crate) fn change(&mut self, key: &K, change: impl FnOnce(&mut V)) {
        self.look(key);
        if let Some(value) = self.young.get_mut(key) {
            let before = (self.weigh)(value);
            change(value);
            self.weight = self.weight + (self.weigh)(value) - before;
        }
    }

    /// Of the young values.
    #[cfg(test)]
    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    /// Every key that is kept.
    #[cfg(test)]
    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.young.keys().chain(self.old.keys())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_used_and_stays_bounded() {
        let mut cache = Cache::new(4);
        for number in 0..100u32 {
            cache.insert(number, number);
            assert_eq!(cache.get(&0), Some(0));
            assert!(cache.young.len() + cache.old.len() <= 8);
        }
        assert_eq!(cache.get(&1), None);
        cache.insert(0, 7);
        assert_eq!(cache.get(&0), Some(7));
        cache.remove(&0);
        assert_eq!(cache.get(&0), None);
    }

    #[test]
    fn weighs_what_it_keeps() {
        let mut cache = Cache::weighed(100_000, Vec::len);
        for number in 0..1_000u32 {
            cache.insert(number, vec![0_u8; 1_000]);
            assert!(cache.look(&0).is_some_and(|value| value.len() == 1_000));
            assert!(cache.weight <= 100_000);
        }
        let sum: usize = cache.young.values().map(Vec::len).sum();
        assert_eq!(cache.weight, sum);
        assert!(cache.look(&1).is_none() && cache.old.len() <= 100);
        cache.change(&0, Vec::clear);
        assert_eq!(cache.weight, sum - 1_000);
    }
}
