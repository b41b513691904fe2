//! Random calls of several sessions against the machine and against a model of POSIX, with resends, crashes that lose what
//! was not durable, replays of it, and a `verify` after each run.

#![expect(clippy::unwrap_used, reason = "a test ends there")]

use proptest::prelude::*;

mod model;
mod world;

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_machine_is_what_posix_says(steps in prop::collection::vec(any::<[u16; 7]>(), 1..150)) {
        world::check(&steps);
    }
}

/// More calls than proptest would make, from fixed seeds: the same every time. `FLEXFS_SEEDS=n` runs the first n.
#[test]
fn long_runs() {
    let seeds = std::env::var("FLEXFS_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6u64);
    for seed in 1..=seeds {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u16::try_from(state >> 48).unwrap()
        };
        let steps: Vec<[u16; 7]> = (0..1_500).map(|_| std::array::from_fn(|_| next())).collect();
        world::check(&steps);
    }
}
