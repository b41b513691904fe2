//! Suites others wrote: pjdfstest and fsx.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::harness::{Cluster, Ext4, Run, Transport};

/// Cases that fail on a mount and pass on ext4, one a line, behind each its reason.
const EXPECTED: &str = include_str!("pjdfstest-expected.txt");
/// Least share of ext4's passes that a mount reaches, percent.
const SHARE_PERCENT: usize = 95;

both!(pjdfstest, fsx, fsx_small);

fn pjdfstest(transport: Transport) {
    let cluster = Cluster::start(transport);
    let ext4 = Ext4::mount(&cluster.root().join("ext4"));
    let config = cluster.root().join("pjdfstest.toml");
    // Two ordinary users of every Debian, each with a group of the same number. Cases that remount read-only are left
    // out: they need a mount nobody else looks at, on ext4 too.
    let text = "[features]\nposix_fallocate = {}\nrename_ctime = {}\nstat_st_birthtime = {}\nutime_now = {}\nutimensat = {}\n\
        [settings]\nnaptime = 0.02\nallow_remount = false\n\
        [dummy_auth]\nentries = [[\"daemon\", \"daemon\"], [\"bin\", \"bin\"]]\n";
    fs::write(&config, text).unwrap();
    let on = |folder: &Path| {
        let run =
            Run::new("pjdfstest").arg("-c").arg(&config).arg("-s").arg(cluster.root()).arg("-p").arg(folder);
        outcomes(&run.env("NO_COLOR", "1").limit(400).run().out)
    };
    let (there, here) = (on(ext4.path()), on(cluster.mnt()));
    assert!(there.passed.len() > 350, "pjdfstest on ext4: {there:?}");
    let failed: BTreeSet<&String> = there.passed.difference(&here.passed).collect();
    let share = (there.passed.len() - failed.len()) * 100 / there.passed.len();
    println!(
        "pjdfstest: {} cases pass on ext4, {} of them here ({share} %)",
        there.passed.len(),
        there.passed.len() - failed.len()
    );
    println!("failures here: {failed:#?}");
    let expected: BTreeSet<&str> = EXPECTED
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let new: Vec<_> = failed.iter().filter(|name| !expected.contains(name.as_str())).collect();
    assert!(new.is_empty(), "new failures: {new:#?}\n{}", here.text);
    let gone: Vec<_> = expected.iter().filter(|name| here.passed.contains(**name)).collect();
    assert!(gone.is_empty(), "these pass now, take them off the list: {gone:?}");
    assert!(share >= SHARE_PERCENT, "{share} % of what passes on ext4");
    drop(ext4);
    cluster.finish();
}

#[derive(Debug)]
struct Outcomes {
    passed: BTreeSet<String>,
    text: String,
}

fn outcomes(out: &str) -> Outcomes {
    // Lines of the form `chmod::affects_inode   ok`, coloured or not.
    let plain: String = out
        .split('\u{1b}')
        .enumerate()
        .map(
            |(index, part)| if index == 0 { part } else { part.split_once('m').map_or("", |(_, rest)| rest) },
        )
        .collect();
    let passed = plain.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        (words.next() == Some("ok")).then(|| name.to_owned())
    });
    let passed = passed.collect();
    let lines: Vec<&str> =
        plain.lines().filter(|line| !line.ends_with(" ok") && !line.starts_with("  ")).collect();
    Outcomes { passed, text: lines.join("\n") }
}

/// 100 k operations of every kind fsx has, on a file that crosses segments and blocks.
fn fsx(transport: Transport) {
    run_fsx(transport, 11, transport.scale(70_000, 10_000), 6 << 20, 192 * 1024);
}

/// And on a file that moves between inline and extents.
fn fsx_small(transport: Transport) {
    run_fsx(transport, 12, transport.scale(30_000, 5_000), 64 * 1024, 12 * 1024);
}

fn run_fsx(transport: Transport, seed: u32, operations: u32, file_bytes: u32, operation_bytes: u32) {
    let cluster = Cluster::start(transport);
    let config = cluster.root().join("fsx.toml");
    let weights = "close_open = 1.0\ninvalidate = 0.2\nmapread = 5.0\nmapwrite = 5.0\nread = 10.0\nwrite = 10.0\ntruncate = 4.0\n\
        fsync = 0.1\nfdatasync = 0.1\nposix_fallocate = 2.0\npunch_hole = 3.0\nsendfile = 2.0\nposix_fadvise = 1.0\n\
        copy_file_range = 3.0\n";
    fs::write(
        &config,
        format!("flen = {file_bytes}\n[opsize]\nmax = {operation_bytes}\n[weights]\n{weights}"),
    )
    .unwrap();
    let fsx =
        Run::new("fsx").arg("-f").arg(&config).args(["-S", &seed.to_string(), "-N", &operations.to_string()]);
    let ran =
        fsx.arg("-P").arg(cluster.root()).arg(cluster.path("file")).folder(cluster.root()).limit(500).ok();
    assert!(ran.text().contains("A-OK"), "{}", ran.text());
    cluster.finish();
}
