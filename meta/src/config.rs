//! What `start` runs with: flags resolved to values.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::auth::OwnFiles;

/// A server's configuration.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Where clients connect.
    pub(crate) bind_addr: SocketAddr,
    /// Where Prometheus and health checks connect.
    pub(crate) metrics_addr: SocketAddr,
    /// Databases, blocks, the lock.
    pub(crate) db_folder: PathBuf,
    /// Certificate and key.
    pub(crate) cert_folder: PathBuf,
    /// Certificate and key of the operator's, instead.
    pub(crate) own_certificate: Option<OwnFiles>,
    /// Address of admin and the meta token.
    pub(crate) creds_file: PathBuf,
    /// Threads that serve connections.
    pub(crate) cores: usize,
    /// Whom to become.
    pub(crate) user: Option<String>,
    /// Cut damaged journals and go on.
    pub(crate) cut_journals: bool,
}

/// A path below `~/.flexfs/meta`.
///
/// # Errors
/// There is no `HOME`.
pub(crate) fn default_path(name: &str, flag: &str) -> Result<PathBuf> {
    let home =
        std::env::var_os("HOME").with_context(|| format!("HOME is not set: name the path with {flag}"))?;
    Ok(PathBuf::from(home).join(".flexfs/meta").join(name))
}
