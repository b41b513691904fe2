//! Files in one directory.

use super::cluster::Cluster;
use super::study::{Rule, Study};
use super::work::{create, create_fast, entry, list, micros, sync, timed};
use crate::pattern::Random;
use crate::target::Context;

pub(super) const ID: &str = "directory";

/// Files that are made by one process at the end of each step, and timed.
const LAST: u64 = 10_000;
/// Files that are looked at and removed.
const SAMPLE: u64 = 1_000;

/// Fills one directory, step by step.
///
/// # Errors
/// What failed; figures up to there are in the study.
pub(super) fn run(study: &mut Study, context: &Context, sizes: &[u64]) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(context)?;
    let folder = cluster.root().join("many");
    std::fs::create_dir(&folder)?;
    let mut made = 0;
    for &size in sizes {
        study.step(&super::run::count(size), size as f64);
        let last = LAST.min(size - made);
        create_fast(&folder, made..size - last)?;
        sync(&cluster.root())?;
        let (time, ()) = timed(|| {
            create(&folder, size - last..size)?;
            sync(&cluster.root())
        })?;
        made = size;
        study.note("create, the last 10 k and sync", "us each", Rule::Each, micros(time, last));
        let memory = cluster.memory()?;
        study.note("memory of meta behind it", "MiB", Rule::Total, memory.meta);
        study.note("memory of the mount behind it", "MiB", Rule::Total, memory.mount);

        cluster.cool()?;
        let (time, found) = timed(|| list(&folder))?;
        anyhow::ensure!(found == size, "the listing has {found} entries instead of {size}");
        study.note("readdir, cold", "us per entry", Rule::Each, micros(time, size));
        study.note("memory of the mount behind readdir", "MiB", Rule::Total, cluster.memory()?.mount);

        cluster.cool()?;
        let chosen = sample(size);
        let (time, ()) = timed(|| {
            chosen.iter().try_for_each(|number| Ok(rustix::fs::stat(entry(&folder, *number)).map(drop)?))
        })?;
        study.note("stat of 1,000 at random, cold", "us each", Rule::Each, micros(time, chosen.len() as u64));

        let (time, ()) = timed(|| {
            chosen.iter().try_for_each(|number| std::fs::remove_file(entry(&folder, *number)))?;
            sync(&cluster.root())
        })?;
        study.note(
            "unlink of 1,000 at random and sync",
            "us each",
            Rule::Each,
            micros(time, chosen.len() as u64),
        );
        create(&folder, chosen)?;
    }
    Ok(())
}

/// Different numbers below `size`.
fn sample(size: u64) -> Vec<u64> {
    let mut random = Random::new(size);
    let mut chosen = std::collections::BTreeSet::new();
    while (chosen.len() as u64) < SAMPLE.min(size / 2) {
        chosen.insert(random.below(size));
    }
    // Not in the order of the names.
    let mut chosen: Vec<u64> = chosen.into_iter().collect();
    for index in (1..chosen.len()).rev() {
        let other = usize::try_from(random.below(index as u64 + 1)).unwrap_or(0);
        chosen.swap(index, other);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_names_nobody_twice() {
        let chosen = sample(5_000);
        let once: std::collections::BTreeSet<u64> = chosen.iter().copied().collect();
        assert_eq!((chosen.len(), once.len()), (1_000, 1_000));
        assert!(chosen.iter().all(|number| *number < 5_000) && !chosen.is_sorted());
        assert_eq!(sample(10).len(), 5);
    }
}
