//! The thread of one volume: opens its engine, then works, in batches, on what cores leave to it, and on what is due by time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::channel::Sender;
use flexfs_uring::cpu;
use flexfs_wire::errno::Errno;
use flexfs_wire::hello::{Reason, Refused};
use flexfs_wire::id::Epoch;
use flexfs_wire::settings::{Compression, Flags, VolumeSettings};

use super::handle::Volume;
use super::host::{Host, Now, Start, keep_settings};
use super::message::ToVolume;
use super::outs::Cores;
use super::registry::Registry;
use crate::clock;
use crate::control::Control;
use crate::engine::fjall::{Fjall, Options};
use crate::engine::{Room, Store};
use crate::metrics::VolumeMetrics;
use crate::namespace::{Limits, Namespace, OpenError};

/// Messages worked on before answers are sent: bounds the wait of the first of them.
const BATCH_MAX: usize = 256;
/// The epoch of a start must be durable before a client hears of it; a disk that takes longer is broken.
const EPOCH_WAIT: Duration = Duration::from_secs(30);
/// Who asked for a volume that cannot be opened is told so for so long; a later one finds that it is broken.
const REFUSE_TIME: Duration = Duration::from_millis(100);

/// What every volume thread is given.
#[derive(Clone, Debug)]
pub(crate) struct Shop {
    /// Where sessions are found by links.
    pub(crate) registry: Arc<Registry>,
    /// Where answers go.
    pub(crate) cores: Cores,
    /// Stops the server when an engine fails.
    pub(crate) control: Control,
    /// Of the disk under all volumes.
    pub(crate) room: Room,
    /// Cut damaged journals.
    pub(crate) cut_journals: bool,
    /// CPUs the process may use.
    pub(crate) cpus: Vec<u32>,
}

/// One thread's beginning.
pub(super) struct Opening {
    pub(super) shop: Shop,
    pub(super) volume: Arc<Volume>,
    pub(super) folder: PathBuf,
    /// Settings, when admin was asked; else those kept with the volume.
    pub(super) settings: Option<VolumeSettings>,
    /// Told whether the volume could be opened.
    pub(super) ready: Sender<Result<(), String>>,
}

/// Whatever the thread ends with, nobody waits for it any more.
struct Closing(Arc<Volume>);

impl Drop for Closing {
    fn drop(&mut self) {
        drop(self.0.inbox.close());
    }
}

/// Runs until the volume is told to stop.
pub(super) fn run(opening: Opening) {
    let Opening { shop, volume, folder, settings, ready } = opening;
    volume.inbox.adopt();
    let closing = Closing(volume.clone());
    // A core that makes it may be on a CPU of its own, where this thread and those of the engine have no business.
    if let Err(error) = cpu::allow(&shop.cpus) {
        tracing::warn!(volume = %volume.id, %error, "the volume's thread stays on the CPUs it was made on");
    }
    match open(&shop, &volume, &folder, settings) {
        Ok(host) => volume.inbox.open(host),
        Err(cause) => {
            tracing::error!(volume = %volume.id, cause, "the volume cannot be opened");
            volume.broken.store(true, Ordering::Release);
            let _ = ready.send(Err(cause.clone()));
            refuse_all(&volume, &cause);
            return;
        }
    }
    // The one who waits may have given up.
    let _ = ready.send(Ok(()));
    drop(ready);
    let stopped = serve(&volume);
    let host = volume.inbox.close();
    drop(closing);
    match stopped {
        Ok(done) => {
            if let Some(host) = host
                && let Err(errno) = host.namespace.close()
            {
                tracing::error!(volume = %volume.id, %errno, "the engine did not close in order");
            }
            drop(done);
        }
        Err(Errno::ENOSPC) => shop.control.fail(format!("volume {}: {}", volume.id, shop.room.shortage())),
        Err(errno) => {
            shop.control.fail(format!(
                "volume {}: the engine failed ({errno}); look at the disk and the lines above, then start again: \
                 clients replay what was not durable",
                volume.id
            ));
        }
    }
}

/// Works until the volume is told to stop; gives back whom to tell when the engine has ended.
fn serve(volume: &Volume) -> Result<Option<Sender<()>>, Errno> {
    let metrics = VolumeMetrics::new(&volume.id);
    loop {
        let mut taken = volume.inbox.take()?;
        let Some(desk) = taken.as_mut() else { return Ok(None) };
        let now = Now::read();
        let mut batch = 0;
        while batch < BATCH_MAX
            && desk.host.stopped.is_none()
            && let Some(message) = volume.inbox.pop()
        {
            desk.handle(message, now)?;
            batch += 1;
        }
        desk.host.tick(now)?;
        desk.report(&metrics, now.mono);
        if let Some(done) = desk.host.stopped.take() {
            return Ok(Some(done));
        }
        let long = desk.rest(clock::now());
        drop(taken);
        volume.inbox.sleep(long);
    }
}

fn open(
    shop: &Shop,
    volume: &Arc<Volume>,
    folder: &Path,
    settings: Option<VolumeSettings>,
) -> Result<Host<Fjall>, String> {
    let db = folder.join("db");
    if !db.exists() && shop.room.is_short() {
        return Err(shop.room.shortage());
    }
    std::fs::create_dir_all(&volume.blocks)
        .map_err(|error| format!("{}: {error}", volume.blocks.display()))?;
    let room = Some(shop.room.clone());
    let options = Options { room, cut_journal: shop.cut_journals, ..Options::default() };
    let store = Fjall::open(&db, options).map_err(|error| error.to_string())?;
    let nudge = volume.clone();
    store.durable().listen(move |_| {
        // One message on its way is enough; the thread clears the flag before it looks.
        if !nudge.nudged.swap(true, Ordering::AcqRel) {
            nudge.send(ToVolume::Durable);
        }
    });
    let limits = Limits::new(flexfs_wire::limits::BLOCK_BYTES_DEFAULT, 0, 0);
    let broken = |errno: Errno| broken(&shop.room, errno);
    let mut namespace = Namespace::open(store, limits, clock::wall()).map_err(|error| match error {
        OpenError::Engine(errno) => broken(errno),
        format @ OpenError::Format { .. } => format.to_string(),
    })?;
    let kept = kept_settings(&namespace, &volume.id).map_err(broken)?;
    let settings = match settings {
        Some(settings) if settings != kept => {
            keep_settings(&mut namespace, &settings).map_err(broken)?;
            settings
        }
        _ => kept,
    };
    let seal_key = seal_key(&mut namespace, broken)?;
    let epoch = raise_epoch(&mut namespace, |_| {}).map_err(broken)?;
    let start = Start {
        volume: volume.clone(),
        namespace,
        registry: shop.registry.clone(),
        settings,
        cores: shop.cores.clone(),
        seal_key,
        epoch,
        room: shop.room.clone(),
    };
    Host::new(start, Now::read()).map_err(broken)
}

/// The settings of the last run; of a volume that was never opened, none that matter.
fn kept_settings<S: Store>(namespace: &Namespace<S>, id: &str) -> Result<VolumeSettings, Errno> {
    let kept = namespace.kept("settings")?;
    Ok(kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_else(|| VolumeSettings {
        id: id.to_owned(),
        name: String::new(),
        block_size: flexfs_wire::limits::BLOCK_BYTES_DEFAULT,
        compression: Compression::default(),
        max_blocks: 0,
        max_inodes: 0,
        // Until admin says otherwise nothing is thrown away.
        retention: -1,
        flags: Flags::default(),
        encrypted: false,
    }))
}

/// The volume's secret for node handles; made once.
fn seal_key<S: Store>(
    namespace: &mut Namespace<S>,
    broken: impl Fn(Errno) -> String,
) -> Result<[u8; 16], String> {
    if let Some(kept) = namespace.kept("seal key").map_err(&broken)? {
        return kept.as_slice().try_into().map_err(|_| "the kept seal key is damaged".to_owned());
    }
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(|error| format!("no randomness: {error}"))?;
    // Durable with the first session's record, which is a later commit.
    namespace.keep("seal key", key.to_vec()).map_err(broken)?;
    Ok(key)
}

fn broken(room: &Room, errno: Errno) -> String {
    match errno {
        Errno::ENOSPC => room.shortage(),
        errno => format!("the database cannot be read or written: {errno}"),
    }
}

/// Counts the starts of the volume, durably; `push` may help the engine with that.
pub(super) fn raise_epoch<S: Store>(
    namespace: &mut Namespace<S>,
    push: impl FnOnce(&mut Namespace<S>),
) -> Result<Epoch, Errno> {
    let kept = namespace.kept("epoch")?.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    let epoch = kept + 1;
    let commit = namespace.keep("epoch", epoch.to_le_bytes().to_vec())?;
    push(namespace);
    if namespace.durable().wait(commit, EPOCH_WAIT) { Ok(Epoch(epoch)) } else { Err(Errno::EIO) }
}

/// The volume could not be opened: who asked for it already is told so.
fn refuse_all(volume: &Volume, cause: &str) {
    let until = clock::now() + REFUSE_TIME;
    loop {
        match volume.inbox.pop() {
            Some(ToVolume::Open(open)) => {
                let text = format!("the metadata server cannot open the volume: {cause}");
                let _ = open.answer.send(Err(Refused { reason: Reason::Server, text }));
            }
            Some(_) => {}
            None => {
                let left = until.saturating_duration_since(clock::now());
                if left.is_zero() {
                    return;
                }
                volume.inbox.sleep(left);
            }
        }
    }
}
