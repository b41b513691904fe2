//! Seeds: small inputs made of real values, so that a fuzzer begins behind the first checks.
//!
//! `cargo test -p flexfs-fuzz -- --ignored write_seeds` makes them anew from today's types.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a failed step is a failed test")]

mod choice;
mod kernel;
mod text;
mod wire;

use std::fs;
use std::path::{Path, PathBuf};

/// Seeds by target and name.
#[derive(Default)]
struct Seeds(Vec<(PathBuf, Vec<u8>)>);

impl Seeds {
    fn put(&mut self, target: &str, name: &str, bytes: impl AsRef<[u8]>) {
        self.0.push((Path::new(target).join(name), bytes.as_ref().to_vec()));
    }
}

fn all() -> Seeds {
    let mut seeds = Seeds::default();
    wire::make(&mut seeds);
    kernel::make(&mut seeds);
    choice::make(&mut seeds);
    text::make(&mut seeds);
    seeds
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds")
}

#[test]
fn seeds_are_of_today() {
    for (path, bytes) in all().0 {
        let found = fs::read(folder().join(&path)).unwrap_or_default();
        assert!(found == bytes, "{} is another one: run the ignored test write_seeds", path.display());
    }
}

#[test]
#[ignore = "writes into the tree"]
fn write_seeds() {
    for (path, bytes) in all().0 {
        let path = folder().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}
