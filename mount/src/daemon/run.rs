//! One mount, from the first check to the last flush.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use crossbeam::channel::{Receiver, Sender, unbounded};
use flexfs_uring::clock;
use flexfs_uring::harden::{self, Keep, Needs};
use flexfs_uring::wakeful::{self, Latency, Opened, Wakeful};
use flexfs_wire::creds_file;
use flexfs_wire::token::TokenKind;
use rustix::process::{Resource, Rlimit};

use super::attach::{Attached, Plan};
use super::signal::Signals;
use super::spawn::Ready;
use crate::config::MountArgs;
use crate::disk;
use crate::fuse::attach::{self, Unmounted};
use crate::setup::{self, Session};
use crate::shard::Shards;
use crate::status::{self, Claim, ClaimError, Place};
use crate::vfs::{Notices, Vfs};

/// How long a busy mount may keep the program from ending.
const BUSY_TIME: Duration = Duration::from_secs(10);
/// How long unwritten data may take to reach the server at the end.
const FLUSH_TIME: Duration = Duration::from_secs(60);
/// How long the kernel may take to say that an unmounted file system is gone.
const GONE_TIME: Duration = Duration::from_secs(5);

/// How long a mount that was just taken off may take to end before the next one is refused.
const LAST_ONE_TIME: Duration = Duration::from_secs(10);
/// How often that is looked at.
const LAST_ONE_LOOK: Duration = Duration::from_millis(20);

/// What ends a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A signal.
    Asked,
    /// The kernel has let go: it was unmounted.
    Gone,
}

/// Mounts and serves until unmounted or told to end.
///
/// # Errors
/// Why there is no mount. Once it stands, problems are logged.
pub fn run(mut args: MountArgs, ready: Ready) -> anyhow::Result<()> {
    let signals = Signals::block()?;
    if ready == Ready::Parent {
        // Neither the terminal's signals nor its end reach the daemon.
        rustix::process::setsid().context("setsid")?;
    }
    raise_limits();
    args.make_absolute()?;
    let target = attach::check_mount_point(&args.mount_point, args.non_empty)?;
    args.mount_point.clone_from(&target);
    let claim = claim(&Place::new(&args.state_folder, &target), &target)?;
    let creds = creds_file::load(TokenKind::Volume, &args.creds_path())?;
    let disk = args.disk().map_err(anyhow::Error::msg)?;
    let wakeful = open_wakeful(args.cpu_latency);
    // Before any other thread, for threads inherit it.
    let in_force = harden::give_up(&Needs { user: None, keep: Keep::Mounts, reach: None })?;
    tracing::info!("given up what is not needed: {in_force}");
    let shards = Shards::start()?;
    let session = setup::open(setup::Config {
        creds,
        volume: args.volume.clone(),
        client: client_name(&target),
        flags: args.flags(),
        soft: args.soft,
        mem_capacity: args.mem_bytes(),
        disk: disk.map(|(folder, quota)| disk::Settings { folder, quota, keeps_plain: false }),
        shards: shards.count(),
    })?;
    let (events, happened) = unbounded();
    let asked = (events.clone(), target.clone());
    signals.watch(move |signal| ask(signal, &asked), move |signal| force(signal, &target))?;
    let wakeful = wakeful.map(Opened::start).transpose()?.map(Arc::new);
    Mount { args, claim, shards, session: Arc::new(session), wakeful }.live(ready, &events, &happened)
}

/// A mount with its session.
struct Mount {
    args: MountArgs,
    claim: Claim,
    shards: Shards,
    session: Arc<Session>,
    wakeful: Option<Arc<Wakeful>>,
}

impl Mount {
    fn live(self, ready: Ready, events: &Sender<Event>, happened: &Receiver<Event>) -> anyhow::Result<()> {
        let granted = self.session.remote.granted();
        let (flags, target) = (granted.flags, self.target());
        let (notices, posted) = Notices::new();
        let vfs =
            Arc::new(Vfs::new(Arc::clone(&self.session.remote), Arc::clone(&self.session.files), notices));
        let (tasks, recalls) = vfs.listen();
        self.start_links()?;
        let plan = Plan {
            volume: &self.args.volume,
            target: &target,
            flags,
            shards: &self.shards,
            vfs: &vfs,
            notices: posted,
            recalls,
            events: events.clone(),
            wakeful: self.wakeful.clone(),
        };
        let attached = match plan.attach(self.args.transport) {
            Ok(attached) => attached,
            Err(error) => {
                self.finish(&vfs);
                return Err(error);
            }
        };
        self.announce(&vfs, &attached, flags.ro)?;
        let sends = Arc::clone(&vfs);
        self.shards.spawn(0, move || async move { sends.run_atimes().await });
        let gives_back = Arc::clone(&vfs);
        self.shards.spawn(0, move || async move { gives_back.run_leases(tasks).await });
        ready.tell()?;
        tracing::info!(
            volume = self.args.volume,
            target = %target.display(),
            transport = attached.transport,
            shards = self.shards.count(),
            read_only = flags.ro,
            "mounted"
        );
        self.wait_for_end(&target, happened);
        let flushed = self.finish(&vfs);
        self.claim.clear(&target);
        anyhow::ensure!(flushed, "unwritten data was lost, see above");
        tracing::info!(target = %target.display(), "unmounted");
        Ok(())
    }

    /// The checked mount point, which the arguments hold since.
    fn target(&self) -> PathBuf {
        self.args.mount_point.clone()
    }

    fn start_links(&self) -> anyhow::Result<()> {
        for index in 0..self.shards.count() {
            let session = Arc::clone(&self.session);
            self.shards.run(index, move || async move { session.start_shard(index).await })?;
        }
        Ok(())
    }

    /// What is good to have, and no reason to give up a mount.
    fn announce(&self, vfs: &Arc<Vfs>, attached: &Attached, read_only: bool) -> anyhow::Result<()> {
        let target = self.target();
        match attach::find(&target).map(|found| found.map(|mounted| mounted.raise_read_ahead())) {
            Ok(Some(Ok(()))) => {}
            Ok(Some(Err(error))) => {
                tracing::info!(%error, "the kernel's readahead stays small (sysfs refused)")
            }
            Ok(None) => anyhow::bail!("the mount on {} vanished while it was made", target.display()),
            Err(error) => tracing::info!(%error, "the kernel's readahead stays small (no mount table)"),
        }
        let source = status::Source {
            volume: self.args.volume.clone(),
            target: target.clone(),
            transport: attached.transport,
            queue_depth: attached.queue_depth,
            shards: self.shards.count(),
            read_only,
            remote: Arc::clone(&self.session.remote),
            files: Arc::clone(&self.session.files),
            vfs: Arc::clone(vfs),
            seats: Arc::clone(&attached.seats),
        };
        match status::serve(&self.claim.place().socket(), source) {
            Ok(()) => self.claim.publish(&target),
            Err(error) => tracing::warn!(%error, "there will be no `status` of this mount"),
        }
        Ok(())
    }

    /// Until the kernel has let go, or nothing more can be done about it.
    fn wait_for_end(&self, target: &Path, happened: &Receiver<Event>) {
        // The senders live as long as this function's caller.
        if happened.recv() != Ok(Event::Asked) {
            return tracing::info!("unmounted from outside");
        }
        match attach::unmount(target, clock::now() + BUSY_TIME) {
            Ok(Unmounted::Clean) => {
                if happened.recv_timeout(GONE_TIME).is_err() {
                    tracing::warn!(
                        "the kernel keeps the file system (another mount namespace?); ending all the same"
                    );
                }
            }
            Ok(Unmounted::Busy) => {
                tracing::warn!(
                    "{} is busy for {BUSY_TIME:?}: detaching it; programs that still use it get errors",
                    target.display()
                );
                write_back(target);
                if let Err(error) = attach::detach(target) {
                    tracing::error!(%error, "cannot detach {}", target.display());
                }
            }
            Err(error) => tracing::error!(%error, "cannot unmount {}", target.display()),
        }
    }

    /// Sends what is unwritten and ends the session. False when data was lost.
    fn finish(&self, vfs: &Arc<Vfs>) -> bool {
        let (session, vfs) = (Arc::clone(&self.session), Arc::clone(vfs));
        let finish = move || async move {
            vfs.send_atimes();
            session.finish(FLUSH_TIME).await
        };
        let finished = self.shards.run(0, finish).unwrap_or_else(|error| Err(error.to_string()));
        if let Err(text) = &finished {
            tracing::error!("{text}");
        }
        for index in 0..self.shards.count() {
            let session = Arc::clone(&self.session);
            if let Err(error) = self.shards.run(index, move || async move { session.stop_shard(index).await })
            {
                tracing::debug!(%error, "while links were closed");
            }
        }
        finished.is_ok()
    }
}

/// While this process may still open the device. A mount without it is only slower.
fn open_wakeful(latency: Latency) -> Option<Opened> {
    wakeful::open(latency).unwrap_or_else(|error| {
        tracing::info!(%error, "idle CPUs take their time to wake up (no /dev/cpu_dma_latency)");
        None
    })
}

fn ask(signal: &str, (events, target): &(Sender<Event>, PathBuf)) {
    tracing::info!(signal, "asked to end, unmounting {}", target.display());
    // The main thread may be past waiting.
    let _ = events.send(Event::Asked);
}

/// The first signal was not enough for somebody.
fn force(signal: &str, target: &Path) {
    tracing::error!(signal, "asked again: ending at once, unwritten data is lost");
    let mounted = attach::find(target).ok().flatten();
    drop(attach::detach(target));
    drop(mounted.map(|mounted| mounted.abort()));
    std::process::exit(1);
}

/// Has the kernel send dirty pages of mapped files; unmounting would do it, detaching does not. Bounded: the server
/// may be away.
fn write_back(target: &Path) {
    let (done, waits) = crossbeam::channel::bounded(1);
    let root = target.to_owned();
    let sync = move || {
        let synced = std::fs::File::open(&root).and_then(|root| Ok(rustix::fs::syncfs(&root)?));
        drop(done.send(synced));
    };
    let started = std::thread::Builder::new().name("write-back".to_owned()).spawn(sync);
    match started.map(|_| waits.recv_timeout(BUSY_TIME)) {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::warn!(%error, "mapped files could not be written back"),
        Ok(Err(_)) => tracing::warn!("mapped files were not written back within {BUSY_TIME:?}"),
        Err(error) => tracing::warn!(%error, "mapped files are not written back"),
    }
}

/// Takes the mount point. `umount(8)` returns when the kernel has let go; the program behind that mount then still says
/// goodbye to its server, and `umount X; mount X` waits for it.
fn claim(place: &Place, target: &Path) -> Result<Claim, ClaimError> {
    let deadline = clock::now() + LAST_ONE_TIME;
    loop {
        match place.clone().claim(target) {
            Err(ClaimError::Taken { .. }) if !is_mounted(target) && clock::now() < deadline => {
                std::thread::sleep(LAST_ONE_LOOK);
            }
            claimed => return claimed,
        }
    }
}

/// Without a mount table nobody knows: then nothing is waited for.
fn is_mounted(target: &Path) -> bool {
    attach::find(target).map_or(true, |mounted| mounted.is_some())
}

/// Host and mount point, for the operator's eyes.
fn client_name(target: &Path) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}:{}", target.display())
}

/// Files, links, rings: as many descriptors as this process may have. Memory of rings counts for all mounts of a user together, and the
/// usual 8 MiB are those of 50 mounts: who may have more takes what it needs, which is bounded by itself.
fn raise_limits() {
    let files = rustix::process::getrlimit(Resource::Nofile).maximum;
    let locked = rustix::process::getrlimit(Resource::Memlock).maximum;
    raise(Resource::Nofile, files);
    if !raise(Resource::Memlock, None) {
        raise(Resource::Memlock, locked);
    }
}

fn raise(resource: Resource, most: Option<u64>) -> bool {
    let raised = rustix::process::setrlimit(resource, Rlimit { current: most, maximum: most });
    if let Err(error) = raised {
        tracing::debug!(?resource, %error, "a limit stays as it is");
    }
    raised.is_ok()
}
