//! Seeds of the simulation. `FLEXFS_SEEDS=n`: so many; `FLEXFS_SEED=n`: that one, with all that happened.

use flexfs_fuzz::sim::run;

/// Seeds of every build.
const SEEDS: u64 = 200;

/// Seeds that found something, and what.
const KEPT: &[(u64, &str)] = &[
    (1, "put back on purpose: what was granted counts, though a recall came since (`Recalls::is_good`)"),
    (26, "the same, of a log that grows"),
    (61, "the same: a record of the log was all zeros"),
    (119, "the model looked up a name while the same machine removed it, which the directory's lock forbids"),
    (
        144,
        "the answer to a recall was lost with an old session; its writer asked for the lease for ever, and was not told again",
    ),
    (
        150,
        "a file that was clean when the recovery declared what is exclusive was written to before it ended: the lease was void, the bytes \
         stayed, and others read what was before",
    ),
    (185, "the model took what the kernel shows early on the writer's own machine for completed"),
    (374, "as 144"),
    (
        4518,
        "a read went on across the end of its session and filled a page, which later readers waited for, with what was before",
    ),
    (4693, "the simulation's server did not come back when faults ended while it was away"),
    (
        5828,
        "what a read brought without a lease stayed in the kernel's pages as long as another read of the file had one of them locked",
    ),
    (
        7330,
        "the simulation took a write for completed whose bytes were lost with a session while it waited for the kernel to drop pages",
    ),
];

#[test]
fn clients_see_what_others_completed() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("FLEXFS_SEED") {
        let outcome = run(seed, true);
        for line in &outcome.journal {
            println!("{line}");
        }
        assert_eq!(outcome.failure, None, "seed {seed}");
        return;
    }
    let first = number("FLEXFS_FIRST").unwrap_or(1);
    let kept = KEPT.iter().map(|(seed, _)| *seed);
    let seeds = (first..first + number("FLEXFS_SEEDS").unwrap_or(SEEDS)).chain(kept);
    let failed: Vec<(u64, String)> =
        seeds.filter_map(|seed| run(seed, false).failure.map(|text| (seed, text))).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    for seed in 1..=20 {
        let (one, other) = (run(seed, true), run(seed, true));
        let differ = one.journal.iter().zip(&other.journal).find(|(one, other)| one != other);
        assert_eq!(differ, None, "seed {seed}");
        assert_eq!((one.digest, one.events, one.passed), (other.digest, other.events, other.passed));
    }
}
