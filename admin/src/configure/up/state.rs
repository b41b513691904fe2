//! What a local cluster is and where its files lie.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use flexfs_wire::limits::{ADMIN_PORT, META_PORT, METRICS_PORT};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

/// Folder of all local clusters.
const CLUSTERS: &str = "/var/lib/flexfs";

/// What `up` remembers: the ports and the mount point of one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Settings {
    /// Where it is mounted.
    pub(crate) mount_point: PathBuf,
    /// Name of the volume.
    pub(crate) volume: String,
    /// Port of admin.
    pub(crate) admin_port: u16,
    /// Port of meta.
    pub(crate) meta_port: u16,
    /// Port of meta's metrics.
    pub(crate) metrics_port: u16,
}

impl Settings {
    /// A cluster with the default ports.
    pub(crate) fn new(mount_point: PathBuf) -> Self {
        Self {
            mount_point,
            volume: "main".to_owned(),
            admin_port: ADMIN_PORT,
            meta_port: META_PORT,
            metrics_port: METRICS_PORT,
        }
    }
}

/// The folder of one cluster, locked for this process.
#[derive(Debug)]
pub(crate) struct StateDir {
    root: PathBuf,
    /// Two `up` at once would start everything twice; the lock goes with the file.
    _lock: File,
}

impl StateDir {
    /// The folder for a mount point when none is named: `/var/lib/flexfs/<escaped path>`.
    pub(crate) fn default_for(mount_point: &Path) -> PathBuf {
        Path::new(CLUSTERS).join(escape(mount_point))
    }

    /// Opens the folder, making what is missing.
    pub(crate) fn open(root: &Path) -> anyhow::Result<Self> {
        let root = std::path::absolute(root)?;
        for folder in ["", "admin", "meta", "mount", "creds", "log", "run"] {
            let folder = root.join(folder);
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
            made.with_context(|| format!("make {} (--stateDir chooses another place)", folder.display()))?;
        }
        let path = root.join("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let lock = lock.with_context(|| format!("open {}", path.display()))?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("another `up` or `down` works on {}: wait for it", root.display());
        }
        Ok(Self { root, _lock: lock })
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Folder of a program's data: `admin`, `meta`, `mount`.
    pub(crate) fn data(&self, which: &str) -> PathBuf {
        self.root.join(which)
    }

    /// Credentials file of `configure`, `meta`, `mount`.
    pub(crate) fn creds(&self, which: &str) -> PathBuf {
        self.root.join("creds").join(which)
    }

    /// Log file of a program.
    pub(crate) fn log(&self, which: &str) -> PathBuf {
        self.root.join("log").join(format!("{which}.log"))
    }

    /// File that says which process a program runs as.
    pub(crate) fn pid(&self, which: &str) -> PathBuf {
        self.root.join("run").join(format!("{which}.pid"))
    }

    /// What an `up` before this one remembered.
    pub(crate) fn settings(&self) -> anyhow::Result<Option<Settings>> {
        let path = self.settings_file();
        match fs::read_to_string(&path) {
            Ok(text) => {
                let settings =
                    toml::from_str(&text).with_context(|| format!("{} cannot be read", path.display()))?;
                Ok(Some(settings))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// Remembers.
    pub(crate) fn remember(&self, settings: &Settings) -> anyhow::Result<()> {
        let path = self.settings_file();
        let fresh = path.with_extension("new");
        fs::write(&fresh, toml::to_string(settings)?)
            .and_then(|()| File::open(&fresh)?.sync_all())
            .and_then(|()| fs::rename(&fresh, &path))
            .with_context(|| format!("write {}", path.display()))
    }

    fn settings_file(&self) -> PathBuf {
        self.root.join("cluster.toml")
    }
}

/// A path as one file name, as `systemd-escape --path` does: `/` becomes `-`, what is special becomes `\xNN`.
fn escape(path: &Path) -> OsString {
    let bytes = path.as_os_str().as_bytes();
    let trimmed = bytes.strip_prefix(b"/").unwrap_or(bytes);
    let mut name = Vec::new();
    for (index, &byte) in trimmed.iter().enumerate() {
        match byte {
            b'/' => name.push(b'-'),
            b'.' if index == 0 => name.extend(b"\\x2e"),
            b'_' | b'.' | b':' => name.push(byte),
            byte if byte.is_ascii_alphanumeric() => name.push(byte),
            byte => name.extend(format!("\\x{byte:02x}").bytes()),
        }
    }
    OsString::from_vec(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_folders() {
        let name = |path| escape(Path::new(path)).into_string().unwrap();
        assert_eq!(name("/mnt/flexfs"), "mnt-flexfs");
        assert_eq!(name("/mnt/a-b c"), "mnt-a\\x2db\\x20c");
        assert_ne!(name("/mnt/a/b"), name("/mnt/a-b"));
    }

    #[test]
    fn remembers_and_locks() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("s")).unwrap();
        assert_eq!(state.settings().unwrap(), None);
        let settings = Settings { admin_port: 1, ..Settings::new("/mnt/x".into()) };
        state.remember(&settings).unwrap();
        assert_eq!(state.settings().unwrap(), Some(settings));
        let error = StateDir::open(&dir.path().join("s")).unwrap_err().to_string();
        assert!(error.contains("wait for it"), "{error}");
        drop(state);
        assert!(StateDir::open(&dir.path().join("s")).is_ok());
    }
}
