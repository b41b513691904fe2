//! A bounded map that forgets what was not used lately.

use std::collections::HashMap;
use std::hash::Hash;

/// Two generations: what is used is in the young one; when that is full it becomes the old one, and the old one is
/// dropped. Constant time, at most twice `young_max` entries, and whatever was used among the last `young_max` distinct
/// keys is there.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    young_max: usize,
}

impl<K: Hash + Eq, V: Clone> Cache<K, V> {
    pub(crate) fn new(young_max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), young_max: young_max.max(1) }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.young_max && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    pub(crate) fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
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
}
