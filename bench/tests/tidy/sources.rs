//! Rules for single files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::tree::{self, CRATES, Source};

/// Longest file in lines, its test module left out.
const LINES_MAX: usize = 800;
/// Longest `main.rs` of a binary in lines: it wires things up, nothing else.
const MAIN_LINES_MAX: usize = 80;
/// Tables that are long because what they describe is.
const LONG: &[&str] = &["mount/src/fuse/abi.rs", "uring/src/fuse/abi.rs"];

fn rust() -> impl Iterator<Item = Source> {
    CRATES.iter().flat_map(|name| tree::sources(name)).filter(Source::is_rust)
}

#[test]
fn only_uring_has_unsafe_code() {
    for name in CRATES.iter().filter(|name| **name != "uring") {
        let mut roots = 0;
        for source in tree::sources(&format!("{name}/src")).iter().filter(|source| source.is_rust()) {
            let inner = source.path.strip_prefix(&format!("{name}/src/")).unwrap();
            let is_bin =
                inner.starts_with("bin/") && (inner.matches('/').count() == 1 || inner.ends_with("/main.rs"));
            if matches!(inner, "lib.rs" | "main.rs") || is_bin {
                assert!(
                    source.text.contains("#![forbid(unsafe_code)]"),
                    "{} must forbid unsafe code",
                    source.path
                );
                roots += 1;
            }
        }
        assert!(roots > 0, "{name} has no crate root");
    }
    for source in rust().filter(|source| !source.path.starts_with("uring/")) {
        for (number, line) in source.text.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            // Put together, so that this file does not find itself.
            for word in [concat!("unsafe", " {"), concat!("unsafe", " fn"), concat!("unsafe", " impl")] {
                assert!(
                    !code.contains(word),
                    "{}:{}: unsafe code belongs into uring",
                    source.path,
                    number + 1
                );
            }
        }
    }
}

/// TLS is verified in one place, and nothing can be told not to: no flag, no variable, no test-only way around it.
#[test]
fn nothing_skips_verification() {
    // Put together, so that this file does not find itself.
    let verifiers = [
        concat!(".dange", "rous()"),
        concat!("ServerCert", "Verifier for"),
        concat!("with_custom_certificate", "_verifier"),
    ];
    let switches = [
        concat!("no", "SSL"),
        concat!("no", "-ssl"),
        concat!("no", "TLS"),
        concat!("no", "-tls"),
        concat!("inse", "cure"),
        concat!("skip", "Verify"),
        concat!("disable", "_verification"),
        concat!("SSL", "KEYLOG"),
    ];
    let mut roots = 0;
    for source in rust().filter(|source| source.path.contains("/src/")) {
        if source.path == "wire/src/tls.rs" {
            roots += verifiers.iter().filter(|word| source.text.contains(**word)).count();
            continue;
        }
        for word in verifiers {
            assert!(!source.text.contains(word), "{}: {word} belongs into wire/src/tls.rs", source.path);
        }
        for word in switches.map(str::to_lowercase) {
            let found = source.text.to_lowercase().contains(&word);
            assert!(!found, "{}: {word}: nothing may be told not to verify", source.path);
        }
    }
    assert_eq!(roots, verifiers.len(), "the one verifier is there");
}

#[test]
fn files_are_short() {
    for source in rust() {
        let lines = source.code().count();
        let most = if source.path.ends_with("/main.rs") && source.path.contains("/src/") {
            MAIN_LINES_MAX
        } else {
            LINES_MAX
        };
        assert!(
            lines <= most || LONG.contains(&source.path.as_str()),
            "{}: {lines} lines, {most} at most",
            source.path
        );
    }
}

/// `lib.rs` and `mod.rs` list modules and say what they are for; logic has a file named by its noun.
#[test]
fn gates_hold_no_logic() {
    // The heads of test trees hold their fixture; the store's is the choice between stores.
    let is_gate = |path: &str| {
        path.contains("/src/")
            && !path.starts_with("fuzz/")
            && !path.contains("/tests/")
            && path != "mount/src/store/mod.rs"
    };
    for source in rust().filter(|source| is_gate(&source.path)) {
        if !source.path.ends_with("/lib.rs") && !source.path.ends_with("/mod.rs") {
            continue;
        }
        for (number, line) in source.code() {
            let words = ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "async fn ", "impl ", "impl<"];
            assert!(!words.iter().any(|word| line.starts_with(word)), "{}:{number}: {line}", source.path);
        }
    }
}

/// The tree names no folder of the machine it was written on, and holds no secret of a test run.
#[test]
fn tree_is_portable() {
    for source in tree::sources("") {
        for (number, line) in source.text.lines().enumerate() {
            for word in [concat!("/wo", "rk/"), concat!("/ro", "ot/")] {
                assert!(!line.contains(word), "{}:{}: {word} is one machine's own", source.path, number + 1);
            }
        }
    }
}

#[test]
fn ignored_tests_say_how_to_run_them() {
    for source in rust() {
        for (number, line) in source.text.lines().enumerate() {
            let bare = concat!("#[igno", "re]");
            assert!(line.trim() != bare, "{}:{}: give the reason and the command", source.path, number + 1);
        }
    }
}

#[test]
fn scripts_can_be_run() {
    for script in ["quickstart", "test", ".ci/run"] {
        let path = tree::root().join(script);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "chmod +x {script}");
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("#!/usr/bin/env bash\n") && text.contains("\nset -euo pipefail\n"),
            "{script}"
        );
    }
}

/// Names of fields whose bytes nobody may see, beside those that are wiped.
const SECRET_FIELDS: [&str; 3] = ["resume_key", "exporter", "bearer"];

/// A type with a secret in it says itself what `Debug` shows. [`Secret`] and `SecretText` hide what they hold.
///
/// [`Secret`]: flexfs_wire::token::Secret
#[test]
fn nothing_with_a_secret_derives_debug() {
    let mut held = 0;
    for source in rust().filter(|source| source.path.contains("/src/")) {
        let mut derives = false;
        let mut name = "";
        for line in source.text.lines() {
            if line.starts_with("#[derive(") {
                derives = line.contains("Debug");
            } else if !line.starts_with(' ') && (line.contains("struct ") || line.contains("enum ")) {
                name = line;
            } else if line == "}" || line.ends_with(';') && !line.starts_with(' ') {
                (derives, name) = (false, "");
            }
            let field = line.trim().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            let is_secret = line.contains(": Zeroizing<")
                || SECRET_FIELDS.iter().any(|name| field.starts_with(&format!("{name}: ")));
            if !name.is_empty() && line.starts_with("    ") && is_secret {
                held += 1;
                assert!(!derives, "{}: {name} derives Debug and holds a secret: {line}", source.path);
            }
        }
    }
    assert!(held > 4, "the fields were not found: {held}");
}
