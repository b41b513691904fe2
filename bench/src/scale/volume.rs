//! Files in a volume. They are made straight through the namespace machine over the engine, in this process, one commit for each as
//! the server does it: ten million through a mount would take an hour.

use std::fs::read_dir;

use anyhow::{Context as _, anyhow, ensure};
use flexfs_meta::engine::fjall::{Fjall, Options};
use flexfs_meta::namespace::{Context as CallContext, Limits, Namespace, Rights};
use flexfs_uring::clock;
use flexfs_wire::attr::{S_IFDIR, S_IFREG};
use flexfs_wire::id::{Ino, RequestId, SessionId};
use flexfs_wire::limits::BLOCK_BYTES_DEFAULT;
use flexfs_wire::message::{Caller, Make, Request};
use flexfs_wire::name::Name;
use flexfs_wire::seal::Node;
use flexfs_wire::time::Time;

use super::cluster::Cluster;
use super::study::{Rule, Study};
use super::work::{check_end, entry, list, mebibytes, micros, millis, timed};
use crate::pattern::Random;
use crate::target::Context;

pub(super) const ID: &str = "volume";

/// Files in a directory.
const FILES: u64 = 1_000;
/// Inode numbers granted at once.
const GRANT: u64 = 4_096;
/// Calls a client has unfinished: its mark stays so far behind.
const UNFINISHED: u64 = 32;
/// Directories that are listed, and files that are looked at.
const LISTED: u64 = 10;
const LOOKED_AT: u64 = 300;
/// Seconds that a server may take to start.
const START_MAX: f64 = 5.0;

/// Fills one volume, step by step.
///
/// # Errors
/// What failed; figures up to there are in the study.
pub(super) fn run(study: &mut Study, context: &Context, sizes: &[u64]) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(context)?;
    let mut made = 0;
    for &size in sizes {
        study.step(&super::run::count(size), size as f64);
        cluster.down()?;
        let (time, ()) = timed(|| fill(&cluster, made / FILES..size / FILES))?;
        study.note("make one, in process", "us each", Rule::Each, micros(time, size - made));
        made = size;
        cluster.up()?;
        // What the fill has left to do for the engine is done before anything is timed.
        settle(&cluster)?;
        study.note("bytes on disk", "MiB", Rule::Total, mebibytes(cluster.stored_bytes()));

        let serves = cluster.renew()?;
        study.note("start of meta, killed while idle", "s", Rule::AtMost(START_MAX), serves);
        study.note("memory of meta behind its start", "MiB", Rule::Total, cluster.memory()?.meta);
        let mut random = Random::new(size);
        let root = cluster.root();
        let mut path = || {
            let dir = root.join(format!("d{:06}", random.below(size / FILES)));
            entry(&dir, random.below(FILES))
        };
        let paths: Vec<_> = (0..LOOKED_AT).map(|_| path()).collect();
        let (time, ()) = timed(|| paths.iter().try_for_each(|path| Ok(rustix::fs::stat(path).map(drop)?)))?;
        study.note("stat of a path, all cold", "us each", Rule::Each, micros(time, LOOKED_AT));
        let dirs: Vec<_> = (0..LISTED).map(|_| path()).collect();
        let (time, ()) = timed(|| {
            dirs.iter().filter_map(|path| path.parent()).try_for_each(|dir| {
                let found = list(dir)?;
                ensure!(found == FILES, "{} has {found} entries instead of {FILES}", dir.display());
                Ok(())
            })
        })?;
        study.note("listing of 1,000, all cold", "ms each", Rule::Each, millis(time) / LISTED as f64);

        let (serves, answers) = cluster.crash(&path())?;
        study.note("start of meta, killed under a mount", "s", Rule::AtMost(START_MAX), serves);
        study.note("until a program that waits goes on", "s", Rule::AtMost(START_MAX), answers);
        study.note("memory of meta behind all", "MiB", Rule::Total, cluster.memory()?.meta);
    }
    cluster.down()
}

/// Waits until the engine has stopped writing its tables anew.
fn settle(cluster: &Cluster) -> anyhow::Result<()> {
    /// Longest wait, looks; a look each second.
    const LOOKS: u32 = 120;
    let mut before = None;
    for _ in 0..LOOKS {
        std::thread::sleep(std::time::Duration::from_secs(1));
        check_end()?;
        let files = read_dir(cluster.database()?)?.count();
        let now = Some((files, cluster.stored_bytes()));
        if before == now {
            break;
        }
        before = now;
    }
    Ok(())
}

fn fill(cluster: &Cluster, dirs: std::ops::Range<u64>) -> anyhow::Result<()> {
    let store = Fjall::open(&cluster.database()?, Options::default())?;
    let limits = Limits::new(BLOCK_BYTES_DEFAULT, 0, 0);
    let mut ns =
        Namespace::open(store, limits, now()).map_err(|error| anyhow!("open the volume: {error}"))?;
    ns.finish_recovery(now()).map_err(|error| anyhow!("open the volume: {error}"))?;
    let (session, _) = ns.open_session(|_| Vec::new()).map_err(|error| anyhow!("open a session: {error}"))?;
    let mut maker = Maker { ns, session, request: 0, inos: 0..0 };
    for dir in dirs {
        check_end()?;
        let parent = maker.make(Ino::ROOT, &format!("d{dir:06}"), S_IFDIR | 0o755)?;
        for file in 0..FILES {
            let name = entry("".as_ref(), file);
            maker.make(parent, &name.to_string_lossy(), S_IFREG | 0o644)?;
        }
    }
    let Maker { mut ns, session, request, .. } = maker;
    ns.finished(session, RequestId(request + 1));
    ns.end_session(now(), session).map_err(|error| anyhow!("end the session: {error}"))?;
    ns.close().map_err(|error| anyhow!("close the volume: {error}"))
}

struct Maker {
    ns: Namespace<Fjall>,
    session: SessionId,
    request: u64,
    inos: std::ops::Range<u64>,
}

impl Maker {
    fn make(&mut self, parent: Ino, name: &str, mode: u32) -> anyhow::Result<Ino> {
        if self.inos.is_empty() {
            let granted = self.ns.grant_inodes(self.session, GRANT);
            let (range, _) = granted.map_err(|error| anyhow!("grant inode numbers: {error}"))?;
            self.inos = range.start..range.start + range.count;
        }
        let ino = Ino(self.inos.next().context("no inode number was granted")?);
        self.request += 1;
        if self.request.is_multiple_of(UNFINISHED) {
            self.ns.finished(self.session, RequestId(self.request.saturating_sub(UNFINISHED)));
        }
        let context = CallContext {
            now: now(),
            told: None,
            session: self.session,
            request: RequestId(self.request),
            caller: Caller { uid: 0, gid: 0 },
            rights: Rights::Client,
            umask: 0,
        };
        let make = Make { ino, mode, umask: 0o022, rdev: 0, target: Vec::new(), open: false };
        let name = Name::new(name.as_bytes()).map_err(|error| anyhow!("{name}: {error}"))?;
        let request = Request::Make { parent: Node::unsealed(parent), name: Some(name), make };
        let answer = self.ns.apply(&context, &request).answer.context("a call waits")?;
        answer.result.map_err(|errno| anyhow!("make an inode: {errno}"))?;
        Ok(ino)
    }
}

fn now() -> Time {
    let (secs, nanos) = clock::wall_parts();
    Time { secs, nanos }
}
