//! Dirty data goes to the server when it gets old, when memory gets short, and when all of it must.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use flexfs_uring::{clock, timer};
use flexfs_wire::errno::Errno;
use flexfs_wire::limits::WRITEBACK_MS;

use super::core::Core;
use super::file::{File, Progress};
use super::server::Server;
use crate::wait::all;

/// How often is looked for old data. Data is as old as this beyond its age at most when it is sent.
const LOOK_EVERY: Duration = Duration::from_millis(WRITEBACK_MS / 5);
/// Files written back at once.
const WORKERS: usize = 8;
/// Relief is worth it when the bytes nobody sends are at least one part in this many of the budget.
const RELIEF_PART: u64 = 16;

impl<S: Server> Core<S> {
    /// Sends data that is older than `WRITEBACK_MS`, for ever.
    pub(crate) async fn write_back(self: &Arc<Self>) {
        loop {
            timer::sleep(LOOK_EVERY).await;
            self.write_back_old(Duration::from_millis(WRITEBACK_MS)).await;
        }
    }

    /// Sends data that is older than `age`, and flights whose task ended in the middle.
    pub(crate) async fn write_back_old(self: &Arc<Self>, age: Duration) {
        let now = clock::now();
        let mut old = self.dirty_files();
        old.retain(|file| {
            let state = file.state();
            state.dirty_since.is_some_and(|since| now.saturating_duration_since(since) >= age)
                || state.flights.iter().any(|flight| flight.progress == Progress::Waiting)
        });
        self.clean_files(old).await;
    }

    /// Everything written so far is at the server. The error of a file that lost data is left for its own flush.
    pub(crate) async fn clean_all(self: &Arc<Self>) -> Result<(), Errno> {
        let files = self.dirty_files();
        self.clean_files(files.clone()).await;
        let error = files.iter().find_map(|file| file.state().flush_error);
        for file in files {
            self.release(file);
        }
        error.map_or(Ok(()), Err)
    }

    /// What was closed with bytes on their way is at the server.
    pub(crate) async fn clean_closed(self: &Arc<Self>) {
        let mut files = self.dirty_files();
        files.retain(|file| file.state().promised.is_some());
        self.clean_files(files).await;
    }

    /// Begins to send what is dirty because memory is short; largest files first, half of it, and so on.
    pub(crate) fn relieve(self: &Arc<Self>) {
        if self.relieving.swap(true, Ordering::SeqCst) {
            return;
        }
        let mut relief = Relief(Arc::clone(self));
        drop(flexfs_uring::spawn(async move {
            loop {
                let core = Arc::clone(&relief.0);
                core.clean_files(core.heaviest()).await;
                drop(relief);
                // A writer that came to wait meanwhile left it to this task: looked for after the sign is down.
                if !core.is_short() || core.relieving.swap(true, Ordering::SeqCst) {
                    return;
                }
                relief = Relief(core);
            }
        }));
    }

    /// Whether relief would help.
    fn is_short(&self) -> bool {
        self.budget.is_pressed() && !self.heaviest().is_empty()
    }

    /// The files that hold half of what is dirty and not on its way.
    fn heaviest(&self) -> Vec<Arc<File>> {
        let weigh = |file: Arc<File>| {
            let cost = file.state().dirty.cost();
            (cost, file)
        };
        let mut files: Vec<_> = self.dirty_files().into_iter().map(weigh).collect();
        files.retain(|(cost, _)| *cost > 0);
        files.sort_unstable_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        let total: u64 = files.iter().map(|(cost, _)| cost).sum();
        // All the rest is on its way and needs no push.
        if total < self.budget.limit() / RELIEF_PART {
            return Vec::new();
        }
        let mut left = total / 2;
        let chosen = files.into_iter().take_while(|(cost, _)| {
            let more = left > 0;
            left = left.saturating_sub(*cost);
            more
        });
        chosen.map(|(_, file)| file).collect()
    }

    async fn clean_files(self: &Arc<Self>, files: Vec<Arc<File>>) {
        let files = RefCell::new(files.into_iter());
        let work = || async {
            loop {
                // The borrow ends here, not at the end of the loop's body.
                let next = files.borrow_mut().next();
                let Some(file) = next else { return };
                // Without a cancellation it cannot end early, and errors are kept with the file.
                let _ = self.clean(&file, None).await;
                self.release(file);
            }
        };
        all((0..WORKERS).map(|_| work())).await;
    }
}

/// Relief is under way; another may begin when this is gone.
struct Relief<S: Server>(Arc<Core<S>>);

impl<S: Server> Drop for Relief<S> {
    fn drop(&mut self) {
        self.0.relieving.store(false, Ordering::SeqCst);
    }
}
