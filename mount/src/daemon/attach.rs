//! Bringing kernel and file system together: choosing the transport, mounting, serving.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use crossbeam::channel::{Receiver, Sender};
use flexfs_uring::wakeful::Wakeful;
use flexfs_wire::settings::Flags;

use super::run::Event;
use crate::config::Transport;
use crate::fuse::attach;
use crate::fuse::device::{self, HandshakeError, Notifier};
use crate::fuse::fallback;
use crate::fuse::queue::{self, Service};
use crate::fuse::seat::Seats;
use crate::shard::Shards;
use crate::vfs::{Notice, Recaller, Task, Vfs};

/// Switch of FUSE over io_uring.
const ENABLE_URING: &str = "/sys/module/fuse/parameters/enable_uring";

/// What is mounted where, and what serves it.
pub(crate) struct Plan<'a> {
    pub(crate) volume: &'a str,
    pub(crate) target: &'a Path,
    pub(crate) flags: Flags,
    pub(crate) shards: &'a Shards,
    pub(crate) vfs: &'a Arc<Vfs>,
    pub(crate) notices: Receiver<Notice>,
    pub(crate) recalls: Receiver<Task>,
    pub(crate) events: Sender<Event>,
    pub(crate) wakeful: Option<Arc<Wakeful>>,
}

/// A mount that is served.
#[derive(Debug)]
pub(crate) struct Attached {
    /// `uring` or `dev`.
    pub(crate) transport: &'static str,
    pub(crate) queue_depth: u16,
    pub(crate) seats: Arc<Seats>,
}

impl Plan<'_> {
    /// Mounts through `transport`.
    pub(crate) fn attach(&self, transport: Transport) -> anyhow::Result<Attached> {
        match transport {
            Transport::Uring => self.attach_uring(),
            Transport::Dev => self.attach_dev(),
            Transport::Auto if !is_offered() => {
                tracing::warn!("{}; going on over /dev/fuse", HandshakeError::NoIoUring);
                self.attach_dev()
            }
            Transport::Auto => match self.attach_uring() {
                Ok(attached) => Ok(attached),
                Err(error) => {
                    tracing::warn!("no FUSE over io_uring ({error:#}); going on over /dev/fuse");
                    self.attach_dev()
                }
            },
        }
    }

    fn attach_uring(&self) -> anyhow::Result<Attached> {
        let device = Arc::new(attach::open_device(false)?);
        let mounted = Mounting::new(self, &device)?;
        let agreed = device::handshake(&device, !self.flags.no_acl, self.vfs.may_pass())?;
        if agreed.passing {
            self.vfs.pass_through(&device);
        }
        let seats = Arc::new(Seats::new(true, self.wakeful.clone()));
        let service = Service { vfs: Arc::clone(self.vfs), seats: Arc::clone(&seats) };
        let depth = queue::depth(self.shards.possible_cpus());
        self.serve_device(&device, &service);
        for index in 0..self.shards.count() {
            let qids = self.shards.qids(index).to_vec();
            let (device, service) = (Arc::clone(&device), service.clone());
            let serve = move || async move { queue::serve(&device, &qids, depth, &service) };
            self.shards.run(index, serve)??;
        }
        self.write_notices(device.try_clone().context("dup")?)?;
        mounted.stays();
        Ok(Attached { transport: "uring", queue_depth: depth, seats })
    }

    fn attach_dev(&self) -> anyhow::Result<Attached> {
        let device = attach::open_device(true)?;
        let mounted = Mounting::new(self, &device)?;
        let for_notices = device.try_clone().context("dup")?;
        let seats = Arc::new(Seats::new(false, self.wakeful.clone()));
        let service = Service { vfs: Arc::clone(self.vfs), seats: Arc::clone(&seats) };
        let fuser = fallback::run(device, service, self.shards.handles()).context("fuser")?;
        let events = self.events.clone();
        std::thread::Builder::new().name("fuser-end".to_owned()).spawn(move || {
            match fuser.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "fuser ended"),
                Err(_) => tracing::error!("fuser panicked"),
            }
            // The main thread may have ended already.
            let _ = events.send(Event::Gone);
        })?;
        self.watch(&seats);
        self.write_notices(for_notices)?;
        mounted.stays();
        Ok(Attached { transport: "dev", queue_depth: 0, seats })
    }

    /// Forgets, interrupts and the end of the mount, on the first shard.
    fn serve_device(&self, device: &Arc<OwnedFd>, service: &Service) {
        let (device, service, events) = (Arc::clone(device), service.clone(), self.events.clone());
        self.watch(&service.seats);
        self.shards.spawn(0, move || async move {
            device::serve_device(device, service).await;
            let _ = events.send(Event::Gone);
        });
    }

    fn watch(&self, seats: &Arc<Seats>) {
        let (seats, vfs) = (Arc::clone(seats), Arc::clone(self.vfs));
        self.shards.spawn(0, move || async move { seats.watch(|| vfs.quiet_for()).await });
    }

    fn write_notices(&self, device: OwnedFd) -> anyhow::Result<()> {
        let kernel = Arc::new(Notifier(device.try_clone().context("dup")?));
        let (vfs, tasks) = (Arc::clone(self.vfs), self.recalls.clone());
        vfs.know_kernel(Arc::clone(&kernel) as _);
        let (_, shard) = self.shards.handles().swap_remove(0);
        Recaller::start(vfs, kernel, shard, tasks).context("cannot start a thread")?;
        let notices = self.notices.clone();
        std::thread::Builder::new()
            .name("notices".to_owned())
            .spawn(move || device::write_notices(&device, &notices))
            .context("cannot start a thread")?;
        Ok(())
    }
}

/// A mount that is taken off again unless it stays.
struct Mounting<'a> {
    target: Option<&'a Path>,
}

impl<'a> Mounting<'a> {
    fn new(plan: &Plan<'a>, device: &OwnedFd) -> anyhow::Result<Self> {
        attach::mount(device, plan.volume, plan.target, plan.flags)?;
        Ok(Self { target: Some(plan.target) })
    }

    fn stays(mut self) {
        self.target = None;
    }
}

impl Drop for Mounting<'_> {
    fn drop(&mut self) {
        if let Some(target) = self.target
            && let Err(error) = attach::detach(target)
        {
            tracing::error!(%error, target = %target.display(), "a mount that failed could not be taken off");
        }
    }
}

/// Whether the kernel will offer FUSE over io_uring. Where it cannot be told, it is tried.
fn is_offered() -> bool {
    match std::fs::read_to_string(ENABLE_URING) {
        Ok(text) => text.trim() != "N",
        // The module may be loaded only by opening the device; or the kernel is older than the switch.
        Err(_) => !Path::new("/sys/module/fuse/parameters").exists(),
    }
}
