//! kill -9: of the server under load, of the client, of both. The workload finishes or is told; what was fsynced is there.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use crate::files::pattern;
use crate::harness::{Cluster, Run, Transport, within};

/// Threads of a workload.
const THREADS: u64 = 4;
/// Time for a workload to notice that it should stop, recovery of the server included.
const STOP: Duration = Duration::from_secs(60);

both!(meta_under_load, mount_under_load, everything_at_once, meta_with_open_files, meta_under_appends);

/// What must be in a folder: name to (seed, length).
type Model = BTreeMap<String, (u64, usize)>;

/// Threads that make, overwrite, rename and remove files, each in a folder of its own, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Outcome>>,
}

/// What a thread leaves: every file it knows to be durable, and the first error it met.
struct Outcome {
    folder: PathBuf,
    durable: Model,
    /// Files touched after their last fsync: they may have either content.
    open: Vec<String>,
    error: Option<std::io::Error>,
}

impl Load {
    fn start(root: &Path) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..THREADS)
            .map(|thread| {
                let (stop, done, folder) = (stop.clone(), done.clone(), root.join(format!("load-{thread}")));
                fs::create_dir(&folder).unwrap();
                std::thread::spawn(move || work(folder, thread, &stop, &done))
            })
            .collect();
        Self { stop, done, threads }
    }

    fn count(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    fn end(self) -> Vec<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        within(STOP, "workload after the crash", move || {
            self.threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }
}

fn work(folder: PathBuf, thread: u64, stop: &AtomicBool, done: &AtomicU64) -> Outcome {
    let mut outcome = Outcome { folder, durable: Model::new(), open: Vec::new(), error: None };
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        if let Err(error) = step(&mut outcome, round, thread) {
            outcome.error = Some(error);
            break;
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    outcome
}

/// One round: a new file through a temporary name, now and then an overwrite, an append, a removal.
fn step(outcome: &mut Outcome, round: u64, thread: u64) -> std::io::Result<()> {
    let (seed, name) = (round * 31 + thread, format!("file-{}", round % 40));
    let length =
        usize::try_from((seed * 7919) % 200_000).unwrap() / if round.is_multiple_of(3) { 1 } else { 20 };
    let (path, temporary) = (outcome.folder.join(&name), outcome.folder.join("temporary"));
    outcome.open = vec![name.clone()];
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&temporary)?;
    file.write_all(&pattern(seed, length))?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, &path)?;
    // Durable is what fsync of the folder says.
    File::open(&outcome.folder)?.sync_all()?;
    outcome.durable.insert(name, (seed, length));
    if round.is_multiple_of(5) {
        let other = format!("file-{}", (round * 3) % 40);
        outcome.open = vec![other.clone()];
        if outcome.durable.contains_key(&other) {
            fs::remove_file(outcome.folder.join(&other))?;
            File::open(&outcome.folder)?.sync_all()?;
            outcome.durable.remove(&other);
        }
    }
    outcome.open.clear();
    Ok(())
}

impl Outcome {
    /// What was durable is there, byte for byte; nothing else is but the files in work and the temporary one.
    fn check(&self) {
        for (name, (seed, length)) in &self.durable {
            if self.open.contains(name) {
                continue;
            }
            let bytes = fs::read(self.folder.join(name))
                .unwrap_or_else(|error| panic!("{name} was fsynced: {error}"));
            assert!(
                bytes == pattern(*seed, *length),
                "{name} has other content: {} bytes of {length}",
                bytes.len()
            );
        }
        for entry in fs::read_dir(&self.folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let known = self.durable.contains_key(&name) || self.open.contains(&name) || name == "temporary";
            assert!(known, "{name} was removed and is back");
        }
    }
}

/// Appends of a few bytes, each followed by fdatasync, while everything dies: what was acknowledged is there, in its place, and what
/// follows it is the append that was under way, whole, or nothing.
fn meta_under_appends(transport: Transport) {
    /// Bytes of an append: too many together for the inline part, few enough to come along with what names them.
    const APPEND: usize = 3_000;
    let cluster = Cluster::start(transport);
    let path = cluster.mnt().join("log");
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = {
        let (stop, done, path) = (stop.clone(), done.clone(), path.clone());
        std::thread::spawn(move || -> std::io::Result<()> {
            let mut file = OpenOptions::new().create(true).append(true).open(path)?;
            while !stop.load(Ordering::Relaxed) {
                file.write_all(&pattern(done.load(Ordering::Relaxed), APPEND))?;
                file.sync_data()?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })
    };
    let goes_on = |from: u64| crate::harness::soon(STOP, || done.load(Ordering::Relaxed) > from + 50);
    assert!(goes_on(0), "nothing was done");
    for _ in 0..transport.scale(3, 2) {
        let before = done.load(Ordering::Relaxed);
        cluster.kill_meta();
        sleep(Duration::from_millis(300));
        cluster.restart();
        assert!(goes_on(before), "the appends do not go on after a restart");
    }
    // Both die: nobody is left to repeat anything.
    let (mount, meta, admin) =
        (cluster.mount_process(cluster.mnt()).unwrap(), cluster.meta(), cluster.admin());
    for process in [&meta, &mount, &admin] {
        process.signal(rustix::process::Signal::KILL);
    }
    stop.store(true, Ordering::Relaxed);
    let _ = within(STOP, "the appends' end", move || writer.join().unwrap());
    let acknowledged = usize::try_from(done.load(Ordering::Relaxed)).unwrap();
    for process in [&meta, &mount, &admin] {
        process.kill();
    }
    cluster.up();
    let bytes = fs::read(&path).unwrap();
    assert!(bytes.len() >= acknowledged * APPEND, "{} bytes of {acknowledged} appends", bytes.len());
    for (index, append) in bytes.chunks(APPEND).enumerate() {
        assert!(append == pattern(index as u64, APPEND), "append {index} of {acknowledged}");
    }
    cluster.finish();
}

/// The server dies three times under load and comes back: no caller notices more than a pause.
fn meta_under_load(transport: Transport) {
    let cluster = Cluster::start(transport);
    let load = Load::start(cluster.mnt());
    for _ in 0..transport.scale(3, 2) {
        sleep(Duration::from_millis(1200));
        let before = load.count();
        assert!(before > 0, "nothing was done");
        cluster.kill_meta();
        sleep(Duration::from_millis(400));
        cluster.restart();
        let goes_on = || load.count() > before + 20;
        assert!(crate::harness::soon(STOP, goes_on), "the workload does not go on after a restart");
    }
    let outcomes = load.end();
    for outcome in &outcomes {
        assert!(outcome.error.is_none(), "the workload met {:?}", outcome.error);
        outcome.check();
    }
    cluster.down();
    cluster.verify();
    cluster.up();
    outcomes.iter().for_each(Outcome::check);
    cluster.finish();
}

/// The client dies under load: callers get errors, the mount point is freed, a new mount has what was fsynced.
fn mount_under_load(transport: Transport) {
    let cluster = Cluster::start(transport);
    let load = Load::start(cluster.mnt());
    sleep(Duration::from_secs(2));
    assert!(load.count() > 0, "nothing was done");
    cluster.kill_mount();
    let outcomes = load.end();
    assert!(outcomes.iter().any(|outcome| outcome.error.is_some()), "the workload did not notice");
    Run::new("umount").arg(cluster.mnt()).limit(20).ok();
    cluster.up();
    outcomes.iter().for_each(Outcome::check);
    // `up` over a dead mount mends it too.
    cluster.kill_mount();
    cluster.up();
    outcomes.iter().for_each(Outcome::check);
    cluster.finish();
}

/// Client and server die in one moment: only what was fsynced has to be there, and it is.
fn everything_at_once(transport: Transport) {
    let cluster = Cluster::start(transport);
    let load = Load::start(cluster.mnt());
    sleep(Duration::from_secs(2));
    let mount = cluster.mount_process(cluster.mnt()).unwrap();
    let (meta, admin) = (cluster.meta(), cluster.admin());
    for process in [&mount, &meta, &admin] {
        process.signal(rustix::process::Signal::KILL);
    }
    let outcomes = load.end();
    for process in [&mount, &meta, &admin] {
        process.kill();
    }
    cluster.up();
    outcomes.iter().for_each(Outcome::check);
    cluster.finish();
}

/// Written, answered, not fsynced: the client still has it when the server dies, and says it again.
fn meta_with_open_files(transport: Transport) {
    let cluster = Cluster::start(transport);
    let mut files: Vec<File> =
        (0..50).map(|index| File::create(cluster.path(format!("file-{index}"))).unwrap()).collect();
    for (index, file) in files.iter_mut().enumerate() {
        file.write_all(&pattern(index as u64, index * 5_000)).unwrap();
    }
    for index in 0..50 {
        fs::rename(cluster.path(format!("file-{index}")), cluster.path(format!("moved-{index}"))).unwrap();
    }
    cluster.kill_meta();
    cluster.restart();
    for file in &mut files {
        file.write_all(b"after").unwrap();
    }
    drop(files);
    let check = |mnt: &Path| {
        for index in 0..50u64 {
            let mut wanted = pattern(index, usize::try_from(index).unwrap() * 5_000);
            wanted.extend(b"after");
            assert!(fs::read(mnt.join(format!("moved-{index}"))).unwrap() == wanted, "moved-{index}");
        }
    };
    check(cluster.mnt());
    cluster.remount();
    check(cluster.mnt());
    cluster.finish();
}
