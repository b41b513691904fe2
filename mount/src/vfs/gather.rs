//! Being alone with a directory that was there before: the server is asked for it where programs change names again and again,
//! and its names are listed once. In the background; nobody waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flexfs_uring::spawn;
use flexfs_wire::attr::{Attr, S_IFDIR};
use flexfs_wire::lease::Leases;
use flexfs_wire::message::{Reply, Request};

use super::inode::Inode;
use super::recall::NOBODY;
use super::state::Vfs;
use crate::lease::Asked;
use crate::link::Remote;

/// Bytes of a listing asked for at once.
const LIST_BYTES: u32 = 256 * 1024;

/// One that goes on.
struct Gather {
    remote: Arc<Remote>,
    dir: Arc<Inode>,
    renames: Arc<AtomicU64>,
    life: u64,
    asked: Asked,
}

impl Vfs {
    /// The server changed names in this directory for somebody here.
    pub(super) fn want_alone(&self, dir: &Arc<Inode>) {
        let recalls = self.remote.recalls();
        let (asked, life) = (recalls.asked(), recalls.life());
        if !self.makes_behind || !dir.content.is_wanted(life) {
            return;
        }
        let (remote, renames) = (Arc::clone(&self.remote), Arc::clone(&self.renames));
        let gather = Gather { remote, dir: Arc::clone(dir), renames, life, asked };
        drop(spawn(async move { gather.run().await }));
    }
}

impl Gather {
    async fn run(self) {
        let content = &self.dir.content;
        let doubts = content.gather(self.life);
        let renames = self.renames.load(Ordering::SeqCst);
        let attr = match self.ask().await {
            Some(attr) if self.list().await.is_some() => attr,
            _ => return content.give_up(),
        };
        let recalls = self.remote.recalls();
        let is_good = || recalls.life() == self.life && recalls.is_good(self.dir.ino(), self.asked);
        let alone = content.gathered(self.life, (attr, renames), doubts, is_good);
        tracing::debug!(dir = self.dir.ino().0, entries = attr.size, alone, "a directory was listed");
    }

    /// `None`: others cache something of it.
    async fn ask(&self) -> Option<Attr> {
        let request = Request::Acquire { node: self.dir.node };
        let (result, leases) = self.remote.call_leased(NOBODY, request, None).await;
        match result {
            Ok(Reply::Attr(attr)) if leases.has(Leases::ALONE.and(Leases::NAMES)) => Some(attr),
            _ => None,
        }
    }

    /// `None`: somebody else came in between.
    async fn list(&self) -> Option<()> {
        let mut cookie = 0;
        loop {
            let request = Request::ReadDir { node: self.dir.node, cookie, bytes_max: LIST_BYTES, plus: true };
            let (result, leases) = self.remote.call_leased(NOBODY, request, None).await;
            let Ok(Reply::Entries { entries, .. }) = result else { return None };
            if !leases.has(Leases::ALONE) {
                return None;
            }
            cookie = match entries.last() {
                Some(last) => last.cookie,
                None => return Some(()),
            };
            for line in &entries {
                let alone = line.kind != S_IFDIR && line.entry.is_some();
                self.dir.content.list(&line.name, line.ino, alone);
            }
        }
    }
}
