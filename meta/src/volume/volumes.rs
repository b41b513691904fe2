//! All volumes of this server, by id. Asked on the setup path only.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam::channel::{Receiver, bounded};
use flexfs_wire::settings::VolumeSettings;

use super::handle::Volume;
use super::message::ToVolume;
use super::thread::{Opening, Shop, run};

/// Time for a volume to end in order.
const STOP_WAIT: Duration = Duration::from_secs(30);

/// Told once whether a volume could be opened.
type Ready = Receiver<Result<(), String>>;

/// The volumes.
#[derive(Debug)]
pub(crate) struct Volumes {
    folder: PathBuf,
    shop: Shop,
    running: Mutex<HashMap<String, Arc<Volume>>>,
}

/// Why a volume is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    /// Admin named something that is no UUID; it would become a path.
    #[error("{0:?} is not the id of a volume")]
    Id(String),
    /// The system refused.
    #[error("{path}: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        error: std::io::Error,
    },
    /// The volume's thread could not open it.
    #[error("volume {id}: {cause}")]
    Broken {
        /// Which.
        id: String,
        /// Why.
        cause: String,
    },
}

impl Volumes {
    /// Volumes below `folder`; none runs yet.
    pub(crate) fn new(folder: PathBuf, shop: Shop) -> Self {
        Self { folder, shop, running: Mutex::default() }
    }

    /// Starts every volume found on disk and waits until its sessions are known: a link that claims one must find it.
    ///
    /// # Errors
    /// The first volume that cannot be opened.
    pub(crate) fn start_found(&self) -> Result<usize, VolumeError> {
        let io = |error| VolumeError::Io { path: self.folder.clone(), error };
        std::fs::create_dir_all(&self.folder).map_err(io)?;
        let mut starting = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            let Some(id) = name.to_str().filter(|id| is_id(id)) else { continue };
            if self.folder.join(id).join("db").is_dir() {
                starting.push((id.to_owned(), self.start(id, None)?.1));
            }
        }
        let count = starting.len();
        for (id, ready) in starting {
            match ready.recv() {
                Ok(Ok(())) => {}
                Ok(Err(cause)) => return Err(VolumeError::Broken { id, cause }),
                Err(_) => return Err(VolumeError::Broken { id, cause: "its thread ended".to_owned() }),
            }
        }
        Ok(count)
    }

    /// The volume with these settings, started when it is not running.
    ///
    /// # Errors
    /// No id, or no thread.
    pub(crate) fn open(&self, settings: &VolumeSettings) -> Result<Arc<Volume>, VolumeError> {
        if !is_id(&settings.id) {
            return Err(VolumeError::Id(settings.id.clone()));
        }
        if let Some(running) = self.lock().get(&settings.id) {
            return Ok(running.clone());
        }
        Ok(self.start(&settings.id, Some(settings.clone()))?.0)
    }

    /// The running volume of that id.
    pub(crate) fn find(&self, id: &str) -> Option<Arc<Volume>> {
        self.lock().get(id).cloned()
    }

    /// All running volumes.
    pub(crate) fn all(&self) -> Vec<Arc<Volume>> {
        self.lock().values().cloned().collect()
    }

    /// Ends all volumes in order; false when one did not end in time.
    pub(crate) fn stop(&self) -> bool {
        let waits: Vec<Receiver<()>> = self
            .all()
            .iter()
            .map(|volume| {
                let (done, wait) = bounded(1);
                volume.send(ToVolume::Stop(done));
                wait
            })
            .collect();
        // The sender is dropped when the engine has closed, so the wait ends with "disconnected".
        waits.iter().all(|wait| {
            !matches!(wait.recv_timeout(STOP_WAIT), Err(crossbeam::channel::RecvTimeoutError::Timeout))
        })
    }

    fn start(&self, id: &str, settings: Option<VolumeSettings>) -> Result<(Arc<Volume>, Ready), VolumeError> {
        let folder = self.folder.join(id);
        let (ready, wait) = bounded(1);
        let mut running = self.lock();
        if let Some(found) = running.get(id) {
            let _ = ready.send(Ok(()));
            return Ok((found.clone(), wait));
        }
        let volume = Arc::new(Volume::new(id.to_owned(), folder.join("blocks")));
        let opening = Opening {
            shop: self.shop.clone(),
            volume: volume.clone(),
            folder: folder.clone(),
            settings,
            ready,
        };
        std::thread::Builder::new()
            .name(format!("volume-{}", id.get(..8).unwrap_or(id)))
            .spawn(move || run(opening))
            .map_err(|error| VolumeError::Io { path: folder, error })?;
        running.insert(id.to_owned(), volume.clone());
        Ok((volume, wait))
    }

    /// Takes out a volume whose thread could not open it, so that the next session tries again.
    pub(crate) fn forget_broken(&self, volume: &Arc<Volume>) {
        let mut running = self.lock();
        let broken = volume.broken.load(std::sync::atomic::Ordering::Acquire);
        if broken && running.get(&volume.id).is_some_and(|found| Arc::ptr_eq(found, volume)) {
            running.remove(&volume.id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Volume>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_id(id: &str) -> bool {
    uuid::Uuid::parse_str(id).is_ok_and(|uuid| uuid.hyphenated().to_string() == id)
}

/// Folder of a volume's database below a server's folder, for `verify`.
#[must_use]
pub(crate) fn database_folder(volumes: &Path, id: &str) -> PathBuf {
    volumes.join(id).join("db")
}

/// Ids of the volumes below a folder, for `verify`.
///
/// # Errors
/// The folder cannot be read.
pub(crate) fn found_volumes(volumes: &Path) -> std::io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(volumes)? {
        let name = entry?.file_name();
        if let Some(id) = name.to_str().filter(|id| is_id(id))
            && database_folder(volumes, id).is_dir()
        {
            found.push(id.to_owned());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_uuids_become_paths() {
        assert!(is_id("67e55044-10b1-426f-9247-bb680e5fe0c8"));
        for bad in
            ["", "..", "67E55044-10b1-426f-9247-bb680e5fe0c8", "a/b", "67e5504410b1426f9247bb680e5fe0c8"]
        {
            assert!(!is_id(bad), "{bad}");
        }
    }
}
