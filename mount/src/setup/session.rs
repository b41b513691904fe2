//! A session and the file data over it, from the first shard's start to the last one's stop.

use std::sync::Arc;
use std::time::Duration;

use flexfs_uring::timer::timeout;
use flexfs_uring::{clock, spawn};
use flexfs_wire::errno::Errno;

use super::connect::{Config, SetupError, connect};
use crate::data::{self, Files};
use crate::link::Remote;

/// Time for the goodbye to a server that answers; a session that just stops ends with its lease.
const LEAVE_MAX: Duration = Duration::from_secs(3);

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
    };
    let files = Arc::new(Files::new(Arc::clone(&remote), data));
    Ok(Session { remote, files })
}

impl Session {
    /// On each shard, inside its executor, once: starts its link, which connects and reconnects by itself, and on shard 0
    /// the task that writes back what has been dirty for long. Never fails for a server that is away.
    pub async fn start_shard(&self, index: usize) {
        self.remote.start(index);
        if index == 0 {
            let files = Arc::clone(&self.files);
            // Runs until the shard ends; after the session's end it finds nothing it could send.
            drop(spawn(async move { files.write_back().await }));
        }
    }

    /// On a shard, at the end: sends what is unwritten, waits until it is durable, and says goodbye. Calls get EIO after.
    ///
    /// # Errors
    /// What was lost, for the log.
    pub async fn finish(&self, deadline: Duration) -> Result<(), String> {
        let until = clock::now() + deadline;
        let synced = timeout(deadline, self.files.sync_all()).await;
        let left = self.remote.leave(clock::until(until).max(LEAVE_MAX)).await;
        match synced {
            Ok(Ok(())) => {
                match left {
                    Ok(()) => {}
                    Err(Errno::ETIMEDOUT) => {
                        tracing::info!(
                            "the server did not answer the goodbye; the session ends with its lease"
                        );
                    }
                    // It was over before.
                    Err(errno) => tracing::debug!(%errno, "no goodbye was said"),
                }
                Ok(())
            }
            Ok(Err(errno)) => Err(format!("data could not be written before the unmount: {errno}")),
            Err(_) => Err(format!(
                "the metadata server took no data for {} s at the unmount: unwritten data is lost",
                deadline.as_secs()
            )),
        }
    }

    /// On each shard at the very end: ends its link and waits until its task is gone.
    pub async fn stop_shard(&self, _index: usize) {
        self.remote.stop().await;
    }
}
