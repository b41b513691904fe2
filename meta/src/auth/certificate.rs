//! This server's certificate for `meta.flexfs.internal`: made by the cluster's CA at admin, for a key that never
//! leaves this machine. Kept in `DB/tls` with mode 0600, renewed when a third of its life is left. Or the operator's ([`OwnFiles`]).

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use flexfs_wire::creds::check_mode;
use flexfs_wire::tls::{self, ALPN_META, Role};
use flexfs_wire::token::CaPin;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use super::http::{AdminError, AdminHttp};
use super::own::{self, OwnFiles, Stamp};
use crate::clock;

/// Longest time between two looks at the age of the certificate: a machine may have slept, or its clock been set.
const LOOK_MAX: Duration = Duration::from_secs(600);
/// Shortest, while admin is away.
const LOOK_MIN: Duration = Duration::from_secs(1);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// Admin did not sign.
    #[error("no certificate from admin: {0}")]
    Admin(#[from] AdminError),
    /// The folder cannot be used.
    #[error("{}: {error}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// Made by another cluster, for another key, or no certificate at all.
    #[error("the certificate admin made cannot be used: {0}")]
    Unusable(String),
    /// The operator's cannot be used.
    #[error("{} and {} (--sslCert, --sslKey) cannot be used: {cause}", cert.display(), key.display())]
    Own {
        /// Chain.
        cert: PathBuf,
        /// Key.
        key: PathBuf,
        /// Why.
        cause: String,
    },
}

/// Where certificates come from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// From admin; kept in this folder.
    Admin(PathBuf),
    /// From the operator.
    Own(OwnFiles),
}

/// The certificate in use; swapped under running connections.
#[derive(Debug)]
pub(crate) struct Identity {
    current: RwLock<Current>,
    source: Source,
    /// Of the operator's files, when they were read last.
    stamp: Mutex<Stamp>,
    pin: CaPin,
}

/// A certificate with its key.
#[derive(Clone, Debug)]
pub(super) struct Current {
    key: Arc<CertifiedKey>,
    /// Seconds since 1970 from which on a new one is wanted.
    renew_at: i64,
    /// Seconds since 1970 from which on nobody takes it.
    ends_at: i64,
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current().key)
    }
}

impl Identity {
    /// Loads the kept certificate, or has admin make one; or reads the operator's.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub(crate) fn obtain(
        source: &Source,
        http: &AdminHttp,
        pin: CaPin,
    ) -> Result<Arc<Self>, CertificateError> {
        let now = clock::wall().secs;
        let (stamp, current) = match source {
            Source::Admin(folder) => (Stamp::default(), kept_or_made(folder, http, pin, now)?),
            // The stamp first: what changes in between is read once more.
            Source::Own(files) => (files.stamp(), files.read(pin, now)?),
        };
        let (current, stamp) = (RwLock::new(current), Mutex::new(stamp));
        Ok(Arc::new(Self { current, source: source.clone(), stamp, pin }))
    }

    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What rustls needs to answer links.
    pub(crate) fn server_config(self: &Arc<Self>) -> Arc<ServerConfig> {
        tls::server_config_with(self.clone(), ALPN_META)
    }

    /// How long to wait for the next look: until a new one is wanted, or, when it is wanted already, as often as there is
    /// still something to be saved of the old one.
    fn next_look(&self, now: i64) -> Duration {
        if matches!(self.source, Source::Own(_)) {
            return own::LOOK;
        }
        let Current { renew_at, ends_at, .. } = self.current();
        let seconds = if now < renew_at { renew_at - now } else { (ends_at - now) / 8 };
        Duration::from_secs(seconds.max(0).unsigned_abs()).clamp(LOOK_MIN, LOOK_MAX)
    }

    fn renew(&self, http: &AdminHttp) -> Result<bool, CertificateError> {
        let now = clock::wall().secs;
        let made = match &self.source {
            Source::Admin(_) if now < self.current().renew_at => return Ok(false),
            Source::Admin(folder) => request(folder, http, self.pin, now)?,
            Source::Own(files) => {
                let stamp = files.stamp();
                // Once for each change, also when what is there now is no good.
                let mut read = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
                if std::mem::replace(&mut *read, stamp) == stamp {
                    return Ok(false);
                }
                drop(read);
                files.read(self.pin, now)?
            }
        };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = made;
        Ok(true)
    }
}

fn kept_or_made(folder: &Path, http: &AdminHttp, pin: CaPin, now: i64) -> Result<Current, CertificateError> {
    match load(folder, pin, now) {
        Some(kept) if now < kept.renew_at => Ok(kept),
        Some(kept) => match request(folder, http, pin, now) {
            // It is good for a while yet.
            Err(CertificateError::Admin(AdminError::Unreachable { .. })) => Ok(kept),
            made => made,
        },
        None => request(folder, http, pin, now),
    }
}

/// Renews in the background until the process ends.
pub(crate) fn renew_forever(identity: Arc<Identity>, http: Arc<AdminHttp>) -> std::io::Result<()> {
    std::thread::Builder::new().name("certificate".to_owned()).spawn(move || {
        loop {
            std::thread::sleep(identity.next_look(clock::wall().secs));
            match identity.renew(&http) {
                Ok(true) => tracing::info!("the server's certificate was renewed"),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "the server's certificate was not renewed; the one in use stays")
                }
            }
        }
    })?;
    Ok(())
}

fn request(folder: &Path, http: &AdminHttp, pin: CaPin, now: i64) -> Result<Current, CertificateError> {
    let unusable = |error: rcgen::Error| CertificateError::Unusable(error.to_string());
    let key = rcgen::KeyPair::generate().map_err(unusable)?;
    let params = rcgen::CertificateParams::new(vec![Role::Meta.name().to_owned()]).map_err(unusable)?;
    let csr = params.serialize_request(&key).and_then(|csr| csr.pem()).map_err(unusable)?;
    let chain = http.post("/v1/certificates/meta", "application/x-pem-file", csr.as_bytes())?;
    let key_pem = Zeroizing::new(key.serialize_pem());
    let made =
        assemble(chain.as_bytes(), key_pem.as_bytes(), pin, now).map_err(CertificateError::Unusable)?;
    keep(folder, chain.as_bytes(), key_pem.as_bytes())?;
    Ok(made)
}

/// The kept certificate, if it is of this cluster, still good, and its key was nobody else's to read.
fn load(folder: &Path, pin: CaPin, now: i64) -> Option<Current> {
    let path = folder.join("key.pem");
    let mode = path.metadata().ok()?.permissions().mode();
    if let Err(error) = check_mode(&path.to_string_lossy(), mode) {
        tracing::warn!(%error, "the kept key is not used any more; asking admin for a new certificate");
        return None;
    }
    let key = Zeroizing::new(std::fs::read(path).ok()?);
    let chain = std::fs::read(folder.join("chain.pem")).ok()?;
    match assemble(&chain, &key, pin, now) {
        Ok(current) => Some(current),
        Err(cause) => {
            tracing::info!(cause, "the kept certificate is not used; asking admin for a new one");
            None
        }
    }
}

/// Checks a chain and a key, the chain with the eyes of clients.
pub(super) fn assemble(chain: &[u8], key: &[u8], pin: CaPin, now: i64) -> Result<Current, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("chain: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("key: {error}"))?;
    let (leaf, rest) = chain.split_first().ok_or("the chain is empty")?;
    let at = UnixTime::since_unix_epoch(Duration::from_secs(now.max(0).unsigned_abs()));
    tls::verifier(pin, Role::Meta)
        .verify_server_cert(leaf, rest, &Role::Meta.server_name(), &[], at)
        .map_err(|error| tls::explain(&error))?;
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|error| format!("leaf: {error}"))?;
    let (from, to) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    let certified =
        CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| error.to_string())?;
    Ok(Current { key: Arc::new(certified), renew_at: to - (to - from) / 3, ends_at: to })
}

fn keep(folder: &Path, chain: &[u8], key: &[u8]) -> Result<(), CertificateError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |error| CertificateError::Io { path, error }
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io(folder))?;
    // The key first: a crash in between leaves a chain that does not fit, which `load` notices.
    for (name, bytes) in [("key.pem", key), ("chain.pem", chain)] {
        let path = folder.join(name);
        let fresh = folder.join(format!("{name}.new"));
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&fresh, &path));
        written.map_err(io(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    #[test]
    fn kept_identities_are_checked() {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let pin = tls::ca_pin(ca.der()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec![Role::Meta.name().to_owned()]).unwrap();
        leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
        leaf.not_after = rcgen::date_time_ymd(2023, 1, 1);
        let leaf = leaf.signed_by(&key, &ca).unwrap();
        let chain = format!("{}{}", leaf.pem(), ca.pem());
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("tls");
        keep(&folder, chain.as_bytes(), key.serialize_pem().as_bytes()).unwrap();

        let year = |year: i64| (year - 1970) * 31_556_952;
        assert!(load(&folder, pin, year(2021)).is_some());
        let kept = load(&folder, pin, year(2022)).unwrap();
        // The scalar of a P-256 key in PKCS #8 (RFC 5208, RFC 5915).
        let secret = key.serialize_der()[36..46].to_vec();
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let (shown, list) = (format!("{kept:?}"), format!("{secret:?}"));
        assert!(!shown.contains(list.trim_matches(['[', ']'])) && !shown.contains(&hex), "{shown}");
        assert!(kept.renew_at < year(2022) + 5_000_000, "a new one is wanted in the last third");
        assert!(load(&folder, pin, year(2023) + 86_400).is_none(), "it has ended");
        assert!(load(&folder, CaPin([0; 16]), year(2021)).is_none(), "another cluster");
        let open =
            |mode| std::fs::set_permissions(folder.join("key.pem"), std::fs::Permissions::from_mode(mode));
        open(0o640).unwrap();
        assert!(load(&folder, pin, year(2021)).is_none(), "a key that others may have read");
        open(0o600).unwrap();
        std::fs::write(folder.join("key.pem"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        assert!(load(&folder, pin, year(2021)).is_none(), "another key");
    }
}
