//! Dropping everything that the kernel caches: no lease counts any more.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use flexfs_wire::id::Epoch;
use flexfs_wire::message::Request;

use super::inode::Inode;
use super::recall::{PATIENCE, Recaller, Task};

/// Threads at it at once. Others are left for recalls.
const THREADS_MAX: usize = 16;

/// Inodes whose pages are to go. A page that a program reads is locked until the server answers, for as long as it may be away, and keeps
/// whoever drops it: another thread goes on with the next inode then, or programs would go on reading pages of files that have
/// been changed elsewhere since.
#[derive(Debug)]
pub struct Dropping {
    rest: Mutex<VecDeque<Arc<Inode>>>,
    threads: AtomicUsize,
    /// The start of the server that is to be told when all have gone.
    restarted: Option<Epoch>,
}

impl Dropping {
    fn next(&self) -> Option<Arc<Inode>> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Whether one more thread may come, which is counted.
    fn add_thread(&self) -> bool {
        let more = |threads| (threads < THREADS_MAX).then_some(threads + 1);
        self.threads.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    /// A thread has found nothing more to do. True: it was the last one.
    fn end_thread(&self) -> bool {
        self.threads.fetch_sub(1, Ordering::SeqCst) == 1
    }
}

impl Recaller {
    /// Everything cached goes; names and attributes first, which waits for nothing.
    pub(super) fn drop_all(self: &Arc<Self>, restarted: Option<Epoch>) {
        if restarted.is_some() {
            self.vfs.remote.recalls().void();
            self.vfs.remote.behind().reopen();
        }
        if let Some(passing) = self.vfs.passing.get()
            && passing.handle_dropped()
        {
            let passing = Arc::clone(passing);
            self.shard.spawn_with(move || passing.compare());
        }
        let inodes = self.vfs.inodes.all();
        let _ = self.kernel.forget_names();
        for inode in &inodes {
            let _ = self.kernel.forget_attr(inode.nodeid);
        }
        let files = inodes.into_iter().filter(|inode| inode.is_file()).collect();
        self.drop_pages(&Arc::new(Dropping {
            rest: Mutex::new(files),
            threads: AtomicUsize::new(1),
            restarted,
        }));
    }

    /// Drops pages until none is left.
    pub(super) fn drop_pages(self: &Arc<Self>, dropping: &Arc<Dropping>) {
        while let Some(inode) = dropping.next() {
            let (this, kept) = (Arc::clone(self), Arc::clone(dropping));
            let late = Box::new(move || {
                if kept.add_thread()
                    && let Some(tasks) = this.vfs.tasks.get()
                {
                    drop(tasks.send(Task::DropPages(kept)));
                }
            });
            self.watched.run(PATIENCE, late, || {
                let _ = self.kernel.forget_pages(inode.nodeid, None);
            });
        }
        if dropping.end_thread() {
            self.vfs.quiet.reopen();
            if let Some(epoch) = dropping.restarted {
                self.call_later(Request::DropLeases { epoch });
            }
        }
    }
}
