//! Lock and socket of a mount point, in the state folder.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::config::STATE_FOLDER;

/// Files of one mount point. Their names are hashes: socket addresses are short, mount points need not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    folder: PathBuf,
    name: String,
}

/// Why a mount point cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Somebody has it.
    #[error("{} is being mounted or served by another mount.flexfs; see: mount.flexfs status {0}", target.display())]
    Taken {
        /// The mount point.
        target: PathBuf,
    },
    /// The state folder.
    #[error("cannot use the state folder {}: {source} (choose another with --stateFolder)", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The errno.
        source: io::Error,
    },
}

/// A mount point that is ours until this is dropped, or the process ends in any way.
#[derive(Debug)]
pub struct Claim {
    place: Place,
    /// Holds the lock.
    _file: File,
}

impl Place {
    /// Files of `target` in `folder`.
    #[must_use]
    pub fn new(folder: &Path, target: &Path) -> Self {
        let hash = xxhash_rust::xxh3::xxh3_64(target.as_os_str().as_bytes());
        Self { folder: folder.to_owned(), name: format!("{hash:016x}") }
    }

    /// The socket of `status`.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.file("sock")
    }

    fn file(&self, kind: &str) -> PathBuf {
        self.folder.join(format!("{}.{kind}", self.name))
    }

    /// Takes the mount point.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub fn claim(self, target: &Path) -> Result<Claim, ClaimError> {
        let failed = |source: io::Error| ClaimError::Folder { folder: self.folder.clone(), source };
        DirBuilder::new().recursive(true).mode(0o755).create(&self.folder).map_err(failed)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.file("lock"))
            .map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(ClaimError::Taken { target: target.to_owned() }),
            Err(errno) => return Err(failed(errno.into())),
        }
        // For people who look into the folder.
        file.set_len(0)
            .and_then(|()| writeln!(file, "{} {}", std::process::id(), target.display()))
            .map_err(failed)?;
        Ok(Claim { place: self, _file: file })
    }
}

impl Claim {
    /// The files.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Makes the socket findable where `status` looks when it is told no folder.
    pub fn publish(&self, target: &Path) {
        let standard = Place::new(Path::new(STATE_FOLDER), target);
        if standard == self.place {
            return;
        }
        let link = standard.socket();
        // Best effort: without it, `status` needs --stateFolder.
        let linked = DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(STATE_FOLDER)
            .and_then(|()| remove_if_there(&link))
            .and_then(|()| std::os::unix::fs::symlink(self.place.socket(), &link));
        if let Err(error) = linked {
            tracing::debug!(%error, "status needs --stateFolder for this mount");
        }
    }

    /// Takes back what `publish` and the socket left. The lock's file stays: to remove it would race with the next.
    pub fn clear(&self, target: &Path) {
        let standard = Place::new(Path::new(STATE_FOLDER), target).socket();
        let ours = std::fs::read_link(&standard).is_ok_and(|linked| linked == self.place.socket());
        let gone = if ours { remove_if_there(&standard) } else { Ok(()) };
        if let Err(error) = gone.and_then(|()| remove_if_there(&self.place.socket())) {
            tracing::debug!(%error, "the socket of status stays behind");
        }
    }
}

/// `unlink(2)`; absent is fine.
pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let target = Path::new("/mnt/some where");
        let place = Place::new(dir.path(), target);
        assert_ne!(place, Place::new(dir.path(), Path::new("/mnt/else")));
        let claim = place.clone().claim(target).unwrap();
        assert!(matches!(place.clone().claim(target), Err(ClaimError::Taken { .. })));
        drop(claim);
        drop(place.claim(target).unwrap());
    }
}
