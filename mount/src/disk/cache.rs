//! The cache as the store sees it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::channel::{Sender, bounded};
use flexfs_uring::file::File;
use flexfs_uring::timer::timeout;
use flexfs_wire::id::BlockId;
use flexfs_wire::message::Segment;
use rustix::io::Errno;

use super::figures::Figures;
use super::filler::{Fill, Filler, Work};
use super::folder::{Folder, OPEN, OpenError};
use super::index::Found;
use super::shared::{Shared, State};
use super::slot::{self, HEADER_BYTES, PAGE, SlotError};
use crate::config::Capacity;
use crate::wait::all;

/// Least quota in bytes: two blocks of the largest size.
const QUOTA_MIN: u64 = 20 << 20;
/// Part of the quota that files in plain form may take: one in this many.
const PLAIN_PART: u64 = 2;
/// How long a read of the disk may take before the server is asked: longer than a disk that is only busy takes.
const READ_MAX: Duration = Duration::from_millis(500);
/// Segments that wait for the filler; beyond it they are not cached. 34 MiB of memory at most.
const WORK_MAX: usize = 512;

/// What the person asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Folder for the caches of all volumes.
    pub folder: PathBuf,
    /// Most bytes of this mount's cache, or part of the folder's file system.
    pub quota: Capacity,
    /// Whole files in plain form may be of use: nothing in the volume can change, and it is not encrypted.
    pub keeps_plain: bool,
}

/// The disk cache of a mount. Any core may call; reading happens on the shard that calls.
#[derive(Debug)]
pub struct Disk {
    shared: Arc<Shared>,
    work: Sender<Work>,
    /// Holds the lock.
    _lock: fs::File,
}

/// A segment that was read from the disk: it says that it is the one, and is still to be verified.
#[derive(Debug)]
pub(crate) struct Piece {
    /// What its block's index says of it.
    pub(crate) segment: Segment,
    slot: Vec<u8>,
}

impl Piece {
    /// Its stored bytes.
    pub(crate) fn stored(&self) -> &[u8] {
        &self.slot[HEADER_BYTES..HEADER_BYTES + self.segment.stored_bytes as usize]
    }
}

impl Disk {
    /// Opens the cache of a volume, whose id is a UUID, for `owner` (process and mount point, for people). What an earlier
    /// mount left is found in the background.
    ///
    /// # Errors
    /// [`OpenError`], for the person.
    pub fn open(settings: &Settings, volume: &str, owner: &str) -> Result<Arc<Self>, OpenError> {
        let id = uuid::Uuid::parse_str(volume).map_err(|_| OpenError::Volume(volume.to_owned()))?;
        let (folder, lock) = Folder::claim(&settings.folder, &id.hyphenated().to_string(), owner)?;
        let path = folder.path().to_owned();
        let failed = |source| OpenError::Io { folder: path.clone(), source };
        let quota = match settings.quota {
            Capacity::Bytes(bytes) => bytes,
            Capacity::Percent(percent) => folder.room().map_err(failed)?.0 / 100 * u64::from(percent),
        };
        if quota < QUOTA_MIN {
            return Err(OpenError::Quota { bytes: quota, min: QUOTA_MIN });
        }
        let shared = Arc::new(Shared::new(folder, id.into_bytes(), quota, settings.keeps_plain));
        if settings.keeps_plain {
            shared.plain.store(shared.folder.plain_bytes(), Ordering::Relaxed);
        }
        let (work, receiver) = bounded(WORK_MAX);
        let filler = Filler::new(Arc::clone(&shared));
        std::thread::Builder::new()
            .name("disk-cache".to_owned())
            .spawn(move || filler.run(&receiver))
            .map_err(failed)?;
        Ok(Arc::new(Self { shared, work, _lock: lock }))
    }

    /// Reads segments `first ..` of a block, `count` of them: those that are here. Takes [`READ_MAX`] at most.
    pub(crate) async fn read(&self, block: BlockId, first: u32, count: usize) -> Vec<Option<Piece>> {
        let absent = || std::iter::repeat_with(|| None).take(count).collect();
        if !self.shared.is_readable() {
            return absent();
        }
        let found = self.shared.index.find(block, first, count);
        if found.is_empty() {
            return absent();
        }
        match timeout(READ_MAX, self.read_found(block, first, found)).await {
            Ok(pieces) => pieces,
            Err(_) => {
                self.shared.counters.failed_reads.add(1);
                self.shared.pass_by();
                absent()
            }
        }
    }

    async fn read_found(&self, block: BlockId, first: u32, found: Found) -> Vec<Option<Piece>> {
        let Found { pages, file } = found;
        let file = match file {
            Some(file) => Some(file),
            None => self.open_file(block).await,
        };
        let Some(file) = file else { return pages.iter().map(|_| None).collect() };
        let file = &file;
        let read = |(number, pages): (u32, u8)| async move {
            if pages == 0 { None } else { self.read_slot(file, block, number, pages).await }
        };
        all((first..).zip(pages).map(read)).await
    }

    async fn open_file(&self, block: BlockId) -> Option<File> {
        match File::open(&self.shared.folder.file(block), OPEN, 0).await {
            Ok(file) => {
                self.shared.index.keep_open(block, &file);
                Some(file)
            }
            Err(error) => {
                self.handle_failed(block, &error);
                None
            }
        }
    }

    async fn read_slot(&self, file: &File, block: BlockId, number: u32, pages: u8) -> Option<Piece> {
        let wanted = usize::from(pages) * PAGE;
        let (read, slot) = file.read_exact_at(self.shared.buffer(), wanted, slot::offset(number)).await;
        match read {
            Ok(()) => {}
            // The last page of the file is seldom whole. The header says whether what there is is enough.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
            Err(error) => {
                self.handle_failed(block, &error);
                return None;
            }
        }
        match slot::parse(&self.shared.volume, block, number, &slot) {
            Ok(segment) => return Some(Piece { segment, slot }),
            // A file system that does not tell holes from zeros, or another file in this one's place by now.
            Err(SlotError::Empty) => self.shared.index.clear(block, number),
            Err(error) => self.condemn(block, number, &error),
        }
        self.shared.recycle(slot);
        None
    }

    fn handle_failed(&self, block: BlockId, error: &std::io::Error) {
        self.shared.counters.failed_reads.add(1);
        match Errno::from_io_error(error) {
            // Evicted meanwhile, or removed by somebody else; no descriptor or memory at the moment.
            Some(Errno::NOENT) => self.shared.drop_later(block),
            Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::INTR | Errno::CANCELED) => {}
            _ => self.shared.fail("read a file", error),
        }
    }

    /// A piece was verified and used.
    pub(crate) fn accept(&self, piece: Piece) {
        self.shared.counters.hits.add(1);
        self.shared.recycle(piece.slot);
    }

    /// A piece did not hold what it said, `why`.
    pub(crate) fn refuse(&self, block: BlockId, number: u32, piece: Piece, why: &dyn std::fmt::Display) {
        self.condemn(block, number, why);
        self.shared.recycle(piece.slot);
    }

    /// A segment came from the server and was verified: it is added when there is time.
    pub(crate) fn offer(&self, block: BlockId, number: u32, segment: &Segment, stored: &[u8]) {
        let shared = &self.shared;
        shared.counters.misses.add(1);
        if shared.state() == State::Off || self.work.is_full() {
            shared.counters.left_out.add(1);
            return;
        }
        if shared.index.contains(block, number) {
            return;
        }
        let mut slot = shared.buffer();
        slot::write(&shared.volume, block, number, segment, stored, &mut slot);
        if let Err(refused) = self.work.try_send(Work::Fill(Fill { block, number, slot })) {
            shared.counters.left_out.add(1);
            if let Work::Fill(fill) = refused.into_inner() {
                shared.recycle(fill.slot);
            }
        }
    }

    /// A segment is damaged, `why`: its block is fetched again.
    fn condemn(&self, block: BlockId, segment: u32, why: &dyn std::fmt::Display) {
        self.shared.condemn(block, segment, why);
        // In a full queue the filler finds it behind what it does just now.
        let _ = self.work.try_send(Work::Drop);
    }

    /// Where whole files in plain form belong.
    pub(crate) fn plain_folder(&self) -> PathBuf {
        self.shared.folder.plain()
    }

    /// UUID of the volume.
    pub(crate) fn volume(&self) -> [u8; 16] {
        self.shared.volume
    }

    /// Most bytes that files in plain form may take: half of the quota, and none more where the file system is full.
    pub(crate) fn plain_max(&self) -> u64 {
        if matches!(self.shared.state(), State::On | State::Scanning) {
            self.shared.quota / PLAIN_PART
        } else {
            0
        }
    }

    /// They take so many bytes now, or soon. Blocks are evicted for them.
    pub(crate) fn set_plain(&self, bytes: u64) {
        self.shared.plain.store(bytes, Ordering::Relaxed);
        // In a full queue the filler sees it behind what it does just now.
        let _ = self.work.try_send(Work::Drop);
    }

    /// Whether all of it is within the quota.
    pub(crate) fn is_within(&self) -> bool {
        self.shared.state() == State::On && self.shared.held() <= self.shared.quota
    }

    /// For `status`.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let Shared { folder, quota, index, counters, .. } = &*self.shared;
        Figures {
            folder: folder.path().to_owned(),
            state: match self.shared.state() {
                State::Scanning => "scanning",
                State::On => "on",
                State::Full => "full",
                State::Off => "off",
            },
            quota_bytes: *quota,
            held_bytes: self.shared.held(),
            blocks: index.count(),
            hits: counters.hits.get(),
            misses: counters.misses.get(),
            added: counters.added.get(),
            left_out: counters.left_out.get(),
            evicted: counters.evicted.get(),
            damaged: counters.damaged.get(),
            failed_reads: counters.failed_reads.get(),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The filler does not go on in a folder that may be another mount's by then.
        self.shared.set_state(State::Off);
    }
}
