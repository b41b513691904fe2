//! Folder syncs, shared: who comes while one runs waits for the next, which serves all of them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::oneshot;

use crate::front::{self, File};

type Waiter = oneshot::Sender<Result<(), io::ErrorKind>>;

/// Folders that are being synced on this core, and who waits for the next sync.
#[derive(Debug, Default)]
pub(super) struct Folders {
    running: RefCell<HashMap<PathBuf, Vec<Waiter>>>,
}

impl Folders {
    /// Makes the names in `folder` durable.
    pub(super) async fn sync(&self, folder: &Path) -> io::Result<()> {
        let (sender, wait) = oneshot::channel();
        let first = {
            let mut running = self.running.borrow_mut();
            match running.get_mut(folder) {
                Some(waiters) => {
                    waiters.push(sender);
                    false
                }
                None => {
                    running.insert(folder.to_owned(), vec![sender]);
                    true
                }
            }
        };
        if first {
            self.run(folder).await;
        }
        match wait.await {
            Ok(result) => result.map_err(io::Error::from),
            Err(_) => Err(io::ErrorKind::Interrupted.into()),
        }
    }

    /// Syncs until nobody waits.
    async fn run(&self, folder: &Path) {
        loop {
            let waiters = {
                let mut running = self.running.borrow_mut();
                match running.get_mut(folder) {
                    Some(waiters) if !waiters.is_empty() => std::mem::take(waiters),
                    _ => {
                        running.remove(folder);
                        return;
                    }
                }
            };
            let result = sync_now(folder).await.map_err(|error| error.kind());
            for waiter in waiters {
                // One that lost interest needs no answer.
                let _ = waiter.send(result);
            }
        }
    }

    /// Makes a folder, durably.
    pub(super) async fn make(&self, folder: &Path) -> io::Result<()> {
        front::make_folder(folder).await?;
        match folder.parent() {
            Some(parent) => self.sync(parent).await,
            None => Ok(()),
        }
    }
}

async fn sync_now(folder: &Path) -> io::Result<()> {
    // Closes itself, and nobody waits for that.
    File::open(folder).await?.sync().await
}
