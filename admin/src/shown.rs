//! The certificates admin shows, and how they stay fresh.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use flexfs_wire::tls::Role;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use crate::ca::Ca;
use crate::clock;

/// Pause between two looks at the operator's files.
const OWN_LOOK: Duration = Duration::from_secs(5);

/// The certificates admin shows: to flexfs's own programs, which ask for the role, one of the cluster's CA; to others
/// the operator's, when there is one.
#[derive(Debug)]
pub(crate) struct Certs {
    cluster: RwLock<Arc<CertifiedKey>>,
    own: Option<Own>,
}

/// The operator's.
#[derive(Debug)]
struct Own {
    cert: PathBuf,
    key: PathBuf,
    shown: RwLock<Arc<CertifiedKey>>,
}

impl Certs {
    /// `own` is the operator's certificate and key.
    pub(crate) fn new(ca: &Ca, bound: IpAddr, own: Option<(&Path, &Path)>) -> anyhow::Result<Self> {
        let cluster = RwLock::new(issue(ca, bound)?);
        let read = |(cert, key): (&Path, &Path)| -> anyhow::Result<Own> {
            let shown = RwLock::new(read_own(cert, key)?);
            Ok(Own { cert: cert.to_owned(), key: key.to_owned(), shown })
        };
        let own = own.map(read).transpose()?;
        Ok(Self { cluster, own })
    }
}

impl Own {
    /// Another one after the files were replaced: their times and lengths.
    fn stamp(&self) -> [Option<(SystemTime, u64)>; 2] {
        [&self.cert, &self.key].map(|path| {
            let found = path.metadata().ok()?;
            Some((found.modified().ok()?, found.len()))
        })
    }

    fn renew(&self) {
        match read_own(&self.cert, &self.key) {
            Ok(fresh) => {
                replace(&self.shown, fresh);
                tracing::info!(cert = %self.cert.display(), "the certificate of --sslCert was read anew");
            }
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "the certificate of --sslCert has changed and cannot be used; the one in use stays"
            ),
        }
    }
}

impl ResolvesServerCert for Certs {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match &self.own {
            Some(own) if hello.server_name() != Some(Role::Admin.name()) => Some(current(&own.shown)),
            _ => Some(current(&self.cluster)),
        }
    }
}

fn current(shown: &RwLock<Arc<CertifiedKey>>) -> Arc<CertifiedKey> {
    Arc::clone(&shown.read().unwrap_or_else(PoisonError::into_inner))
}

fn replace(shown: &RwLock<Arc<CertifiedKey>>, fresh: Arc<CertifiedKey>) {
    *shown.write().unwrap_or_else(PoisonError::into_inner) = fresh;
}

fn issue(ca: &Ca, bound: IpAddr) -> anyhow::Result<Arc<CertifiedKey>> {
    let identity = ca.admin_identity(bound, clock::wall())?;
    Ok(Arc::new(CertifiedKey::from_der(identity.chain, identity.key, &default_provider())?))
}

fn read_own(cert: &Path, key: &Path) -> anyhow::Result<Arc<CertifiedKey>> {
    check_own_key(key)?;
    let chain: Vec<_> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .with_context(|| format!("read the certificate {} (--sslCert)", cert.display()))?;
    let private = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("read the private key {} (--sslKey)", key.display()))?;
    let pair = CertifiedKey::from_der(chain, private, &default_provider())
        .with_context(|| format!("{} and {} do not go together", cert.display(), key.display()))?;
    Ok(Arc::new(pair))
}

/// A group may read it, as is usual for keys that several servers share; everybody may not.
fn check_own_key(key: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let found =
        key.metadata().with_context(|| format!("read the private key {} (--sslKey)", key.display()))?;
    anyhow::ensure!(
        found.permissions().mode() & 0o007 == 0,
        "everybody may read or change the private key {0} (--sslKey); mend it with: chmod o= {0}",
        key.display()
    );
    Ok(())
}

/// Replaces the cluster's certificate when a third of its life is over (nothing of it is on disk), and the operator's when
/// its files have changed.
pub(crate) async fn renew(
    certs: Arc<Certs>,
    ca: Arc<Ca>,
    bound: IpAddr,
    mut shutdown: watch::Receiver<bool>,
) {
    const LOOK_MAX: Duration = Duration::from_secs(3600);
    let life = ca.leaf_life();
    // Of a short life nothing may be missed.
    let look = LOOK_MAX.min(life / 12).min(if certs.own.is_some() { OWN_LOOK } else { LOOK_MAX });
    let mut stamp = certs.own.as_ref().map(Own::stamp);
    let life = i64::try_from(life.as_secs()).expect("a year or so");
    let mut since = clock::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(look) => {}
            _ = shutdown.wait_for(|down| *down) => return,
        }
        if let Some(own) = &certs.own {
            let found = Some(own.stamp());
            if stamp != found {
                stamp = found;
                own.renew();
            }
        }
        // Wall time, not a sleep: a machine that was suspended renews when it wakes.
        if clock::now() - since < life / 3 {
            continue;
        }
        match issue(&ca, bound) {
            Ok(fresh) => {
                replace(&certs.cluster, fresh);
                since = clock::now();
                tracing::info!("admin's certificate was renewed");
            }
            Err(error) => tracing::error!(%error, "admin's certificate was not renewed; trying again"),
        }
    }
}
