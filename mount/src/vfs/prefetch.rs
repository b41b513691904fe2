//! Look-ups that are answered of what was brought before they came, and bringing it (`ahead`). Nobody waits for a page but those whose
//! name is likely in it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flexfs_uring::{clock, spawn, timer};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::lease::Leases;
use flexfs_wire::message::{Reply, Request};
use flexfs_wire::name::Name;

use super::ahead::{Ask, Kept, Look, Page, Totals};
use super::answer::Found;
use super::inode::{Inode, ROOT_NODEID};
use super::known;
use super::left::Left;
use super::recall::NOBODY;
use super::state::{Ctx, Grant, Vfs};
use crate::cancel::or_cancel;
use crate::link::Remote;

/// Entries that a mount keeps ahead; with more, those of the directory that was begun first go.
const ENTRIES_MAX: usize = 64 * 1024;
/// Their bytes, with the small files that came with them.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// What nobody looked up for so long is given back: others would have to ask for it.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// How long a look-up waits for a page that is on its way.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// What is kept ahead in all directories of a mount.
#[derive(Debug, Default)]
pub(crate) struct Prefetch {
    totals: Arc<Totals>,
    /// Directories that something is kept of, the one that was begun first in front.
    dirs: Mutex<VecDeque<Arc<Inode>>>,
}

impl Prefetch {
    /// Something was brought into a directory. What has to go for it.
    fn note(&self, dir: &Arc<Inode>) -> Vec<Ino> {
        let mut dirs = self.dirs();
        if !dirs.iter().any(|known| Arc::ptr_eq(known, dir)) {
            dirs.push_back(Arc::clone(dir));
        }
        let mut left = Vec::new();
        loop {
            let (entries, bytes) = self.totals.now();
            if entries <= ENTRIES_MAX && bytes <= BYTES_MAX {
                return left;
            }
            let Some(first) = dirs.pop_front() else { return left };
            left.append(&mut first.content.take_ahead());
        }
    }

    /// Gives back what is not used.
    pub(crate) fn expire(&self, now: Instant) -> Vec<Ino> {
        let mut left = Vec::new();
        self.dirs().retain(|dir| {
            let used = dir.content.ahead_used();
            let stays = used.is_some_and(|used| now.saturating_duration_since(used) < IDLE_MAX);
            if !stays {
                left.append(&mut dir.content.take_ahead());
            }
            stays
        });
        left
    }

    fn dirs(&self) -> MutexGuard<'_, VecDeque<Arc<Inode>>> {
        self.dirs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A page that is asked for.
struct Fetch {
    remote: Arc<Remote>,
    prefetch: Arc<Prefetch>,
    left: Arc<Left>,
    dir: Arc<Inode>,
    ask: Ask,
}

impl Vfs {
    /// What a name stands for, if that was brought before. `None`: the server is to be asked.
    pub(super) async fn look_ahead(
        &self,
        ctx: Ctx<'_>,
        parent: &Arc<Inode>,
        name: &Name,
    ) -> Result<Option<Found>, Errno> {
        if !self.looks_ahead {
            return Ok(None);
        }
        let (hash, mut waited) = (known::hash(name), false);
        loop {
            // Before it is looked whether it is true: changes from then on are seen.
            let own = self.own_changes();
            let is_true = |kept: &Kept| self.is_true(parent, kept);
            let (look, ask) = parent.content.look_ahead((name, hash), clock::now(), waited, is_true);
            if let Some(ask) = ask {
                self.prefetch(parent, ask);
            }
            let kept = match look {
                Look::Kept(kept) => *kept,
                Look::Soon(arrived) => {
                    // Late is what it is, then.
                    let _ = or_cancel(timer::timeout(WAIT_MAX, arrived), Some(ctx.cancel)).await?;
                    waited = true;
                    continue;
                }
                Look::Unknown => return Ok(None),
            };
            let grant = Grant { own, ..kept.grant };
            return self.found_whole((parent, name), &kept.entry, grant, kept.layout).map(Some);
        }
    }

    /// Whether an entry is what the server would say. In this order: who knew the inode better says so before it is forgotten.
    fn is_true(&self, dir: &Inode, kept: &Kept) -> bool {
        let (ino, asked, recalls) = (kept.entry.node.ino, kept.grant.asked, self.remote.recalls());
        let is_known = self.inodes.is_known(ino)
            || self.files.knows(ino)
            || self.remote.behind().before([ino]).is_some();
        !is_known
            && recalls.is_untouched(ino, asked)
            && recalls.is_good(ino, asked)
            && recalls.is_good(dir.ino(), asked)
    }

    fn prefetch(&self, dir: &Arc<Inode>, ask: Ask) {
        let fetch = Fetch {
            remote: Arc::clone(&self.remote),
            prefetch: Arc::clone(&self.prefetch),
            left: Arc::clone(&self.left),
            dir: Arc::clone(dir),
            ask,
        };
        drop(spawn(fetch.run()));
    }
}

impl Fetch {
    async fn run(self) {
        let recalls = self.remote.recalls();
        let asked = recalls.asked();
        // What the answer tells is to be no older than changes that are on their way: inodes of theirs may be forgotten before it comes.
        if let Some(last) = self.remote.behind().last() {
            self.remote.behind().wait(last).await;
        }
        let Ask { cookie, ref first, count, .. } = self.ask;
        let open = self.dir.appetite.has_some();
        let request = Request::ReadAhead { node: self.dir.node, cookie, first: first.clone(), count, open };
        let (result, leases) = self.remote.call_leased(NOBODY, request, None).await;
        let Ok(Reply::Ahead { mut entries, layouts, eof }) = result else {
            tracing::debug!(dir = self.dir.ino().0, "a directory was not read ahead");
            return self.dir.content.fail_ahead();
        };
        for line in &mut entries {
            // The root of a scope cannot be found below itself.
            line.entry.take_if(|entry| entry.node.ino.0 <= ROOT_NODEID);
        }
        let page = Page { entries, layouts, eof, grant: Grant { leases, asked, own: 0 } };
        let is_good =
            || leases.has(Leases::NAMES.and(Leases::ATTR)) && recalls.is_good(self.dir.ino(), asked);
        let mut left = self.dir.content.bring_ahead(page, clock::now(), is_good, &self.prefetch.totals);
        left.append(&mut self.prefetch.note(&self.dir));
        self.left.add(left);
    }
}
