//! Numbers that were granted to a session, and which of them it has used.
//!
//! A run is what was granted at once. It ends when all of its numbers are used, so a session that works keeps few of them. Numbers get
//! lost, too (a call that was refused, a program that was killed), and with one of them a run never ends by itself; so when there
//! are [`RUNS_MAX`], the one with the fewest left is given up, if most of it is used. A client has two runs for each of its links
//! whose numbers it still wants, and those are few beside the others.

use std::collections::BTreeMap;

use flexfs_wire::limits::LINKS_PER_SESSION_MAX;

use super::record::Grant;

/// Runs of one kind that a session may have: twice what a client with the most links asks for before it has used them up.
pub(super) const RUNS_MAX: usize = 4 * LINKS_PER_SESSION_MAX;
/// Uses of a run after which its row is written: each time would be a row more for each file that is made. Those that a crash
/// forgets make the run one that never ends by itself.
const SAVED_EVERY: u64 = 64;
/// Longest run whose uses are noted, numbers. Longer ones are of an older release, which joined them.
const NOTED_MAX: u64 = 1 << 17;

/// By their first numbers.
#[derive(Debug, Default)]
pub(super) struct Runs(BTreeMap<u64, Run>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    grant: Grant,
    /// Numbers that were not used.
    left: u64,
}

impl Run {
    /// One with no number used.
    pub(super) fn new(count: u64) -> Self {
        Self { grant: Grant { count, used: Vec::new(), spent: Vec::new() }, left: count }
    }

    /// As its row.
    pub(super) fn grant(&self) -> &Grant {
        &self.grant
    }

    fn set_used(&mut self, index: u64) {
        if set_bit(&mut self.grant.used, index, self.grant.count) {
            self.left = self.left.saturating_sub(1);
        }
    }
}

fn word(index: u64) -> usize {
    usize::try_from(index / 64).unwrap_or(usize::MAX)
}

fn has_bit(bits: &[u64], index: u64) -> bool {
    bits.get(word(index)).is_some_and(|bits| bits >> (index % 64) & 1 == 1)
}

/// Sets one of `count` bits; whether it was not.
fn set_bit(bits: &mut Vec<u64>, index: u64, count: u64) -> bool {
    if bits.is_empty() {
        bits.resize(word(count.saturating_sub(1)) + 1, 0);
    }
    let is_new = !has_bit(bits, index);
    if let Some(bits) = bits.get_mut(word(index)) {
        *bits |= 1 << (index % 64);
    }
    is_new
}

impl From<Grant> for Run {
    fn from(grant: Grant) -> Self {
        let used: u64 = grant.used.iter().map(|bits| u64::from(bits.count_ones())).sum();
        Self { left: grant.count.saturating_sub(used), grant }
    }
}

impl Runs {
    pub(super) fn contains(&self, number: u64) -> bool {
        let Some((start, index)) = self.find(number) else { return false };
        self.0.get(&start).is_some_and(|run| !has_bit(&run.grant.spent, index))
    }

    pub(super) fn get(&self, start: u64) -> Option<&Run> {
        self.0.get(&start)
    }

    pub(super) fn insert(&mut self, start: u64, run: Run) {
        self.0.insert(start, run);
    }

    pub(super) fn remove(&mut self, start: u64) {
        self.0.remove(&start);
    }

    pub(super) fn starts(&self) -> impl Iterator<Item = u64> {
        self.0.keys().copied()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// First number and place in it.
    fn find(&self, number: u64) -> Option<(u64, u64)> {
        let (start, run) = self.0.range(..=number).next_back()?;
        let index = number - start;
        (index < run.grant.count).then_some((*start, index))
    }

    /// A number was used. The start of a run whose row is to be written anew, or removed when there is no such run any more.
    pub(super) fn handle_used(&mut self, number: u64) -> Option<u64> {
        let (start, index) = self.find(number)?;
        let run = self.0.get_mut(&start)?;
        if run.grant.count > NOTED_MAX {
            return None;
        }
        run.set_used(index);
        let left = run.left;
        if left == 0 {
            self.0.remove(&start);
        }
        left.is_multiple_of(SAVED_EVERY).then_some(start)
    }

    /// A number is its session's no more, and used. The start of its run, and of those whose rows are to be written for it.
    pub(super) fn spend(&mut self, number: u64) -> Option<(u64, Vec<u64>)> {
        let (start, index) = self.find(number)?;
        let mut run = self.0.remove(&start)?;
        let count = run.grant.count;
        let parts = if count > NOTED_MAX {
            vec![(start, Run::new(index)), (number + 1, Run::new(count - index - 1))]
        } else {
            run.set_used(index);
            set_bit(&mut run.grant.spent, index, count);
            vec![(start, run)]
        };
        let parts = parts.into_iter().filter(|(_, part)| part.left > 0);
        let insert = |(start, part)| {
            self.0.insert(start, part);
            start
        };
        let starts = parts.map(insert).collect();
        Some((start, starts))
    }

    /// Whether another run may be granted, and the one that goes for it.
    ///
    /// # Errors
    /// `()`: there are too many that were hardly used.
    pub(super) fn room(&self) -> Result<Option<u64>, ()> {
        if self.0.len() < RUNS_MAX {
            return Ok(None);
        }
        let worn = self.0.iter().filter(|(_, run)| run.left <= run.grant.count / 2);
        worn.min_by_key(|(_, run)| run.left).map(|(start, _)| Some(*start)).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_run_ends_when_it_is_used_up() {
        let mut runs = Runs::default();
        runs.insert(100, Run::new(130));
        let saved: Vec<u64> = (100..230).filter(|number| runs.handle_used(*number).is_some()).collect();
        assert_eq!(saved, [101, 165, 229], "129, 64 and none were left");
        assert!(!runs.contains(100) && runs.len() == 0);
        assert_eq!(runs.handle_used(100), None);
    }

    #[test]
    fn worn_runs_make_room_and_fresh_ones_do_not() {
        let mut runs = Runs::default();
        for start in 0..RUNS_MAX as u64 {
            assert_eq!(runs.room(), Ok(None));
            runs.insert(10 * start, Run::new(4));
        }
        assert_eq!(runs.room(), Err(()));
        runs.handle_used(70);
        assert_eq!(runs.room(), Err(()));
        runs.handle_used(71);
        assert_eq!(runs.room(), Ok(Some(70)));
        for number in 91..94 {
            runs.handle_used(number);
        }
        assert_eq!(runs.room(), Ok(Some(90)), "fewest are left");
        runs.handle_used(90);
        assert_eq!(runs.room(), Ok(None));
    }

    #[test]
    fn runs_of_an_older_release_are_left_alone() {
        let mut runs = Runs::default();
        runs.insert(1, Run::new(10 * NOTED_MAX));
        assert!(runs.handle_used(5).is_none() && runs.contains(5));
        assert_eq!(runs.get(1).map(|run| run.grant().used.len()), Some(0));
        assert_eq!(runs.spend(7).map(|(start, parts)| (start, parts.len())), Some((1, 2)));
        assert!(!runs.contains(7) && runs.contains(8));
    }

    proptest! {
        /// Against sets of numbers: what is contained, and that no number is given up before it was used or spent.
        #[test]
        fn nothing_is_given_up_that_was_not_used(
            steps in prop::collection::vec((any::<bool>(), 0u64..300), 0..400)
        ) {
            let mut runs = Runs::default();
            runs.insert(0, Run::new(100));
            runs.insert(100, Run::new(200));
            let (mut used, mut spent) = (BTreeSet::new(), BTreeSet::new());
            for (spends, number) in steps {
                if spends {
                    runs.spend(number);
                    spent.insert(number);
                } else {
                    runs.handle_used(number);
                    used.insert(number);
                }
            }
            for number in 0..300 {
                prop_assert!(!(spent.contains(&number) && runs.contains(number)));
                prop_assert!(runs.contains(number) || spent.contains(&number) || used.contains(&number));
            }
            for run in runs.0.values() {
                prop_assert!(run.left > 0 && Run::from(run.grant().clone()) == *run);
            }
        }
    }
}
