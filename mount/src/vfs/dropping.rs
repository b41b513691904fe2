//! Dropping everything that the kernel caches: no lease counts any more.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flexfs_wire::id::Epoch;
use flexfs_wire::message::Request;

use super::inode::Inode;
use super::recall::{PATIENCE, Recaller, Task};

/// Threads at it at once. Others are left for recalls.
const THREADS_MAX: usize = 16;

/// As far as the kernel can be told.
const ALL: Range<u64> = 0..i64::MAX as u64;

/// Inodes whose pages are to go. A page that a program reads is locked until the server answers, for as long as it may be away, and keeps
/// whoever drops it from the pages behind it. So these come last, and another thread goes on with the rest: programs would go on
/// reading pages that have been changed elsewhere since.
#[derive(Debug)]
pub struct Dropping {
    rest: Mutex<VecDeque<Piece>>,
    threads: AtomicUsize,
    /// The start of the server that is to be told when all have gone.
    restarted: Option<Epoch>,
}

/// Pages of an inode.
#[derive(Clone, Debug)]
struct Piece {
    inode: Arc<Inode>,
    range: Range<u64>,
    /// With those that are locked.
    is_last: bool,
}

impl Dropping {
    fn rest(&self) -> MutexGuard<'_, VecDeque<Piece>> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Piece> {
        self.rest().pop_front()
    }

    /// First what is free of a piece, and all of it when nothing else is left.
    fn split(&self, piece: Piece, free: Vec<Range<u64>>) {
        let mut rest = self.rest();
        for range in free {
            rest.push_front(Piece { range, ..piece.clone() });
        }
        rest.push_back(Piece { is_last: true, ..piece });
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
        let files = inodes.into_iter().filter(|inode| inode.is_file());
        let files = files.map(|inode| Piece { inode, range: ALL, is_last: false }).collect();
        self.drop_pages(&Arc::new(Dropping {
            rest: Mutex::new(files),
            threads: AtomicUsize::new(1),
            restarted,
        }));
    }

    /// What can be dropped of a piece before the rest of it; `None`: all, or nothing but what is locked is left.
    fn free_parts(&self, piece: &Piece) -> Option<Vec<Range<u64>>> {
        if piece.is_last {
            return None;
        }
        let free = self.vfs.files.free_parts(piece.inode.ino(), &piece.range);
        (free != std::slice::from_ref(&piece.range)).then_some(free)
    }

    /// Drops pages until none is left.
    pub(super) fn drop_pages(self: &Arc<Self>, dropping: &Arc<Dropping>) {
        while let Some(piece) = dropping.next() {
            if let Some(free) = self.free_parts(&piece) {
                dropping.split(piece, free);
                continue;
            }
            let (this, kept, late_piece) = (Arc::clone(self), Arc::clone(dropping), piece.clone());
            let late = Box::new(move || {
                // A read has begun in it since.
                if let Some(free) = this.free_parts(&late_piece) {
                    kept.split(late_piece, free);
                }
                if kept.add_thread()
                    && let Some(tasks) = this.vfs.tasks.get()
                {
                    drop(tasks.send(Task::DropPages(kept)));
                }
            });
            self.watched.run(PATIENCE, late, || {
                let _ = self.kernel.forget_pages(piece.inode.nodeid, Some(piece.range));
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
