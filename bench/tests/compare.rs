//! The whole program on plain directories, with hardly any files: it measures nothing here, it works.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "helpers of tests: a failed step is a failed test")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// Two directories to compare and one to work in.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "scratch", "out"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_compare"));
        command.args(["--tiny", "--out", &self.path("out"), "--scratch", &self.path("scratch")]).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn report(&self) -> Value {
        let saved = fs::read_dir(self.path("out")).unwrap().map(|entry| entry.unwrap().path());
        let json: Vec<_> = saved.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
        assert_eq!(json.len(), 1);
        serde_json::from_str(&fs::read_to_string(&json[0]).unwrap()).unwrap()
    }

    fn assert_clean(&self) {
        for name in ["a", "b", "scratch"] {
            let left: Vec<_> = fs::read_dir(self.path(name)).unwrap().collect();
            assert!(left.is_empty(), "{name}: {left:?}");
        }
    }
}

fn cells<'a>(report: &'a Value, target: &'a str) -> impl Iterator<Item = &'a Value> {
    report["cells"].as_array().unwrap().iter().filter(move |cell| cell["target"] == target)
}

#[test]
fn two_directories_are_compared_in_every_row_that_needs_no_program() {
    let place = Place::new();
    let (a, b) = (place.path("a"), place.path("b"));
    let only = "metadata,small,large,log";
    let output = place.run(&[&a, &b, "--only", only, "--rounds", "2", "--base", &b]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("### Metadata, 8 processes") && text.contains("### Spread"), "{text}");
    let report = place.report();
    let rows = report["rows"].as_array().unwrap().len();
    assert!(rows > 30, "{rows}");
    for target in [&a, &b] {
        assert_eq!(cells(&report, target).count(), rows * 2);
        for cell in cells(&report, target) {
            assert!(cell["value"].as_f64().unwrap() > 0.0 && cell["error"].is_null(), "{cell}");
        }
    }
    // In turn: A B A B.
    let order: Vec<&str> =
        report["cells"].as_array().unwrap().iter().map(|cell| cell["target"].as_str().unwrap()).collect();
    assert!(order.chunks(2).all(|pair| pair == [a.as_str(), b.as_str()]));
    place.assert_clean();
}

#[test]
fn a_target_that_does_not_start_is_a_column_and_no_abort() {
    let place = Place::new();
    let (a, wrong) = (place.path("a"), "/proc/no-such-place".to_owned());
    let output = place.run(&[&a, &wrong, "--only", "create-1,stat-cached-1"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = place.report();
    assert_eq!(cells(&report, &a).filter(|cell| cell["value"].is_number()).count(), 2);
    for cell in cells(&report, &wrong) {
        assert!(cell["error"].as_str().unwrap().contains("does not start"), "{cell}");
    }
    assert!(String::from_utf8_lossy(&output.stdout).contains("### What failed"));
    place.assert_clean();
}

#[test]
fn an_interrupted_run_saves_what_it_has_and_leaves_nothing() {
    let place = Place::new();
    let (a, b) = (place.path("a"), place.path("b"));
    let mut child = place.command(&[&a, &b, "--only", "metadata-1", "--rounds", "100"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    // Some cells are there.
    assert!(lines.by_ref().take(4).all(|line| line.is_ok()));
    interrupt(&child);
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{rest:?}");
    let report = place.report();
    assert!(report["scale"].as_str().unwrap().contains("interrupted"));
    assert!(cells(&report, &a).count() >= 2);
    place.assert_clean();
}

fn interrupt(child: &Child) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
}

#[test]
fn programs_work_on_a_directory() {
    let place = Place::new();
    let a = place.path("a");
    // Without a registry of crates the tree is made up, which is as good here.
    let output =
        place.command(&[&a, "--only", "untar,clone"]).env("CARGO_HOME", place.path("b")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = place.report();
    assert!(report["tree"].as_str().unwrap().starts_with("a generated tree: 30 files"), "{}", report["tree"]);
    for cell in cells(&report, &a) {
        assert!(cell["value"].is_number(), "{cell}");
    }
    place.assert_clean();
}

#[test]
fn wrong_words_are_refused_before_anything_is_started() {
    let place = Place::new();
    for (words, wanted) in [
        (&["--only", "nothing", "./x"][..], "no work is named nothing"),
        (&["--targets", "nfs"], "no such target"),
        (&["--readme", "/no/such/report.json"], "/no/such/report.json"),
    ] {
        let output = place.run(words);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(wanted), "{text}");
    }
    assert!(Path::new(&place.path("out")).read_dir().unwrap().next().is_none());
    let listed = place.run(&["--list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("stat-cold-8"));
    place.assert_clean();
}
