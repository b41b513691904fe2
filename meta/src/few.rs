//! A map of a few entries.

/// Entries in a vector, found by looking at each: a call touches two to four inodes and names, and a tree's node for
/// those would cost more than all the rest of it.
#[derive(Debug)]
pub(crate) struct Few<K, V>(Vec<(K, V)>);

impl<K: PartialEq, V> Few<K, V> {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.0.iter().find(|(other, _)| other == key).map(|(_, value)| value)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        match self.0.iter_mut().find(|(other, _)| *other == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key, value)),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.0.iter()
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (K, V)> {
        self.0.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_counts() {
        let mut few = Few::new();
        few.insert(1, 'a');
        few.insert(2, 'b');
        few.insert(1, 'c');
        assert_eq!((few.get(&1), few.get(&3)), (Some(&'c'), None));
        assert_eq!(few.iter().count(), 2);
        assert_eq!(few.drain().collect::<Vec<_>>(), [(1, 'c'), (2, 'b')]);
    }
}
