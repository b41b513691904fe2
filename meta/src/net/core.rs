//! One core: its listener, its links, its inbox. Everything here runs on one thread.

use std::cell::{Cell, RefCell};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use flexfs_wire::token::CaPin;
use rustls::ServerConfig;
use slab::Slab;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::greet;
use super::link::Link;
use super::perch::Perch;
use super::placing;
use crate::auth::Pool;
use crate::blocks::Store as BlockStore;
use crate::clock;
use crate::front::{self, Listener};
use crate::guard::{Guard, Permit};
use crate::metrics::CoreMetrics;
use crate::volume::{Cores, LinkKey, Registry, ToCore, Volumes};

/// Block payloads in memory at once per core, KiB.
const BLOCK_KIB_MAX: usize = 192 * 1024;
/// Time to send what waits when the server stops.
const STOP_WAIT: Duration = Duration::from_secs(2);
/// How often files of blocks that nobody reads are closed.
const IDLE_FILES_EVERY: Duration = Duration::from_secs(5);
/// Pause after a failed accept (out of descriptors): the next would fail at once again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What all cores share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) tls: Arc<ServerConfig>,
    /// The cluster.
    pub(crate) pin: CaPin,
    pub(crate) pool: Pool,
    pub(crate) registry: Arc<Registry>,
    pub(crate) volumes: Arc<Volumes>,
    pub(crate) guard: Guard,
    pub(crate) cores: Cores,
    /// CPUs the process may use.
    pub(crate) cpus: Vec<u32>,
}

/// One core's own state.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) index: u32,
    pub(crate) common: Arc<Common>,
    pub(crate) metrics: CoreMetrics,
    pub(crate) blocks: BlockStore,
    links: RefCell<Slab<Rc<Link>>>,
    generation: Cell<u64>,
    block_room: Arc<Semaphore>,
    perch: Option<Perch>,
}

/// A link's place in the core's table; free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    core: Rc<Core>,
    pub(crate) link: Rc<Link>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.core.links.borrow_mut().try_remove(self.link.key.slot as usize);
    }
}

/// Serves until told to stop. The thread's whole life.
///
/// # Errors
/// No ring, or the listener cannot be used.
pub(crate) fn run(
    index: u32,
    common: Arc<Common>,
    listener: TcpListener,
    inbox: UnboundedReceiver<ToCore>,
) -> std::io::Result<()> {
    let home = common.cores.get(index as usize).and_then(|core| core.home);
    let perch = home.and_then(|home| Perch::settle(home, common.cpus.clone(), clock::now()));
    front::run(async move {
        let core = Rc::new(Core {
            index,
            common,
            metrics: CoreMetrics::new(index),
            blocks: BlockStore::default(),
            links: RefCell::default(),
            generation: Cell::new(0),
            block_room: Arc::new(Semaphore::new(BLOCK_KIB_MAX)),
            perch,
        });
        front::spawn(accept_all(core.clone(), Listener::new(listener)?));
        front::spawn(close_idle_files(core.clone()));
        core.serve_inbox(inbox).await;
        Ok(())
    })?
}

impl Core {
    /// A place for a new link.
    pub(crate) fn seat(self: &Rc<Self>, peer: SocketAddr) -> Seat {
        let generation = self.generation.get() + 1;
        self.generation.set(generation);
        let mut links = self.links.borrow_mut();
        let entry = links.vacant_entry();
        let slot = u32::try_from(entry.key()).expect("fewer links than descriptors, which are 32 bits");
        let link = Rc::new(Link::new(LinkKey { core: self.index, slot, generation }, peer));
        entry.insert(link.clone());
        Seat { core: self.clone(), link }
    }

    /// Waits for room for a block's bytes; the link's share first, so that one link cannot take the core's.
    pub(crate) async fn block_room(&self, link: &Link, bytes: usize) -> Vec<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let mut room = Vec::with_capacity(2);
        for semaphore in [&link.blocks, &self.block_room] {
            // Neither is ever closed.
            if let Ok(permit) = semaphore.clone().acquire_many_owned(kib).await {
                room.push(permit);
            }
        }
        room
    }

    async fn serve_inbox(self: &Rc<Self>, mut inbox: UnboundedReceiver<ToCore>) {
        while let Some(message) = inbox.recv().await {
            match message {
                ToCore::Connection(stream, peer, permit) => self.serve(stream, peer, permit),
                ToCore::Outs(outs) => {
                    for out in outs {
                        let link = self.links.borrow().get(out.link.slot as usize).cloned();
                        // An answer for a link that is gone; the client asks again on another.
                        let Some(link) = link.filter(|link| link.key == out.link) else { continue };
                        link.handle(self, out.item);
                    }
                }
                ToCore::Stop => break,
            }
        }
        // Volumes have said goodbye on every link; give the bytes a moment to leave.
        let deadline = tokio::time::Instant::from_std(clock::now() + STOP_WAIT);
        while !self.links.borrow().is_empty() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn serve(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr, permit: Permit) {
        let core = self.clone();
        front::spawn(async move {
            greet::greet(core.clone(), stream, peer, permit).await;
            if let Some(own) = core.common.cores.get(core.index as usize) {
                own.load.fetch_sub(1, Ordering::Relaxed);
            }
        });
    }

    /// Gives a connection to the core on whose CPU it arrives: the kernel spreads by hash, over the sockets that listen.
    fn place(&self, stream: TcpStream, peer: SocketAddr, permit: Permit) {
        let cores = &self.common.cores;
        let near =
            front::incoming_cpu(&stream).and_then(|cpu| cores.iter().position(|core| core.home == Some(cpu)));
        let loads = cores.iter().map(|core| core.load.load(Ordering::Relaxed));
        if let Some(core) = placing::choose(loads, near).and_then(|index| cores.get(index)) {
            core.load.fetch_add(1, Ordering::Relaxed);
            // A core that ended is a server that stops.
            let _ = core.inbox.send(ToCore::Connection(stream, peer, permit));
        }
    }

    /// Something came in: the core may look whether it stays on its CPU.
    pub(super) fn look(&self, now: Instant) {
        if let Some(perch) = &self.perch {
            perch.look(now);
        }
    }
}

async fn close_idle_files(core: Rc<Core>) {
    loop {
        tokio::time::sleep(IDLE_FILES_EVERY).await;
        core.blocks.rest(clock::now());
    }
}

async fn accept_all(core: Rc<Core>, listener: Listener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match core.common.guard.enter(peer.ip()) {
                Some(permit) => core.place(stream, peer, permit),
                None => greet::turn_away(&core, peer),
            },
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
