//! fuser's threads, and the way from them to a shard.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flexfs_uring::{ShardHandle, cpu};
use flexfs_wire::errno::Errno;
use flexfs_wire::message::Caller;
use fuser::{Config, Request, Session, SessionACL};

use crate::fuse::queue::Service;
use crate::fuse::seat::Seat;
use crate::vfs::{Ctx, Vfs};

/// Runs fuser on a mounted, blocking device until the file system is unmounted. Returns when INIT is done; the
/// thread's result says how it ended.
///
/// # Errors
/// When the kernel and fuser do not come to terms.
pub fn run(
    device: OwnedFd,
    service: Service,
    shards: Vec<(u32, ShardHandle)>,
) -> io::Result<std::thread::JoinHandle<io::Result<()>>> {
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.n_threads = Some(shards.len().max(1));
    config.clone_fd = true;
    let fallback = Fallback { service, shards, turn: AtomicUsize::new(0) };
    let session = Session::from_fd(fallback, device, SessionACL::All, config)?;
    std::thread::Builder::new().name("fuser".to_owned()).spawn(move || session.run())
}

/// The adapter.
#[derive(Debug)]
pub(super) struct Fallback {
    pub(super) service: Service,
    /// Shards and the CPUs they are pinned to.
    shards: Vec<(u32, ShardHandle)>,
    turn: AtomicUsize,
}

/// A request on its shard.
pub(super) struct At {
    pub(super) vfs: Arc<Vfs>,
    pub(super) seat: Arc<Seat>,
    pub(super) caller: Caller,
}

impl At {
    pub(super) fn ctx(&self) -> Ctx<'_> {
        Ctx { caller: self.caller, cancel: &self.seat.cancel }
    }
}

impl Fallback {
    /// As `post_patient`, for what a program waits for.
    pub(super) fn post<T: 'static>(
        &self,
        req: &Request,
        operation: impl AsyncFnOnce(At) -> Result<T, Errno> + Send + 'static,
        done: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) {
        let hurrying = async move |at: At| Arc::clone(&at.vfs).hurrying(operation(at)).await;
        self.post_patient(req, hurrying, done);
    }

    /// Runs an operation on a shard and passes its outcome on. If the shard has ended, `done` is dropped, and with it
    /// the reply, which then is EIO.
    pub(super) fn post_patient<T: 'static>(
        &self,
        req: &Request,
        operation: impl AsyncFnOnce(At) -> Result<T, Errno> + Send + 'static,
        done: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) {
        let service = self.service.clone();
        let (unique, pid) = (req.unique().0, req.pid());
        let caller = Caller { uid: req.uid(), gid: req.gid() };
        let posted = self.shard().spawn_with(move || async move {
            let seat = service.seats.lend();
            service.seats.begin(&seat, unique, pid);
            let at = At { vfs: Arc::clone(&service.vfs), seat: Arc::clone(&seat), caller };
            // What is answered from what is known here must end with the session, too.
            let outcome = operation(at).await.and_then(|value| service.vfs.ended().map_or(Ok(value), Err));
            if let Err(errno) = &outcome {
                log_errno(*errno, unique, pid);
            }
            seat.end(outcome.is_err());
            done(outcome);
            service.seats.give_back(seat);
        });
        if !posted {
            tracing::debug!(unique, "a request came after the end of its shard");
        }
    }

    /// The shard of this CPU, or the next in turn.
    fn shard(&self) -> &ShardHandle {
        let here = cpu::current();
        let turn = || self.turn.fetch_add(1, Ordering::Relaxed) % self.shards.len();
        let index = self.shards.iter().position(|(cpu, _)| *cpu == here).unwrap_or_else(turn);
        &self.shards[index].1
    }
}

fn log_errno(errno: Errno, unique: u64, pid: u32) {
    match errno {
        Errno::EIO | Errno::EPROTO => tracing::warn!(%errno, unique, pid, "an operation failed"),
        _ => tracing::debug!(%errno, unique, pid, "an operation was refused"),
    }
}
