//! Room on the disk under the databases, and a reserve of it.
//!
//! An engine that meets a full disk in the middle of a write is lost until it is opened anew. So commits are refused while
//! there is still room for its journals and compactions; and a preallocated file holds some of that room against everybody
//! else who writes to the disk. When the disk gets full the file is deleted: what frees space, and sessions, go on with it.
//!
//! ```text
//! free + held >= ORDINARY   every commit
//! below                     the reserve is given up; only vital commits, until less than VITAL is free
//! ```

use std::fs::File;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FallocateFlags, fallocate};

/// Bytes, free or held, below which only vital commits are taken.
const ORDINARY_BYTES: u64 = 256 << 20;
/// Bytes that end a shortage: more than begin it, or every freed megabyte would be given and taken again.
const ENOUGH_BYTES: u64 = ORDINARY_BYTES + (64 << 20);
/// Free bytes below which nothing is taken: room for a journal (64 MiB) and the tables written from one.
const VITAL_BYTES: u64 = 96 << 20;
/// Size of the reserve: without it a disk somebody filled to the last byte would leave nothing for vital commits.
const RESERVE_BYTES: u64 = ORDINARY_BYTES - VITAL_BYTES;
/// Name of the reserve in its folder.
const RESERVE_FILE: &str = "reserve";
/// For people.
const MIB: u64 = 1 << 20;

/// What the disk under a folder can still take. One for all databases of a server; cheap to clone.
#[derive(Clone, Debug)]
pub struct Room(Arc<Disk>);

#[derive(Debug)]
struct Disk {
    folder: PathBuf,
    free: AtomicU64,
    held: AtomicU64,
    short: AtomicBool,
    /// One measures at a time. Inside: whether the file system can hold a reserve.
    turn: Mutex<bool>,
}

impl Room {
    /// Measures the disk under `folder` and takes the reserve, as far as there is room for it.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let held = std::fs::metadata(folder.join(RESERVE_FILE)).map_or(0, |file| file.blocks() * 512);
        let room = Self(Arc::new(Disk {
            folder: folder.into(),
            free: u64::MAX.into(),
            held: held.into(),
            short: false.into(),
            turn: Mutex::new(true),
        }));
        room.measure();
        room
    }

    /// Of a disk that never gets full: for engines in memory.
    #[must_use]
    pub fn endless() -> Self {
        Self(Arc::new(Disk {
            folder: PathBuf::new(),
            free: u64::MAX.into(),
            held: 0.into(),
            short: false.into(),
            turn: Mutex::new(false),
        }))
    }

    /// Looks at the disk; gives the reserve up or takes it again. Some microseconds.
    pub fn measure(&self) {
        let mut can_hold = self.0.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(free) = free_bytes(&self.0.folder) else { return };
        self.0.free.store(free, Ordering::Relaxed);
        let room = free.saturating_add(self.held_bytes());
        let was_short = self.is_short();
        if !was_short && room < ORDINARY_BYTES {
            self.0.short.store(true, Ordering::Relaxed);
            self.give_up();
            tracing::warn!("{}", self.shortage());
        } else if was_short && room >= ENOUGH_BYTES {
            self.0.short.store(false, Ordering::Relaxed);
            tracing::info!(folder = %self.0.folder.display(), free_mib = free / MIB, "the disk has room again");
        }
        if *can_hold && !self.is_short() && room >= ENOUGH_BYTES && self.held_bytes() < RESERVE_BYTES {
            *can_hold = self.hold();
        }
    }

    /// Whether a commit may be made.
    #[must_use]
    pub fn takes(&self, vital: bool) -> bool {
        if vital { self.0.free.load(Ordering::Relaxed) >= VITAL_BYTES } else { !self.is_short() }
    }

    /// Whether only vital commits are taken.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.0.short.load(Ordering::Relaxed)
    }

    /// Free bytes of the disk, the reserve not counted.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.0.free.load(Ordering::Relaxed)
    }

    /// Bytes of the reserve.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Bytes that files may still take before commits are refused.
    #[must_use]
    pub fn usable_bytes(&self) -> u64 {
        if self.is_short() {
            return 0;
        }
        self.free_bytes().saturating_add(self.held_bytes()).saturating_sub(ORDINARY_BYTES)
    }

    /// What is wrong and what to do, for operators and for clients that are refused.
    #[must_use]
    pub fn shortage(&self) -> String {
        format!(
            "the metadata server's disk is full: {} MiB are free under {}, {} MiB are needed to write and {} MiB to mount \
             and to delete; delete files on the volume, or free or add space on that disk",
            self.free_bytes() / MIB,
            self.0.folder.display(),
            ORDINARY_BYTES / MIB,
            VITAL_BYTES / MIB
        )
    }

    /// Takes the reserve. False when this file system cannot do it.
    fn hold(&self) -> bool {
        let path = self.0.folder.join(RESERVE_FILE);
        let options = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let held = options.and_then(|file| Ok(fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES)?));
        match held {
            Ok(()) => {
                self.0.held.store(RESERVE_BYTES, Ordering::Relaxed);
                self.0.free.store(free_bytes(&self.0.folder).unwrap_or(0), Ordering::Relaxed);
                true
            }
            Err(error) => {
                tracing::info!(file = %path.display(), %error, "no reserve can be held on this disk");
                self.give_up();
                error.kind() == std::io::ErrorKind::StorageFull
            }
        }
    }

    fn give_up(&self) {
        match std::fs::remove_file(self.0.folder.join(RESERVE_FILE)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::error!(folder = %self.0.folder.display(), %error, "the reserve cannot be given up");
            }
            _ => self.0.held.store(0, Ordering::Relaxed),
        }
        self.0.free.store(free_bytes(&self.0.folder).unwrap_or(0), Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn pretend(&self, free: u64) {
        self.0.free.store(free, Ordering::Relaxed);
        self.0.short.store(free < ORDINARY_BYTES, Ordering::Relaxed);
    }
}

fn free_bytes(path: &Path) -> Option<u64> {
    let figures = rustix::fs::statvfs(path).ok()?;
    Some(figures.f_bavail.saturating_mul(figures.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_a_reserve_and_gives_it_up() {
        let folder = tempfile::tempdir().unwrap();
        let room = Room::new(folder.path());
        assert!(room.takes(false) && room.takes(true), "the tests need {} MiB", ENOUGH_BYTES / MIB);
        let file = folder.path().join(RESERVE_FILE);
        assert_eq!(std::fs::metadata(&file).unwrap().len(), RESERVE_BYTES);
        assert_eq!(room.held_bytes(), RESERVE_BYTES);
        assert!(Room::new(folder.path()).held_bytes() >= RESERVE_BYTES, "it is found again");
        room.give_up();
        assert!(!file.exists() && room.held_bytes() == 0);
        room.measure();
        assert!(file.exists(), "there is room: it is taken again");
    }

    #[test]
    fn a_shortage_takes_what_is_vital_only() {
        let folder = tempfile::tempdir().unwrap();
        let room = Room::new(folder.path());
        for (free, ordinary, vital) in
            [(ORDINARY_BYTES, true, true), (ORDINARY_BYTES - 1, false, true), (VITAL_BYTES - 1, false, false)]
        {
            room.pretend(free);
            assert_eq!((room.takes(false), room.takes(true)), (ordinary, vital), "{free}");
        }
        assert_eq!(room.usable_bytes(), 0);
        assert!(room.shortage().contains("disk is full: 95 MiB are free"), "{}", room.shortage());
    }
}
