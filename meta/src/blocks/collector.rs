//! Deletes blocks nobody needs: garbage whose retention is over, and strays that were put and never referred to.
//!
//! Strays are found in two phases: the folder is listed first, the table asked afterwards, so a block put in between is
//! in neither list; and only files older than the grace are looked at. Any error ends the round: nothing is deleted on
//! a guess.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crossbeam::channel::{Sender, bounded};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::BlockId;

use super::path::{self, Named};
use crate::clock;
use crate::volume::{ToVolume, Volume, Volumes};

/// Pause between two looks for garbage.
const GARBAGE_EVERY: Duration = Duration::from_secs(5);
/// Blocks deleted per question: bounds the volume thread's time.
const GARBAGE_COUNT: usize = 512;
/// Pause between two sweeps for strays.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);
/// Files younger than this are left alone by the sweep.
const GRACE: Duration = Duration::from_secs(900);
/// Files asked for at once.
const STRAYS_COUNT: usize = 1000;
/// A volume thread that does not answer within this is being closed.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Why a round was ended.
#[derive(Debug, thiserror::Error)]
enum CollectError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Namespace(#[from] Errno),
    #[error("the volume does not answer")]
    Silent,
}

/// Starts the thread. Lives as long as the process.
///
/// # Errors
/// No thread.
pub(crate) fn start(volumes: Arc<Volumes>) -> io::Result<()> {
    std::thread::Builder::new().name("collector".to_owned()).spawn(move || {
        let mut swept = None;
        loop {
            std::thread::sleep(GARBAGE_EVERY);
            let now = clock::now();
            let sweep = swept.is_none_or(|at| now.saturating_duration_since(at) >= SWEEP_EVERY);
            if sweep {
                swept = Some(now);
            }
            for volume in volumes.all() {
                let result = collect(&volume).and_then(|()| if sweep { sweep_strays(&volume) } else { Ok(()) });
                if let Err(error) = result {
                    tracing::warn!(volume = %volume.id, %error, "collecting blocks was interrupted; trying again later");
                }
            }
        }
    })?;
    Ok(())
}

fn collect(volume: &Volume) -> Result<(), CollectError> {
    loop {
        let garbage = ask(volume, |answer| ToVolume::Garbage { count: GARBAGE_COUNT, answer })?;
        let count = garbage.len();
        for &block in &garbage {
            remove(&path::file(&volume.blocks, block))?;
        }
        if count > 0 {
            metrics::counter!("flexfs_meta_blocks_collected", "volume" => volume.id.clone())
                .increment(count as u64);
            tracing::debug!(volume = %volume.id, count, "garbage blocks deleted");
            volume.send(ToVolume::Collected(garbage));
        }
        if count < GARBAGE_COUNT {
            return Ok(());
        }
    }
}

fn sweep_strays(volume: &Volume) -> Result<(), CollectError> {
    let mut count = 0;
    for entry in read_dir(&volume.blocks)? {
        let folder = entry?.path();
        if folder.is_dir() {
            count += sweep_folder(volume, &folder)?;
        }
    }
    if count > 0 {
        tracing::info!(volume = %volume.id, count, "stray blocks deleted: written by sessions that ended, never used");
    }
    Ok(())
}

fn sweep_folder(volume: &Volume, folder: &Path) -> Result<usize, CollectError> {
    let mut old = Vec::new();
    for entry in read_dir(folder)? {
        let entry = entry?;
        if !is_old(&entry.metadata()?)? {
            continue;
        }
        match entry.file_name().to_str().map_or(Named::Other, path::parse) {
            Named::Block(block) => old.push(block),
            Named::Fresh => remove(&entry.path())?,
            Named::Other => {}
        }
    }
    let mut count = 0;
    for asked in old.chunks(STRAYS_COUNT) {
        let strays = ask(volume, |answer| ToVolume::Strays { blocks: asked.to_vec(), answer })?;
        for block in strays {
            remove(&path::file(&volume.blocks, block))?;
            count += 1;
        }
    }
    Ok(count)
}

fn ask(
    volume: &Volume,
    question: impl FnOnce(Sender<Result<Vec<BlockId>, Errno>>) -> ToVolume,
) -> Result<Vec<BlockId>, CollectError> {
    let (answer, wait) = bounded(1);
    volume.send(question(answer));
    Ok(wait.recv_timeout(ANSWER_WAIT).map_err(|_| CollectError::Silent)??)
}

fn read_dir(folder: &Path) -> io::Result<Box<dyn Iterator<Item = io::Result<std::fs::DirEntry>>>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => Ok(Box::new(entries)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Box::new(std::iter::empty())),
        Err(error) => Err(error),
    }
}

fn is_old(metadata: &std::fs::Metadata) -> io::Result<bool> {
    let wall = clock::wall();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(wall.secs).unwrap_or(0));
    // A file from the future is left alone.
    Ok(now.duration_since(metadata.modified()?).is_ok_and(|age| age >= GRACE))
}

/// Removes a file; one that is gone is fine: an earlier round was interrupted behind it.
fn remove(file: &Path) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
