//! The first command of the README, as a new user runs it.

use std::fs;
use std::path::Path;

use crate::harness::{Run, binary, repository, scratch};

/// Runs `./quickstart` against the binaries under test; none when these are not release binaries, which it would build.
fn quickstart() -> Option<Run> {
    let folder = binary("configure").parent().unwrap().to_owned();
    if !folder.ends_with("release") {
        eprintln!("not run: FLEXFS_BIN_DIR is no release folder");
        return None;
    }
    let run = Run::new(repository().join("quickstart")).env("CARGO_TARGET_DIR", folder.parent().unwrap());
    Some(run.folder("/").limit(600))
}

#[test]
fn up_twice_and_down() {
    let place = scratch();
    let (mnt, state) = (place.path().join("mnt"), place.path().join("state"));
    fs::create_dir(&mnt).unwrap();
    let flags = [
        "--stateDir",
        state.to_str().unwrap(),
        "--adminPort",
        "18440",
        "--metaPort",
        "18441",
        "--metricsPort",
        "18442",
    ];
    let Some(run) = quickstart() else { return };
    let _stop = Stop(&mnt, &state);
    let first = run.arg(&mnt).args(flags).ok();
    for word in ["status", " down ", mnt.to_str().unwrap(), "18440", "18441"] {
        assert!(first.text().contains(word), "no {word} in: {}", first.text());
    }
    fs::write(mnt.join("file"), "kept").unwrap();
    // Again while it runs: nothing breaks. After --down: the data is there again.
    quickstart().unwrap().arg(&mnt).args(flags).ok();
    assert_eq!(fs::read_to_string(mnt.join("file")).unwrap(), "kept");
    quickstart().unwrap().arg("--down").arg(&mnt).args(&flags[..2]).ok();
    assert!(!mnt.join("file").exists(), "--down leaves the mount");
    quickstart().unwrap().arg(&mnt).args(flags).ok();
    assert_eq!(fs::read_to_string(mnt.join("file")).unwrap(), "kept");
    quickstart().unwrap().arg("--down").arg(&mnt).args(&flags[..2]).ok();
}

#[test]
fn errors_say_what_to_do() {
    let place = scratch();
    let state = place.path().join("state");
    let flags = [
        "--stateDir",
        state.to_str().unwrap(),
        "--adminPort",
        "18450",
        "--metaPort",
        "18451",
        "--metricsPort",
        "18452",
    ];
    let refused = |mnt: &Path, words: &[&str]| {
        let Some(run) = quickstart() else { return };
        let text = run.arg(mnt).args(flags).fails().text();
        assert!(words.iter().all(|word| text.contains(word)), "{words:?} are not in: {text}");
    };
    refused(&place.path().join("absent"), &["absent", "mkdir"]);
    let full = place.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("file"), "x").unwrap();
    refused(&full, &["empty"]);
    let mnt = place.path().join("mnt");
    fs::create_dir(&mnt).unwrap();
    let _stop = Stop(&mnt, &state);
    let listener = std::net::TcpListener::bind("127.0.0.1:18450").unwrap();
    refused(&mnt, &["18450", "in use"]);
    drop(listener);
    if let Some(run) = quickstart() {
        let text = run.arg(&mnt).args(flags).user(1).fails().text();
        assert!(text.contains("root"), "{text}");
    }
}

/// Stops what a failed test left.
struct Stop<'a>(&'a Path, &'a Path);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        Run::new(binary("configure")).arg("down").arg(self.0).arg("--stateDir").arg(self.1).run();
    }
}
