//! Recalls, as `vfs::recall` processes them: the same steps, with tasks in place of threads.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flexfs_mount::data::{Recalled, Server as _};
use flexfs_uring::{clock, spawn, timer};
use flexfs_wire::id::{Epoch, Ino};
use flexfs_wire::lease::{Keep, Recall};
use flexfs_wire::limits::LEASE_TRUST_MS;
use flexfs_wire::message::Request;

use super::client::Client;
use super::kernel::Patience;
use super::port::{NOBODY, Port};

const PAGES_PATIENCE: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_millis(20);
const READS_MAX: Duration = Duration::from_secs(10);
const ROUNDS_MAX: u32 = 20;
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Numbers of recalls that came.
#[derive(Debug, Default)]
pub(crate) struct Heard(BTreeSet<u64>);

impl Client {
    pub(crate) fn handle_recalls(self: &Arc<Self>, recalls: Vec<Recall>) {
        let (mut done, mut quick) = (Vec::new(), Vec::new());
        for recall in recalls {
            if !self.heard.lock().unwrap_or_else(PoisonError::into_inner).0.insert(recall.id) {
                continue;
            }
            let number = self.number;
            self.port.net.check.note(|| format!("client {number} is to give back {recall:?}"));
            self.port.recalls.note(recall.ino);
            if self.has_nothing_of(&recall) {
                done.push(recall.id);
            } else if recall.keep != Keep::All && self.files.recalled(recall.ino).is_some() {
                drop(spawn(Arc::clone(self).recall_all(vec![recall])));
            } else {
                quick.push(recall);
            }
        }
        if !quick.is_empty() {
            drop(spawn(Arc::clone(self).recall_all(quick)));
        }
        if !done.is_empty() {
            self.port.call_later(NOBODY, Request::Recalled { ids: done });
        }
    }

    fn has_nothing_of(&self, recall: &Recall) -> bool {
        let names = recall.name.as_ref().is_some_and(|name| {
            let name = String::from_utf8_lossy(name.as_bytes()).into_owned();
            self.kernel.state().names.contains_key(&name)
        });
        let known = self.knows(recall.ino) || self.files.recalled(recall.ino).is_some();
        !(names || recall.keep != Keep::All && known)
    }

    async fn recall_all(self: Arc<Self>, recalls: Vec<Recall>) {
        for recall in &recalls {
            match (recall.keep, self.files.recalled(recall.ino)) {
                (Keep::All, _) | (Keep::Shared, None) => {}
                (Keep::Shared, Some(file)) => file.share().await,
                (Keep::Nothing, Some(file)) => self.recall_file(recall.ino, file).await,
                (Keep::Nothing, None) => self.kernel.forget_attr(recall.ino),
            }
        }
        for name in recalls.iter().filter_map(|recall| recall.name.as_ref()) {
            let name = String::from_utf8_lossy(name.as_bytes()).into_owned();
            if !self.kernel.state().names.contains_key(&name) {
                continue;
            }
            // An operation in the directory may wait for another client, which waits for us.
            let this = Arc::clone(&self);
            let work = spawn(async move { this.kernel.forget_name(&name).await });
            if timer::timeout(PATIENCE, work).await.is_err() {
                self.kernel.forget_names();
                break;
            }
        }
        let ids: Vec<u64> = recalls.iter().map(|recall| recall.id).collect();
        let number = self.number;
        self.port.net.check.note(|| format!("client {number} has given back {ids:?}"));
        self.port.call_later(NOBODY, Request::Recalled { ids });
    }

    async fn recall_file(self: &Arc<Self>, ino: Ino, file: Recalled<Port>) {
        file.clone().begin().await;
        if self.knows(ino) {
            self.kernel.forget_attr(ino);
            self.kernel.forget_pages(ino, None).await;
            let mut rounds = 0;
            loop {
                let tainted = shut(&file).await;
                if tainted.is_empty() {
                    break;
                }
                rounds += 1;
                if rounds > ROUNDS_MAX {
                    file.open();
                    self.kernel.forget_pages(ino, None).await;
                    break;
                }
                self.forget_ranges(ino, tainted, &file).await;
            }
        }
        file.end().await;
    }

    /// Drops pages of ranges. When that waits for reads which are held back, it is left behind if all that is left to be
    /// dropped is what they wait for; else they are let go on.
    async fn forget_ranges(self: &Arc<Self>, ino: Ino, ranges: Vec<Range<u64>>, file: &Recalled<Port>) {
        let rest = Arc::new(Mutex::new(ranges));
        let (this, mine) = (Arc::clone(self), Arc::clone(&rest));
        let mut work = std::pin::pin!(spawn(async move {
            loop {
                let next = mine.lock().unwrap_or_else(PoisonError::into_inner).last().cloned();
                let Some(range) = next else { return };
                this.kernel.forget_pages(ino, Some(range)).await;
                mine.lock().unwrap_or_else(PoisonError::into_inner).pop();
            }
        }));
        if timer::timeout(PAGES_PATIENCE, work.as_mut()).await.is_ok() {
            return;
        }
        let left = rest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !left.is_empty() && file.are_held(&left) {
            return;
        }
        file.open();
        work.await;
    }

    pub(crate) fn handle_recovered(self: &Arc<Self>, epoch: Epoch) {
        drop(spawn(Arc::clone(self).drop_all(Some(epoch))));
    }

    pub(crate) fn handle_lost(self: &Arc<Self>) {
        drop(spawn(Arc::clone(self).drop_all(None)));
    }

    async fn drop_all(self: Arc<Self>, restarted: Option<Epoch>) {
        if restarted.is_some() {
            self.port.recalls.void();
        }
        let inos: Vec<Ino> = self.kernel.state().inodes.keys().copied().collect();
        self.kernel.forget_names();
        for ino in &inos {
            self.kernel.forget_attr(*ino);
        }
        // A page that is read is locked until the server answers: the others go meanwhile.
        let mut late = Vec::new();
        for ino in inos {
            let this = Arc::clone(&self);
            let mut work = Box::pin(spawn(async move { this.kernel.forget_pages(ino, None).await }));
            if timer::timeout(PATIENCE, work.as_mut()).await.is_err() {
                late.push(work);
            }
        }
        for work in late {
            work.await;
        }
        if let Some(epoch) = restarted {
            self.port.call_later(NOBODY, Request::DropLeases { epoch });
        }
    }

    /// Lets go of everything when the server is silent for too long, for ever.
    pub(crate) async fn run_leases(self: Arc<Self>) {
        let mut trusted = true;
        loop {
            timer::sleep(LOOK_EVERY).await;
            let quiet = self.port.quiet_for() >= Duration::from_millis(LEASE_TRUST_MS);
            if quiet && trusted {
                self.port.recalls.void();
                drop(spawn(Arc::clone(&self).drop_all(None)));
            }
            trusted = !quiet;
        }
    }
}

async fn shut(file: &Recalled<Port>) -> Vec<Range<u64>> {
    let deadline = clock::now() + READS_MAX;
    let mut patience = Patience::new();
    loop {
        if let Some(tainted) = file.try_shut() {
            return tainted;
        }
        if clock::now() >= deadline {
            return file.shut(Duration::ZERO);
        }
        patience.wait().await;
    }
}
