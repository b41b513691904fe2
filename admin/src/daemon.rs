//! `start`: puts the parts together and runs them until a signal.

use std::fs::File;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::Path;
use std::sync::Arc;

use flexfs_uring::harden::{self, Keep, Needs, Reach, User};
use flexfs_wire::tls::{self, ALPN_REST};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::app::App;
use crate::ca::{Ca, LEAF_LIFE};
use crate::cli::Start;
use crate::db::Db;
use crate::shown::{Certs, renew};
use crate::used::Used;
use crate::{expiry, init, metric, rest, serve, used};

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
        harden::tell_ready();
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
    let own = start.ssl_cert.as_deref().zip(start.ssl_key.as_deref());
    let certs = Arc::new(Certs::new(&ca, start.bind_addr.ip(), own)?);
    let listener = bind(start.bind_addr)?;
    let files = [&start.ssl_cert, &start.ssl_key].into_iter().flatten().cloned().collect();
    let reach = Reach { folders: vec![folder.to_owned()], files, ports: Vec::new() };
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
