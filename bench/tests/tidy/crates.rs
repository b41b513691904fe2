//! Who may depend on whom (ARCHITECTURE.md): `bench fuzz -> mount meta admin -> wire uring`, and no edge within a row.

use std::fs;

use crate::tree::{self, CRATES};

/// Each crate and the crates of this workspace it may name in its manifest.
const EDGES: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("uring", &[]),
    ("mount", &["wire", "uring"]),
    ("meta", &["wire", "uring"]),
    ("admin", &["wire", "uring"]),
    ("bench", &["wire", "uring", "mount", "meta", "admin", "fuzz"]),
    ("fuzz", &["wire", "uring", "mount", "meta", "admin"]),
];

#[test]
fn crates_import_downward() {
    for (name, allowed) in EDGES {
        let manifest = fs::read_to_string(tree::root().join(name).join("Cargo.toml")).unwrap();
        for line in manifest.lines() {
            let Some(rest) = line.trim_start().strip_prefix("flexfs-") else { continue };
            let target = rest.split(['.', ' ', '=']).next().unwrap();
            assert!(allowed.contains(&target), "{name} must not depend on {target}");
        }
    }
}

#[test]
fn every_crate_is_listed() {
    let manifest = fs::read_to_string(tree::root().join("Cargo.toml")).unwrap();
    let members = manifest.lines().find(|line| line.starts_with("members")).unwrap();
    let listed: Vec<&str> = EDGES.iter().map(|(name, _)| *name).collect();
    assert_eq!(listed, CRATES);
    assert_eq!(members.matches('"').count() / 2, CRATES.len(), "{members}");
    for name in CRATES {
        assert!(members.contains(&format!("\"{name}\"")), "{name}");
        let manifest = fs::read_to_string(tree::root().join(name).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{name} must take the workspace's lints");
    }
}

/// Dependencies come from the one public index: a build needs nobody's private mirror.
#[test]
fn dependencies_come_from_one_index() {
    let lock = fs::read_to_string(tree::root().join("Cargo.lock")).unwrap();
    for line in lock.lines().filter(|line| line.starts_with("source = ")) {
        assert_eq!(line, "source = \"registry+https://github.com/rust-lang/crates.io-index\"");
    }
    assert!(!tree::root().join(".cargo").exists(), "settings of one machine do not belong into the tree");
}
