//! A session and the file data over it, from the first shard's start to the last one's stop.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use flexfs_uring::timer::timeout;
use flexfs_uring::{clock, spawn};
use flexfs_wire::errno::Errno;

use super::connect::{Config, SetupError, connect};
use crate::data::{self, Files};
use crate::link::Remote;

/// Time for the goodbye to a server that answers; a session that just stops ends with its lease.
const LEAVE_MAX: Duration = Duration::from_secs(2);
/// Time for the end when nothing is unwritten.
const FINISH_CLEAN_MAX: Duration = Duration::from_secs(4);
/// How often is said what the end waits for.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// A running client without a mount.
#[derive(Debug)]
pub struct Session {
    /// The metadata server.
    pub remote: Arc<Remote>,
    /// Bytes of files.
    pub files: Arc<Files<Remote>>,
}

/// Opens a session, with blocking calls, before there are shards.
///
/// # Errors
/// [`SetupError`], for the person.
pub fn open(config: Config) -> Result<Session, SetupError> {
    let remote = connect(&config)?;
    let settings = &remote.granted().settings;
    let data = data::Config {
        mem_capacity: config.mem_capacity,
        block_size: settings.block_size,
        compression: settings.compression,
        cipher: remote.cipher().cloned(),
    };
    let files = Arc::new(Files::new(Arc::clone(&remote), data));
    Ok(Session { remote, files })
}

impl Session {
    /// On each shard, inside its executor, once: starts its link, which connects and reconnects by itself, and on shard 0
    /// the tasks that write back what has been dirty for long and forget what has been unused for long. Never fails for a server that is away.
    pub async fn start_shard(&self, index: usize) {
        self.remote.start(index);
        self.files.join_shard();
        if index == 0 {
            let [files, older] = [(); 2].map(|()| Arc::clone(&self.files));
            // They run until the shard ends; after the session's end there is nothing to send.
            drop(spawn(async move { files.write_back().await }));
            drop(spawn(async move { older.grow_older().await }));
        }
    }

    /// On a shard, at the end: sends what is unwritten, waits until it is durable, and says goodbye. Calls get EIO after.
    /// With nothing unwritten it takes `FINISH_CLEAN_MAX` at most, whatever the server does.
    ///
    /// # Errors
    /// What was lost, for the log.
    pub async fn finish(&self, deadline: Duration) -> Result<(), String> {
        let clean = self.unwritten() == (0, 0);
        let synced = if clean {
            // Nothing to lose: an answer is welcome and not needed.
            timeout(FINISH_CLEAN_MAX - LEAVE_MAX, self.sync_all()).await.unwrap_or(Ok(()))
        } else {
            match timeout(deadline, self.write_out(deadline)).await {
                Ok(synced) => synced,
                Err(_) => Err(Errno::ETIMEDOUT),
            }
        };
        match self.remote.leave(LEAVE_MAX).await {
            Ok(()) => {}
            Err(Errno::ETIMEDOUT) => {
                tracing::info!(
                    "the metadata server did not answer the goodbye; the session ends with its lease"
                );
            }
            // It was over before.
            Err(errno) => tracing::debug!(%errno, "no goodbye was said"),
        }
        match synced {
            Ok(()) => Ok(()),
            Err(Errno::ETIMEDOUT) => {
                let (bytes, changes) = self.unwritten();
                Err(format!(
                    "the metadata server took no data for {} s at the unmount: {bytes} bytes of unwritten data are lost, \
                     and {changes} changes that it had acknowledged are not known to be on its disk",
                    deadline.as_secs()
                ))
            }
            Err(errno) => Err(format!("data could not be written before the unmount: {errno}")),
        }
    }

    /// Sends what is unwritten; says now and then what it waits for.
    async fn write_out(&self, deadline: Duration) -> Result<(), Errno> {
        let mut work = pin!(self.sync_all());
        let until = clock::now() + deadline;
        loop {
            if let Ok(synced) = timeout(SAY_EVERY, work.as_mut()).await {
                return synced;
            }
            let (bytes, changes) = self.unwritten();
            tracing::warn!(
                meta = %self.remote.figures().meta_addr, bytes, changes, pid = std::process::id(),
                seconds_left = clock::until(until).as_secs(),
                "the unmount waits for the metadata server to take bytes of unwritten data and to store changes it has \
                 acknowledged; to give both up, send SIGTERM to this process (twice, if it was not asked to end by a signal)"
            );
        }
    }

    async fn sync_all(&self) -> Result<(), Errno> {
        self.remote.settle(None).await?;
        self.files.sync_all().await
    }

    /// Bytes that are not at the server, and changes there that are not on its disk.
    fn unwritten(&self) -> (u64, u64) {
        let figures = self.remote.figures();
        (self.files.figures().dirty_bytes, figures.unstable + figures.behind)
    }

    /// On each shard at the very end: ends its link and waits until its task is gone.
    pub async fn stop_shard(&self, _index: usize) {
        self.remote.stop().await;
    }
}
