//! The whole server, put together: started, run until told to stop, ended in order.

use std::fs::{File, TryLockError};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use flexfs_uring::cpu;
use flexfs_uring::harden::{self, Keep, Needs, Reach, User};
use flexfs_wire::creds::Creds;
use flexfs_wire::creds_file;
use flexfs_wire::token::TokenKind;
use tokio::sync::mpsc::{self, UnboundedReceiver};

use crate::auth::{
    Admin, AdminError, AdminHttp, Authority, CertificateError, Identity, Pool, Source, renew_forever,
};
use crate::config::Config;
use crate::control::{Control, Ending, control};
use crate::engine::Room;
use crate::guard::Guard;
use crate::net::{self, Common};
use crate::volume::{CoreHandle, Cores, Registry, Shop, ToCore, Volumes};
use crate::{blocks, events, front, metrics};

/// Pause between tries to get a first certificate while admin is away.
const ADMIN_PAUSE: Duration = Duration::from_secs(2);
/// Time for the cores to send their last bytes.
const CORES_WAIT: Duration = Duration::from_secs(5);

/// Runs a server until SIGTERM, SIGINT or a failure.
///
/// # Errors
/// It could not start, or could not go on; the text says what to do.
pub(crate) fn run(config: &Config) -> Result<()> {
    let Prepared { _lock, creds, metrics, listeners } = prepare(config)?;
    let (control, endings) = control();
    let signals = signals(control.clone())?;
    let ready = Arc::new(AtomicBool::new(false));
    let metrics_addr = metrics::serve(metrics, ready.clone())?;
    let bound = listeners.first().map_or(Ok(config.bind_addr), TcpListener::local_addr)?;
    let http = Arc::new(AdminHttp::new(&creds));
    let identity = identity(config, &http, creds.token.ca_pin)?;
    let authority: Arc<dyn Authority> = Arc::new(Admin::new(http.clone()));

    let cpus = cpu::allowed().unwrap_or_default();
    let (cores, inboxes) = cores(&cpus, listeners.len());
    let registry = Arc::new(Registry::default());
    let shop = Shop {
        registry: registry.clone(),
        cores: cores.clone(),
        control: control.clone(),
        room: Room::new(&config.db_folder),
        cut_journals: config.cut_journals,
        cpus: cpus.clone(),
    };
    let volumes = Arc::new(Volumes::new(config.db_folder.join("volumes"), shop));
    let found = volumes.start_found()?;
    let pool = Pool::start(&authority)?;
    let common = Arc::new(Common {
        tls: identity.server_config(),
        pin: creds.token.ca_pin,
        pool: pool.clone(),
        registry,
        volumes: volumes.clone(),
        guard: Guard::default(),
        cores: cores.clone(),
        cpus,
    });
    let threads = start_cores(&common, listeners, inboxes, &control)?;
    events::follow(http.clone(), pool, volumes.clone())?;
    renew_forever(identity, http.clone())?;
    blocks::start_collector(volumes.clone())?;
    tracing::info!(
        addr = %bound, metrics = %metrics_addr, admin = http.addr(), cores = threads.len(), volumes = found,
        db = %config.db_folder.display(), version = env!("CARGO_PKG_VERSION"), "meta.flexfs is ready"
    );
    ready.store(true, Ordering::Release);
    harden::tell_ready();
    let ending = endings.wait();
    drop(signals);
    stop(&volumes, &cores, threads);
    match ending {
        Ending::Signal(name) => {
            tracing::info!(signal = name, "meta.flexfs has ended");
            Ok(())
        }
        Ending::Failed(cause) => Err(anyhow!(cause)),
    }
}

/// What is taken while the process may still do so.
struct Prepared {
    _lock: File,
    creds: Creds,
    metrics: TcpListener,
    listeners: Vec<TcpListener>,
}

/// Takes folder, credentials and ports, and gives up what is not needed from then on. Before any other thread, for threads
/// inherit it.
fn prepare(config: &Config) -> Result<Prepared> {
    raise_descriptors();
    let user = config.user.as_deref().map(User::find).transpose()?;
    let folders = vec![config.db_folder.clone(), config.cert_folder.clone()];
    if let Some(user) = &user {
        folders.iter().try_for_each(|folder| user.take(folder))?;
    }
    let lock = lock(&config.db_folder, user.as_ref())?;
    let creds = creds_file::load(TokenKind::Meta, &config.creds_file)?;
    let metrics = metrics::listen(config.metrics_addr)?;
    let listeners = listen(config.bind_addr, config.cores)?;
    // Only what exists can be kept in reach.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.cert_folder)
        .with_context(|| format!("the certificate folder {} cannot be used", config.cert_folder.display()))?;
    let files = config.own_certificate.iter().flat_map(|own| [own.cert.clone(), own.key.clone()]).collect();
    let reach = Reach { folders, files, ports: vec![creds.admin_addr.port()] };
    let in_force = harden::give_up(&Needs { user, keep: Keep::Files, reach: Some(reach) })?;
    tracing::info!("given up what is not needed: {in_force}");
    Ok(Prepared { _lock: lock, creds, metrics, listeners })
}

/// Every link is a descriptor, and the usual soft limit is 1024.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, current = ?limit.current, "the limit of open files could not be raised");
    }
}

/// Takes the database folder for this process; `user` is who will own it.
///
/// # Errors
/// Another process has it.
pub(crate) fn lock(folder: &Path, user: Option<&User>) -> Result<File> {
    let make = || -> std::io::Result<File> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let path = folder.join("lock");
        let file = File::options().write(true).create(true).truncate(false).open(&path)?;
        // It must be able to take it without root, too.
        user.map_or(Ok(()), |user| user.own(&path)).map(|()| file)
    };
    let file = make().with_context(|| format!("the database folder {} cannot be used", folder.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "{} is in use by another meta.flexfs; stop that one first, or name another folder with --dbFolder",
            folder.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{} cannot be locked", folder.join("lock").display()))
        }
    }
}

fn listen(addr: SocketAddr, cores: usize) -> Result<Vec<TcpListener>> {
    front::listen(addr, cores.max(1)).map_err(|error| {
        if error.kind() == std::io::ErrorKind::AddrInUse {
            anyhow!(
                "{addr} is in use by another program; stop it (`ss -ltnp` shows which), or choose another address \
                 with --bindAddr"
            )
        } else {
            anyhow!("cannot listen on {addr}: {error}; is it an address of this machine?")
        }
    })
}

/// The certificate; waits for admin when there is none yet and admin is away.
fn identity(
    config: &Config,
    http: &AdminHttp,
    pin: flexfs_wire::token::CaPin,
) -> Result<Arc<Identity>, CertificateError> {
    let source = match &config.own_certificate {
        Some(files) => Source::Own(files.clone()),
        None => Source::Admin(config.cert_folder.clone()),
    };
    let mut told = false;
    loop {
        match Identity::obtain(&source, http, pin) {
            Err(CertificateError::Admin(error @ AdminError::Unreachable { .. })) => {
                if !told {
                    told = true;
                    tracing::warn!(%error, "waiting for admin: this server has no certificate yet");
                }
                std::thread::sleep(ADMIN_PAUSE);
            }
            other => return other,
        }
    }
}

/// The cores of a process that may use these CPUs.
fn cores(cpus: &[u32], count: usize) -> (Cores, Vec<UnboundedReceiver<ToCore>>) {
    let (handles, inboxes): (Vec<_>, Vec<_>) = net::homes(cpus, count)
        .into_iter()
        .map(|home| {
            let (inbox, receiver) = mpsc::unbounded_channel();
            (CoreHandle { inbox, load: AtomicUsize::new(0), home }, receiver)
        })
        .unzip();
    (handles.into(), inboxes)
}

fn start_cores(
    common: &Arc<Common>,
    listeners: Vec<TcpListener>,
    inboxes: Vec<UnboundedReceiver<ToCore>>,
    control: &Control,
) -> Result<Vec<JoinHandle<()>>> {
    (0..)
        .zip(listeners.into_iter().zip(inboxes))
        .map(|(index, (listener, inbox))| {
            let (common, control) = (common.clone(), control.clone());
            let thread = std::thread::Builder::new().name(format!("core-{index}")).spawn(move || {
                if let Err(error) = net::run(index, common, listener, inbox) {
                    control.fail(format!(
                        "core {index} cannot run: {error}; io_uring must be allowed (sysctl kernel.io_uring_disabled=0, \
                         and a seccomp profile that permits it)"
                    ));
                }
            });
            thread.context("no thread for a core")
        })
        .collect()
}

/// Turns SIGTERM and SIGINT into an ending, from now on and on a thread of its own.
fn signals(control: Control) -> Result<JoinHandle<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut term, mut int) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let name = runtime.block_on(async {
            tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = int.recv() => "SIGINT",
            }
        });
        control.stop(name);
        // A second signal means: now.
        runtime.block_on(async {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
        });
        std::process::exit(1);
    })?;
    Ok(thread)
}

/// Engines first: they say goodbye on every link and make everything durable. Then the cores.
fn stop(volumes: &Volumes, cores: &Cores, threads: Vec<JoinHandle<()>>) {
    if !volumes.stop() {
        tracing::error!("a volume did not end in time; what was not durable is replayed by clients");
    }
    for core in cores.iter() {
        // One that ended already needs no word.
        let _ = core.inbox.send(ToCore::Stop);
    }
    let deadline = crate::clock::now() + CORES_WAIT;
    for thread in threads {
        while !thread.is_finished() && crate::clock::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
