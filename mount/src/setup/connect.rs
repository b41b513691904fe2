//! From credentials to a session: admin says where, meta says yes.

use std::sync::Arc;
use std::time::Duration;

use flexfs_wire::creds::Creds;
use flexfs_wire::settings::Flags;
use flexfs_wire::tls::{self, ALPN_META, Role};
use flexfs_wire::token::Secret;

use super::admin::{self, AdminError};
use super::encryption::{self, EncryptionError};
use crate::disk::{self, Disk};
use crate::link::{Locate, OpenError, Remote, Target};

/// A soft mount gives errors after this much absence of the server: long enough for a restart with recovery.
const SOFT_AFTER: Duration = Duration::from_secs(60);

/// A wait for a lock is asked for anew after this: a busy client makes a few hundred thousand calls meanwhile, whose answers
/// the server keeps.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(30);

/// What a mount is made of.
#[derive(Debug)]
pub struct Config {
    /// Address of admin, and the volume token.
    pub creds: Creds,
    /// Name of the volume the person means.
    pub volume: String,
    /// Host and mount point, for the operator.
    pub client: String,
    /// Flags of the command line.
    pub flags: Flags,
    /// Errors instead of endless waits for a server that is away.
    pub soft: bool,
    /// Bytes of memory for dirty data and caches; 0 for the default.
    pub mem_capacity: u64,
    /// The disk cache, if there is to be one.
    pub disk: Option<disk::Settings>,
    /// Shards that will serve.
    pub shards: usize,
}

/// Why nothing was mounted. The text says who refused and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Admin refused or is away.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The token opens another volume.
    #[error(
        "the token in the credentials opens volume {found:?}, not {wanted:?}; use the credentials of {wanted:?}"
    )]
    Volume {
        /// The one asked for.
        wanted: String,
        /// The one the token opens.
        found: String,
    },
    /// The volume's key was not had.
    #[error(transparent)]
    Encryption(#[from] EncryptionError),
    /// There can be no disk cache where it was asked for.
    #[error(transparent)]
    Disk(#[from] disk::OpenError),
    /// The metadata server refused or is away.
    #[error(transparent)]
    Meta(#[from] OpenError),
}

/// Opens a session, with blocking calls.
///
/// # Errors
/// [`SetupError`], for the person.
pub fn connect(config: &Config) -> Result<Arc<Remote>, SetupError> {
    let found = admin::for_token(&config.creds)?;
    if found.settings.name != config.volume && found.settings.id != config.volume {
        return Err(SetupError::Volume { wanted: config.volume.clone(), found: found.settings.name });
    }
    let cipher = encryption::cipher(&config.creds, &found)?;
    let disk = match &config.disk {
        Some(settings) => {
            let keeps_plain = found.settings.flags.ro && cipher.is_none();
            let settings = disk::Settings { keeps_plain, ..settings.clone() };
            Some(Disk::open(&settings, &found.settings.id, &config.client)?)
        }
        None => None,
    };
    let target = Target {
        meta_addr: found.meta_addr,
        tls: tls::client_config(config.creds.token.ca_pin, Role::Meta, ALPN_META),
        token: Secret::new(config.creds.token.to_text().to_string()),
        volume: found.settings.name,
        client: config.client.clone(),
        flags: config.flags,
        soft: config.soft.then_some(SOFT_AFTER),
        shards: config.shards,
        cipher,
        disk,
        locate: Some(locate(&config.creds)),
        lock_wait_max: LOCK_WAIT_MAX,
    };
    Ok(Remote::open(target)?)
}

/// Asks admin again where the volume is.
fn locate(creds: &Creds) -> Locate {
    let creds = creds.clone();
    Locate(Arc::new(move || {
        admin::for_token(&creds).map(|found| found.meta_addr).map_err(|error| error.to_string())
    }))
}
