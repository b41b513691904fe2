//! `start`: puts the parts together and runs them until a signal.

use std::fs::File;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use flexfs_uring::harden::{self, Keep, Needs, Reach, User};
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
use crate::ca::{Ca, LEAF_LIFE};
use crate::cli::Start;
use crate::db::Db;
use crate::used::Used;
use crate::{clock, expiry, init, metric, rest, serve, used};

/// Threads for the tables: they queue at one mutex, so a few are plenty.
const BLOCKING_THREADS: usize = 16;

/// Connections the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(start: &Start, folder: &Path) -> anyhow::Result<()> {
    let Prepared { _lock, listener, certs, ca } = prepare(start, folder)?;
    let db = Db::open(&init::db_file(folder))?;
    let metrics = metric::install()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("admin")
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
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

/// What is taken while the process may still do so.
struct Prepared {
    _lock: File,
    listener: StdListener,
    certs: Arc<Certs>,
    ca: Arc<Ca>,
}

/// Takes folder, keys and port, and gives up what is not needed from then on. Before any other thread, for threads inherit it.
fn prepare(start: &Start, folder: &Path) -> anyhow::Result<Prepared> {
    init::check_made(folder)?;
    let user = start.user.as_deref().map(User::find).transpose()?;
    if let Some(user) = &user {
        user.take(folder)?;
    }
    let lock = init::lock(folder, user.as_ref())?;
    let ca = Arc::new(Ca::load(folder)?.with_life(start.cert_life.unwrap_or(LEAF_LIFE)));
    let certs = Arc::new(Certs::new(&ca, start)?);
    let listener = bind(start.bind_addr)?;
    let reach = Reach { folders: vec![folder.to_owned()], ports: Vec::new() };
    let in_force = harden::give_up(&Needs { user, keep: Keep::Files, reach: Some(reach) })?;
    tracing::info!("given up what is not needed: {in_force}");
    Ok(Prepared { _lock: lock, listener, certs, ca })
}

fn bind(address: SocketAddr) -> anyhow::Result<StdListener> {
    let listen = || -> std::io::Result<StdListener> {
        let listener = StdListener::bind(address)?;
        // The library's own bound is for quieter servers.
        rustix::net::listen(&listener, BACKLOG)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "port {} is in use ({address}): stop what listens there, or choose another address with --bindAddr",
            address.port()
        ),
        _ => anyhow::Error::new(error).context(format!("listen on {address} (--bindAddr)")),
    })
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

/// Replaces the cluster's certificate when a third of its life is over. Nothing of it is on disk.
async fn renew(certs: Arc<Certs>, ca: Arc<Ca>, bound: IpAddr, mut shutdown: watch::Receiver<bool>) {
    const LOOK_MAX: Duration = Duration::from_secs(3600);
    let life = ca.leaf_life();
    // Of a short life nothing may be missed.
    let look = LOOK_MAX.min(life / 12);
    let life = i64::try_from(life.as_secs()).expect("a year or so");
    let mut since = clock::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(look) => {}
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
