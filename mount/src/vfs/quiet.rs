//! Opens that the server was not told of: for reading, and of files that are made behind the program (`behind`).
//!
//! The server counts opens for one reason: an inode without a name lives as long as somebody has it open. While this client has a
//! lease of a file, nobody takes its last name without asking for the lease back. So an open is only noted here. It is told when
//! the lease is recalled, before the recall is answered, and when a name is about to be taken here; a server that
//! restarted, or does not know the session any more, is told of all of them with the others. One open told stands for any number here.
//!
//! *Who wins.* An open is noted first, then it is looked whether something came in between: a recall that is heard from then on
//! finds the open, one that was heard is seen ([`Recalls::note`](crate::lease::Recalls::note) comes first there). The same with names that are
//! being taken ([`Removing`]).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_listener::{Event, EventListener};
use flexfs_wire::id::Ino;
use flexfs_wire::message::{Caller, Request};
use flexfs_wire::seal::Node;

use super::args::OpenFlags;
use super::inode::Inode;
use super::recall::NOBODY;
use super::state::Vfs;
use crate::data::OpenInfo;
use crate::link::Remote;
use crate::wait::all;

/// Locks of the table; a power of two.
const SHARDS: usize = 32;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    shards: [Mutex<HashMap<Ino, Opens>>; SHARDS],
    /// Inodes whose opens the server does not know: most removals look at nothing else.
    untold: AtomicUsize,
    /// Names that are being taken.
    removals: AtomicUsize,
    /// A server is being told of all opens: none is noted that it would not hear of.
    shut: AtomicBool,
    /// One was told.
    moved: Event,
}

/// Opens of an inode.
#[derive(Debug)]
struct Opens {
    node: Node,
    count: u32,
    told: Told,
}

/// Whether the server counts one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    No,
    /// It is on its way.
    Soon,
    Yes,
}

/// What there is to tell of an inode.
enum Turn {
    /// Nothing.
    Nothing,
    /// This one, by the caller.
    Mine(Node),
    /// Somebody else is at it.
    Others(EventListener),
}

/// A name is being taken: until this is dropped opens go to the server.
#[derive(Debug)]
pub(crate) struct Removing(Arc<Quiet>);

impl Drop for Removing {
    fn drop(&mut self) {
        self.0.removals.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Quiet {
    /// Notes an open. What may be in its way is looked at afterwards.
    fn add(&self, node: Node) {
        let mut shard = self.shard(node.ino);
        let opens = shard.entry(node.ino).or_insert_with(|| {
            self.untold.fetch_add(1, Ordering::SeqCst);
            Opens { node, count: 0, told: Told::No }
        });
        opens.count += 1;
    }

    /// Takes one back. True: the server counts one that nobody has any more.
    fn take(&self, ino: Ino) -> bool {
        let mut shard = self.shard(ino);
        let Some(opens) = shard.get_mut(&ino) else { return false };
        opens.count = opens.count.saturating_sub(1);
        match (opens.count, opens.told) {
            // Who tells looks once more.
            (1.., _) | (0, Told::Soon) => false,
            (0, told) => {
                shard.remove(&ino);
                if told == Told::No {
                    self.untold.fetch_sub(1, Ordering::SeqCst);
                }
                told == Told::Yes
            }
        }
    }

    /// Takes one back, and tells the server if it counts it.
    fn close(&self, remote: &Remote, caller: Caller, node: Node) {
        if self.take(node.ino) {
            remote.call_later(caller, Request::Close { node, count: 1 });
        }
    }

    /// Whether opens may be noted at all.
    fn is_free(&self) -> bool {
        self.removals.load(Ordering::SeqCst) == 0 && !self.shut.load(Ordering::SeqCst)
    }

    fn begin_removal(self: &Arc<Self>) -> Removing {
        self.removals.fetch_add(1, Ordering::SeqCst);
        Removing(Arc::clone(self))
    }

    /// Whether there is something to tell of an inode, or on its way.
    pub(crate) fn is_untold(&self, ino: Ino) -> bool {
        self.has_untold() && self.shard(ino).get(&ino).is_some_and(|opens| opens.told != Told::Yes)
    }

    fn has_untold(&self) -> bool {
        self.untold.load(Ordering::SeqCst) > 0
    }

    fn turn(&self, ino: Ino) -> Turn {
        let mut shard = self.shard(ino);
        let Some(opens) = shard.get_mut(&ino) else { return Turn::Nothing };
        match opens.told {
            Told::Yes => Turn::Nothing,
            // Listening begins under the lock that the end is told under: it is not missed.
            Told::Soon => Turn::Others(self.moved.listen()),
            Told::No => {
                opens.told = Told::Soon;
                Turn::Mine(opens.node)
            }
        }
    }

    /// The server counts one now. True: nobody has it open any more.
    fn end_telling(&self, ino: Ino) -> bool {
        let mut shard = self.shard(ino);
        self.untold.fetch_sub(1, Ordering::SeqCst);
        let is_over = match shard.get_mut(&ino) {
            Some(opens) if opens.count > 0 => {
                opens.told = Told::Yes;
                false
            }
            _ => shard.remove(&ino).is_some(),
        };
        self.moved.notify(usize::MAX);
        is_over
    }

    /// All that the server does not know of inodes that are `there`, which it is told now by the caller; none is noted until
    /// [`Quiet::reopen`]. What is on its way is sent again by itself.
    pub(crate) fn shut(&self, is_there: impl Fn(Ino) -> bool) -> Vec<Node> {
        self.shut.store(true, Ordering::SeqCst);
        let mut nodes = Vec::new();
        for shard in &self.shards {
            let untold = |opens: &&mut Opens| opens.told == Told::No && is_there(opens.node.ino);
            for opens in lock(shard).values_mut().filter(untold) {
                opens.told = Told::Yes;
                self.untold.fetch_sub(1, Ordering::SeqCst);
                nodes.push(opens.node);
            }
        }
        nodes
    }

    /// Leases are granted anew.
    pub(crate) fn reopen(&self) {
        self.shut.store(false, Ordering::SeqCst);
    }

    fn untold(&self) -> Vec<Ino> {
        let is_untold = |(_, opens): &(&Ino, &Opens)| opens.told != Told::Yes;
        self.shards
            .iter()
            .flat_map(|shard| lock(shard).iter().filter(is_untold).map(|(ino, _)| *ino).collect::<Vec<_>>())
            .collect()
    }

    fn shard(&self, ino: Ino) -> MutexGuard<'_, HashMap<Ino, Opens>> {
        lock(&self.shards[usize::try_from(ino.0 % SHARDS as u64).unwrap_or(0)])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Vfs {
    /// Opens a file for reading without a word to the server. `None`: it is to be asked. The kernel is given what a small file holds, if
    /// it is read through its pages.
    pub(super) fn open_quietly(&self, inode: &Arc<Inode>, flags: OpenFlags) -> Option<OpenInfo> {
        if !self.opens_quietly || !self.is_sure(inode) || !self.quiet.is_free() {
            return None;
        }
        self.quiet.add(inode.node);
        // In this order: see the module.
        if self.is_sure(inode)
            && self.quiet.is_free()
            && let Some(info) = self
                .files
                .open_here(inode.node, self.told_under_lease(inode), |bytes| self.give(inode, flags, bytes))
        {
            self.note_given(inode, flags, &info);
            return Some(info);
        }
        self.quiet.close(&self.remote, NOBODY, inode.node);
        None
    }

    /// Notes the open of a file that is about to be made behind its program. False: the server is to count it.
    pub(super) fn open_made_quietly(&self, node: Node) -> bool {
        if !self.opens_quietly || !self.quiet.is_free() {
            return false;
        }
        self.quiet.add(node);
        // In this order: see the module.
        let is_free = self.quiet.is_free();
        if !is_free {
            self.forget_made(node);
        }
        is_free
    }

    /// It is not made so.
    pub(super) fn forget_made(&self, node: Node) {
        self.quiet.close(&self.remote, NOBODY, node);
    }

    /// Whether whoever takes the file's last name asks this client first.
    fn is_sure(&self, inode: &Inode) -> bool {
        let ino = inode.ino();
        let is_leased = self.told_under_lease(inode).is_some() || self.files.is_ours(ino);
        is_leased && self.remote.behind().before([ino]).is_none()
    }

    /// One of those is closed.
    pub(super) fn close_quietly(&self, caller: Caller, node: Node) {
        let (quiet, remote) = (Arc::clone(&self.quiet), Arc::clone(&self.remote));
        self.files.close_here(node, move || quiet.close(&remote, caller, node));
    }

    /// The server knows that the inode is open here, when this returns.
    pub(crate) async fn tell_open(&self, ino: Ino) {
        loop {
            match self.quiet.turn(ino) {
                Turn::Nothing => return,
                Turn::Others(told) => told.await,
                Turn::Mine(node) => {
                    let request =
                        Request::Open { node, write: false, truncate: false, kill_privileges: false };
                    if let Err(errno) = self.remote.call(NOBODY, request, None).await {
                        tracing::debug!(%ino, %errno, "the server did not take an open that it was told late");
                    }
                    if self.quiet.end_telling(ino) {
                        self.remote.call_later(NOBODY, Request::Close { node, count: 1 });
                    }
                    return;
                }
            }
        }
    }

    /// A name is about to be taken: the server hears of new opens until this is dropped.
    pub(super) fn begin_removal(&self) -> Removing {
        self.quiet.begin_removal()
    }

    /// Whose name it is, the server will say: it knows of all opens when this returns.
    pub(super) async fn tell_opens(&self, _removing: &Removing) {
        if self.quiet.has_untold() {
            all(self.quiet.untold().into_iter().map(|ino| self.tell_open(ino))).await;
        }
    }
}
