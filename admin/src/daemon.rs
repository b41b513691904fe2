//! `start`: puts the parts together and runs them until a signal.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use flexfs_wire::tls::{self, ALPN_REST, Role};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::app::App;
use crate::ca::{ADMIN_LIFE, Ca};
use crate::cli::Start;
use crate::db::Db;
use crate::used::Used;
use crate::{clock, expiry, init, metric, rest, serve, used};

/// Threads for the tables: they queue at one mutex, so a few are plenty.
const BLOCKING_THREADS: usize = 16;

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(start: &Start, folder: &Path) -> anyhow::Result<()> {
    init::check_made(folder)?;
    let _lock = init::lock(folder)?;
    let ca = Arc::new(Ca::load(folder)?);
    let db = Db::open(&init::db_file(folder))?;
    let certs = Arc::new(Certs::new(&ca, start)?);
    let metrics = metric::install()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("admin")
        .build()?;
    runtime.block_on(async {
        let listener = bind(start.bind_addr).await?;
        let address = listener.local_addr()?;
        let (stop, shutdown) = watch::channel(false);
        let app = App {
            db,
            ca: Arc::clone(&ca),
            used: Arc::new(Used::default()),
            audit_keep: i64::from(start.audit_retention) * 86_400,
            metrics,
            shutdown: shutdown.clone(),
        };
        let tasks = [
            tokio::spawn(expiry::run(app.clone())),
            tokio::spawn(used::run(app.clone())),
            tokio::spawn(metric::upkeep(app.metrics.clone(), shutdown.clone())),
            tokio::spawn(renew(Arc::clone(&certs), ca, address.ip(), shutdown.clone())),
        ];
        let acceptor = TlsAcceptor::from(tls::server_config_with(certs, ALPN_REST));
        tracing::info!(%address, folder = %folder.display(), version = env!("CARGO_PKG_VERSION"), "admin serves");
        let server = tokio::spawn(serve::serve(listener, acceptor, rest::router(app), shutdown));
        let signal = wait_for_signal().await?;
        tracing::info!(signal, "admin stops");
        stop.send_replace(true);
        server.await?;
        for task in tasks {
            task.await?;
        }
        tracing::info!("admin stopped");
        Ok(())
    })
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => anyhow::bail!(
            "port {} is in use ({address}): stop what listens there, or choose another address with --bindAddr",
            address.port()
        ),
        Err(error) => Err(error).with_context(|| format!("listen on {address} (--bindAddr)")),
    }
}

async fn wait_for_signal() -> std::io::Result<&'static str> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => Ok("SIGTERM"),
        _ = int.recv() => Ok("SIGINT"),
    }
}

/// The certificates admin shows: to flexfs's own programs, which ask for the role, one of the cluster's CA; to others
/// the operator's, when there is one.
#[derive(Debug)]
struct Certs {
    cluster: RwLock<Arc<CertifiedKey>>,
    own: Option<Arc<CertifiedKey>>,
}

impl Certs {
    fn new(ca: &Ca, start: &Start) -> anyhow::Result<Self> {
        let cluster = RwLock::new(issue(ca, start.bind_addr.ip())?);
        let own = match (&start.ssl_cert, &start.ssl_key) {
            (Some(cert), Some(key)) => Some(read_own(cert, key)?),
            _ => None,
        };
        Ok(Self { cluster, own })
    }
}

impl ResolvesServerCert for Certs {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match &self.own {
            Some(own) if hello.server_name() != Some(Role::Admin.name()) => Some(Arc::clone(own)),
            _ => Some(Arc::clone(&self.cluster.read().unwrap_or_else(PoisonError::into_inner))),
        }
    }
}

fn issue(ca: &Ca, bound: IpAddr) -> anyhow::Result<Arc<CertifiedKey>> {
    let identity = ca.admin_identity(bound, clock::wall())?;
    Ok(Arc::new(CertifiedKey::from_der(identity.chain, identity.key, &default_provider())?))
}

fn read_own(cert: &Path, key: &Path) -> anyhow::Result<Arc<CertifiedKey>> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .with_context(|| format!("read the certificate {} (--sslCert)", cert.display()))?;
    let private = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("read the private key {} (--sslKey)", key.display()))?;
    let pair = CertifiedKey::from_der(chain, private, &default_provider())
        .with_context(|| format!("{} and {} do not go together", cert.display(), key.display()))?;
    Ok(Arc::new(pair))
}

/// Replaces the cluster's certificate when a third of its life is over. Nothing of it is on disk.
async fn renew(certs: Arc<Certs>, ca: Arc<Ca>, bound: IpAddr, mut shutdown: watch::Receiver<bool>) {
    const LOOK: Duration = Duration::from_secs(3600);
    let life = i64::try_from(ADMIN_LIFE.as_secs()).expect("some days");
    let mut since = clock::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = shutdown.wait_for(|down| *down) => return,
        }
        // Wall time, not a sleep: a machine that was suspended renews when it wakes.
        if clock::now() - since < life / 3 {
            continue;
        }
        match issue(&ca, bound) {
            Ok(fresh) => {
                *certs.cluster.write().unwrap_or_else(PoisonError::into_inner) = fresh;
                since = clock::now();
                tracing::info!("admin's certificate was renewed");
            }
            Err(error) => tracing::error!(%error, "admin's certificate was not renewed; trying again"),
        }
    }
}
