//! Every seed and every finding that was kept runs in every build, whole, cut and damaged; what a fuzzer found its way
//! with (`corpus`) runs as it is.

use std::path::Path;

use flexfs_fuzz::target::{Run, TARGETS};

/// Places of an input that are damaged or cut at: few for targets that make a file system of each input.
const PLACES: usize = 256;
const PLACES_OF_SLOW: usize = 12;
const SLOW: &[&str] = &["namespace", "extents", "rest", "scope", "configure"];

macro_rules! runs {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*

        #[test]
        fn every_target_is_run() {
            let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!([$(stringify!($name)),*].as_slice(), names);
        }
    };
}

runs! { block configure creds dedup extents frame init link message namespace option pin record request rest scope sealed session token }

#[test]
fn every_target_is_built() {
    let manifest = include_str!("../Cargo.toml");
    let listed: Vec<&str> = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix(".rs\""))
        .collect();
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(listed, names);
}

fn check(name: &str) {
    let run = TARGETS.iter().find(|(other, _)| *other == name).expect("a target").1;
    let seeds = inputs("seeds", name);
    assert!(!seeds.is_empty(), "{name} has no seeds: cargo test -p flexfs-fuzz -- --ignored write_seeds");
    for input in seeds.iter().chain(&inputs("findings", name)) {
        check_input(name, run, input);
    }
    for input in inputs("corpus", name) {
        run(&input);
    }
}

fn check_input(name: &str, run: Run, input: &[u8]) {
    run(input);
    let places = if SLOW.contains(&name) { PLACES_OF_SLOW } else { PLACES };
    let step = input.len().div_ceil(places).max(1);
    for place in (0..input.len()).step_by(step) {
        let mut damaged = input.to_vec();
        damaged[place] ^= 1 << (place % 8);
        run(&damaged);
        run(&input[..place]);
    }
}

fn inputs(folder: &str, name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(name);
    let Ok(files) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = files.map(|file| file.expect("a listing").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a small file")).collect()
}
