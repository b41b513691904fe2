//! The units that `init systemd` writes, under a real systemd: a user of their own, capabilities gone, restarts, a clean stop.

use std::fs;
use std::path::Path;

use crate::harness::{Run, Transport, binary};

one!(units);

/// The README's installation; systemd is the first process of namespaces of its own, and ends with the script.
fn units(_: Transport) {
    assert!(
        Path::new("/lib/systemd/systemd").exists(),
        "no systemd here: apt-get install systemd (as ./test does)"
    );
    let folder = tempfile::tempdir().unwrap();
    let programs = binary("meta");
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/scripts");
    let namespaces = ["--fork", "--pid", "--mount", "--uts", "--ipc", "--net", "--cgroup", "--kill-child"];
    let run = Run::new("unshare")
        .args(namespaces)
        .args(["--propagation", "private", "bash"])
        .arg(scripts.join("systemd.sh"))
        .args([folder.path(), programs.parent().unwrap(), &scripts])
        .limit(150)
        .run();
    let said = fs::read_to_string(folder.path().join("out/log")).unwrap_or_default();
    let worked = run.status.success() && said.contains("all units were seen working");
    assert!(worked, "{}\n{said}", run.text());
}
