//! The metadata server's disk is slow, fails to sync, or loses in a power cut what was not synced.
//!
//! `strace` (Debian) delays or fails the server's own system calls, and tells which bytes were synced when it died.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use super::RECOVERY;
use super::workload::Workload;
use crate::files::pattern;
use crate::harness::{Cluster, Process, Random, Transport, now, soon};

one!(slow, fails_to_sync, power_cut);

/// What each sync takes longer.
const DELAY: Duration = Duration::from_millis(250);

fn slow(transport: Transport) {
    let cluster = super::cluster(transport);
    let other = cluster.second_mount();
    let meta = cluster.meta();
    meta.kill();
    traced(&cluster, &meta, "fsync,fdatasync", &[&inject("fsync,fdatasync", DELAY)]);
    fs::create_dir(cluster.path("folder")).unwrap();
    let mut file = File::create(cluster.path("synced")).unwrap();
    // Only who asks for it waits for the disk.
    let start = now();
    for index in 0..20 {
        fs::write(cluster.path(format!("folder/{index}")), pattern(index, 500)).unwrap();
        fs::rename(cluster.path(format!("folder/{index}")), cluster.path(format!("folder/to-{index}")))
            .unwrap();
    }
    let without = start.elapsed();
    let start = now();
    file.write_all(&pattern(0, 100_000)).unwrap();
    file.sync_all().unwrap();
    let with = start.elapsed();
    println!("40 changes in {without:?}, one fsync in {with:?}");
    assert!(with >= DELAY, "an fsync that did not wait for the disk: {with:?}");
    assert!(without < 20 * DELAY, "changes wait for the disk: {without:?}");
    let load = Workload::start(&[cluster.mnt(), &other], 8);
    for _ in 0..2 {
        load.goes_on(RECOVERY, "on a slow disk");
    }
    let ended = load.end(RECOVERY);
    ended.no_errors();
    ended.check(&[cluster.mnt(), &other]);
    for mnt in [cluster.mnt(), &other] {
        assert_eq!(cluster.link_figure(mnt, "sessionsLost"), 0, "{mnt:?} lost its session to a slow disk");
    }
    cluster.as_made_by_up();
    cluster.finish();
}

/// A sync that failed is not tried again, for nobody knows what it left: the server ends, and the next one is told everything
/// that it had not called durable.
fn fails_to_sync(transport: Transport) {
    let cluster = super::cluster(transport);
    let other = cluster.second_mount();
    let meta = cluster.meta();
    meta.kill();
    let journal = journal(&cluster);
    let words = ["-P", journal.to_str().unwrap(), "-e", "inject=fsync,fdatasync:error=EIO:when=40+"];
    traced(&cluster, &meta, "fsync,fdatasync", &words);
    let load = Workload::start(&[cluster.mnt(), &other], 5);
    let running = || Process::find("meta-flexfs", cluster.state()).is_some_and(|process| process.is_alive());
    assert!(soon(RECOVERY, || !running()), "the server goes on without its disk");
    let log = fs::read_to_string(cluster.root().join("servers.log")).unwrap();
    assert!(log.contains("the engine failed"), "{log}");
    sleep(Duration::from_millis(500));
    cluster.restart_server(&meta);
    load.goes_on(RECOVERY, "with a new disk");
    let ended = load.end(RECOVERY);
    ended.no_errors();
    ended.check(&[cluster.mnt(), &other]);
    cluster.as_made_by_up();
    cluster.finish();
}

/// The machine of the metadata server loses power: of its journal only what was synced is there, or some more of it, torn.
/// Clients that are still there replay what they were not told to be durable.
fn power_cut(transport: Transport) {
    let cluster = super::cluster(transport);
    let other = cluster.second_mount();
    let mut random = Random::new(31);
    let mut lost = 0;
    let mut load = None;
    for round in 0..6 {
        let meta = cluster.meta();
        meta.kill();
        if round > 0 {
            lost += cut_power(&cluster, &mut random, round);
        }
        let more = ["-y", "-s", "0", "-e", &inject("fdatasync,fsync", Duration::from_millis(150))];
        traced(&cluster, &meta, "write,pwrite64,writev,fsync,fdatasync,ftruncate", &more);
        let load = load.get_or_insert_with(|| Workload::start(&[cluster.mnt(), &other], 12));
        load.goes_on(RECOVERY, "after a power cut");
        sleep(Duration::from_millis(300 + random.below(400)));
        assert!(soon(RECOVERY, || Process::find("meta-flexfs", cluster.state()).is_some()));
    }
    let meta = cluster.meta();
    meta.kill();
    lost += cut_power(&cluster, &mut random, 0);
    cluster.restart_server(&meta);
    let load = load.unwrap();
    load.goes_on(RECOVERY, "after the last power cut");
    let ended = load.end(RECOVERY);
    ended.no_errors();
    ended.check(&[cluster.mnt(), &other]);
    let replayed: u64 = [cluster.mnt(), &other].iter().map(|mnt| cluster.link_figure(mnt, "replayed")).sum();
    println!("{lost} bytes of journal lost, {replayed} calls replayed");
    assert!(lost > 0 && replayed > 0, "no power cut hurt: {lost} bytes lost, {replayed} calls replayed");
    cluster.as_made_by_up();
    cluster.finish();
}

/// Starts the metadata server under strace.
fn traced(cluster: &Cluster, meta: &Process, calls: &str, more: &[&str]) {
    let (log, calls) = (trace(cluster), format!("trace={calls}"));
    File::create(&log).unwrap();
    fs::write(log.with_extension("before"), journal_end(&journal(cluster)).to_string()).unwrap();
    let mut words = vec!["strace", "-f", "--seccomp-bpf", "-qq", "-o", log.to_str().unwrap(), "-e", &calls];
    // A bare word is an injection.
    words.extend(
        more.iter().flat_map(|word| if word.starts_with("inject=") { vec!["-e", word] } else { vec![*word] }),
    );
    words.dedup_by(|one, other| *one == "-e" && *other == "-e");
    cluster.restart_behind(meta, &words);
    let stands = || Process::find("meta-flexfs", cluster.state()).is_some_and(|process| process.is_alive());
    assert!(soon(RECOVERY, stands), "no server under strace");
}

/// strace's words for a delay before system calls.
fn inject(calls: &str, delay: Duration) -> String {
    format!("inject={calls}:delay_enter={}", delay.as_micros())
}

fn trace(cluster: &Cluster) -> PathBuf {
    cluster.root().join("trace")
}

/// The volume's journal; of so little work there is one.
fn journal(cluster: &Cluster) -> PathBuf {
    let volumes = cluster.state().join("meta/volumes");
    let folders = fs::read_dir(volumes).unwrap().map(|entry| entry.unwrap().path().join("db"));
    let files = folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    let mut found: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|end| end == "jnl")).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// Where its last batch ends.
fn journal_end(journal: &Path) -> u64 {
    let bytes = fs::read(journal).unwrap();
    bytes.windows(4).rposition(|window| window == b"FJL\x03").map_or(0, |at| at as u64 + 4)
}

/// Takes away what a power cut may take: bytes of the journal that no sync had covered when the server died. The image is
/// just what was synced, or some of the rest is there too. Returns how many bytes are gone.
fn cut_power(cluster: &Cluster, random: &mut Random, round: u64) -> u64 {
    let journal = journal(cluster);
    let before = fs::read_to_string(trace(cluster).with_extension("before")).unwrap().parse().unwrap();
    let text = fs::read_to_string(trace(cluster)).unwrap();
    let (written, synced) = replay(&text, journal.to_str().unwrap(), before);
    let end = journal_end(&journal);
    assert!(synced <= written && end <= written, "trace: {before} {synced} {written}, journal: {end}");
    let kept = if round.is_multiple_of(2) { synced } else { synced + random.below(written - synced + 1) };
    println!("power cut: {} of {} unsynced bytes stay", kept - synced, written - synced);
    let file = OpenOptions::new().write(true).open(&journal).unwrap();
    file.set_len(kept).unwrap();
    file.sync_all().unwrap();
    written - kept
}

/// From a trace: how many bytes of a file were written, and how many before the start of a sync that came back.
fn replay(trace: &str, file: &str, before: u64) -> (u64, u64) {
    let file = format!("<{file}>");
    let (mut written, mut synced) = (before, before);
    // Threads inside a sync, with what it covers; threads inside a write.
    let mut syncs: Vec<(&str, u64)> = Vec::new();
    let mut writes: Vec<&str> = Vec::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        let result =
            || call.rsplit_once("= ").and_then(|(_, value)| value.split(' ').next()?.parse::<u64>().ok());
        let (is_sync, is_write) = (call.contains("sync"), call.contains("write"));
        let begins = !call.starts_with("<...") && call.contains(&file);
        assert!(!(begins && call.starts_with("pwrite")), "the journal is appended to: {call}");
        if begins && is_sync {
            syncs.push((thread, written));
        }
        if begins && is_write {
            writes.push(thread);
        }
        if call.ends_with("<unfinished ...>") {
            continue;
        }
        if is_sync && let Some(at) = syncs.iter().position(|(other, _)| *other == thread) {
            let (_, covers) = syncs.remove(at);
            if result() == Some(0) {
                synced = synced.max(covers);
            }
        }
        if is_write && let Some(at) = writes.iter().position(|other| *other == thread) {
            writes.remove(at);
            written += result().unwrap_or(0);
        }
    }
    (written, synced)
}
