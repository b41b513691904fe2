//! One of the two mounts, what is kept open on it, and steps done to it by system calls.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use vm_memory::{Bytes as _, FileOffset, MmapRegion, VolatileMemory as _};

use super::model::{Id, Model, Place};
use super::step::{Flags, Step, Target, XattrMode};

/// Most files one mount keeps open.
const HANDS_MAX: usize = 8;

/// A file kept open for reading and writing.
pub(super) struct Hand {
    pub(super) id: Id,
    pub(super) file: File,
    /// Opened with `O_APPEND`.
    pub(super) append: bool,
    pub(super) map: Option<Map>,
}

/// A shared, writable mapping of a file from its start on.
pub(super) struct Map {
    region: MmapRegion,
    pub(super) bytes: usize,
}

impl Map {
    /// Maps the first `bytes` of a file that has as many.
    pub(super) fn new(file: &File, bytes: usize) -> Self {
        let start = FileOffset::new(file.try_clone().unwrap(), 0);
        Self { region: MmapRegion::from_file(start, bytes).unwrap(), bytes }
    }

    /// Bytes of the mapping. Must lie in the file as this mount knows it, else the process dies of SIGBUS.
    pub(super) fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.region.as_volatile_slice().read_slice(&mut bytes, offset).unwrap();
        bytes
    }

    /// Changes bytes of the mapping, under the same condition.
    pub(super) fn write(&self, offset: usize, bytes: &[u8]) {
        self.region.as_volatile_slice().write_slice(bytes, offset).unwrap();
    }
}

/// A mount.
pub(super) struct Side {
    /// For messages.
    pub(super) name: &'static str,
    root: PathBuf,
    pub(super) hands: Vec<Hand>,
    /// Directories kept open.
    pub(super) folders: Vec<(Id, OwnedFd)>,
}

impl Side {
    /// A mount on which the test works below `root`.
    pub(super) fn new(name: &'static str, root: PathBuf) -> Self {
        Self { name, root, hands: Vec::new(), folders: Vec::new() }
    }

    pub(super) fn dir(&self, model: &Model, dir: Id) -> PathBuf {
        self.root.join(model.path(dir))
    }

    pub(super) fn path(&self, model: &Model, place: &Place) -> PathBuf {
        self.dir(model, place.dir).join(place.name)
    }

    /// Keeps a file open; another is closed when there are too many.
    pub(super) fn keep(&mut self, hand: Hand, victim: usize) {
        if self.hands.len() >= HANDS_MAX {
            self.hands.remove(victim % HANDS_MAX);
        }
        self.hands.push(hand);
    }

    /// A file that is open on this mount.
    pub(super) fn hand_of(&self, id: Id) -> Option<&Hand> {
        self.hands.iter().find(|hand| hand.id == id)
    }

    fn open(&self, model: &Model, target: &Target, flags: OFlags) -> Result<Opened<'_>, Errno> {
        match target {
            Target::Hand { index, .. } => Ok(Opened::Kept(&self.hands[*index])),
            Target::Path(place) => Ok(Opened::Now(open(&self.path(model, place), flags)?)),
        }
    }

    /// Does a step; a file that stays open comes back.
    pub(super) fn act(&mut self, model: &Model, step: &Step) -> Result<Option<File>, Errno> {
        match step {
            Step::Create { at, excl, trunc, keep, append } => {
                let mut flags = OFlags::CREATE | OFlags::RDWR;
                flags.set(OFlags::EXCL, *excl);
                flags.set(OFlags::TRUNC, *trunc);
                flags.set(OFlags::APPEND, *append);
                let file = open(&self.path(model, at), flags)?;
                return Ok(keep.then_some(file));
            }
            Step::Write { file, offset, fill } => {
                let file = self.open(model, file, OFlags::WRONLY)?;
                file.write(&fill.bytes(), *offset)?;
            }
            Step::Append { file, fill } => {
                let file = self.open(model, file, OFlags::WRONLY | OFlags::APPEND)?;
                // Linux: with O_APPEND the offset counts for nothing.
                file.write(&fill.bytes(), 0)?;
            }
            Step::Map { file, offset, fill } => {
                let file = self.open(model, file, OFlags::RDWR)?;
                write_mapped(&file, *offset, &fill.bytes())?;
            }
            Step::Truncate { file, size } => self.truncate(model, file, *size)?,
            Step::Space { file, mode, offset, length } => {
                let file = self.open(model, file, OFlags::WRONLY)?;
                let mode = FallocateFlags::from_bits_retain(*mode);
                rustix::fs::fallocate(file.file(), mode, as_u64(*offset), as_u64(*length))?;
            }
            Step::Copy { from, from_offset, to, to_offset, length } => {
                let source = self.open(model, from, OFlags::RDONLY)?;
                let target = self.open(model, to, OFlags::WRONLY)?;
                copy(source.file(), *from_offset, target.file(), *to_offset, *length)?;
            }
            Step::Program { at, yes } => {
                let (path, new) = (self.path(model, at), self.dir(model, at.dir).join("program.new"));
                fs::write(&new, program(*yes)).map_err(errno)?;
                rustix::fs::chmod(&new, Mode::from_raw_mode(0o755))?;
                rustix::fs::rename(&new, &path)?;
            }
            Step::Release { index } => {
                self.hands.remove(*index);
            }
            Step::Lock { .. } => panic!("locks need both mounts"),
            _ => self.act_on_names(model, step)?,
        }
        Ok(None)
    }

    fn act_on_names(&self, model: &Model, step: &Step) -> Result<(), Errno> {
        let path = |place: &Place| self.path(model, place);
        match step {
            Step::Mkdir { at, mode } => rustix::fs::mkdir(path(at), Mode::from_raw_mode(*mode)),
            Step::Symlink { at, target } => rustix::fs::symlink(target, path(at)),
            Step::Link { from, to } => rustix::fs::link(path(from), path(to)),
            Step::Rename { from, to, flags } => {
                let flags = match flags {
                    Flags::None => RenameFlags::empty(),
                    Flags::NoReplace => RenameFlags::NOREPLACE,
                    Flags::Exchange => RenameFlags::EXCHANGE,
                };
                rustix::fs::renameat_with(CWD, path(from), CWD, path(to), flags)
            }
            Step::Unlink { at } => rustix::fs::unlink(path(at)),
            Step::Rmdir { at } => rustix::fs::rmdir(path(at)),
            Step::Chmod { at, mode } => rustix::fs::chmod(path(at), Mode::from_raw_mode(*mode)),
            Step::Chown { at, uid, gid } => {
                let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
                rustix::fs::chown(path(at), Some(uid), Some(gid))
            }
            Step::Times { at, mtime } => {
                let kept = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
                let times = Timestamps { last_access: kept, last_modification: timespec(*mtime) };
                rustix::fs::utimensat(CWD, path(at), &times, AtFlags::empty())
            }
            Step::SetXattr { at, name, value, mode } => {
                let flags = match mode {
                    XattrMode::Any => XattrFlags::empty(),
                    XattrMode::Create => XattrFlags::CREATE,
                    XattrMode::Replace => XattrFlags::REPLACE,
                };
                rustix::fs::setxattr(path(at), *name, &value.bytes(), flags)
            }
            Step::RemoveXattr { at, name } => rustix::fs::removexattr(path(at), *name),
            other => panic!("{other:?}"),
        }
    }

    fn truncate(&self, model: &Model, target: &Target, size: usize) -> Result<(), Errno> {
        match target {
            Target::Hand { index, .. } => rustix::fs::ftruncate(&self.hands[*index].file, as_u64(size)),
            Target::Path(place) => {
                let size = i64::try_from(size).unwrap();
                nix::unistd::truncate(&self.path(model, place), size).map_err(from_nix)
            }
        }
    }

    /// Takes a write lock, lets `meanwhile` look at it, and lets it go.
    pub(super) fn lock(
        &self,
        model: &Model,
        target: &Target,
        range: (usize, usize),
        meanwhile: impl FnOnce(),
    ) -> Result<(), Errno> {
        let file = self.open(model, target, OFlags::RDWR)?;
        let set = |kind| {
            let lock = range_lock(kind, range);
            fcntl(file.file(), FcntlArg::F_OFD_SETLK(&lock)).map_err(from_nix)
        };
        set(libc::F_WRLCK)?;
        meanwhile();
        set(libc::F_UNLCK).map(|_| ())
    }
}

/// A file of a step: kept open before, or opened for it.
enum Opened<'a> {
    Kept(&'a Hand),
    Now(File),
}

impl Opened<'_> {
    fn file(&self) -> &File {
        match self {
            Self::Kept(hand) => &hand.file,
            Self::Now(file) => file,
        }
    }

    fn write(&self, bytes: &[u8], offset: usize) -> Result<(), Errno> {
        // One call: an append must not come in two parts.
        let written = rustix::io::pwrite(self.file(), bytes, as_u64(offset))?;
        assert_eq!(written, bytes.len(), "a short write");
        Ok(())
    }
}

fn write_mapped(file: &Opened<'_>, offset: usize, bytes: &[u8]) -> Result<(), Errno> {
    let end = offset + bytes.len();
    let size = file.file().metadata().map_err(errno)?.len();
    assert!(as_u64(end) <= size, "this mount believes in {size} bytes, but there are {end} or more");
    match file {
        Opened::Kept(Hand { map: Some(map), .. }) if map.bytes >= end => map.write(offset, bytes),
        other => Map::new(other.file(), end).write(offset, bytes),
    }
    rustix::fs::fsync(file.file())
}

fn copy(from: &File, from_offset: usize, to: &File, to_offset: usize, length: usize) -> Result<(), Errno> {
    let (mut source, mut target) = (as_u64(from_offset), as_u64(to_offset));
    let mut left = length;
    while left > 0 {
        let copied = rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), left)?;
        if copied == 0 {
            break;
        }
        left -= copied;
    }
    Ok(())
}

/// Opens a file, or a directory for reading.
pub(super) fn open(path: &Path, flags: OFlags) -> Result<File, Errno> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o644)).map(File::from)
}

/// A lock on `start`, `length`.
pub(super) fn range_lock(kind: i32, (start, length): (usize, usize)) -> libc::flock {
    let mut lock = crate::child::posix(kind, i64::try_from(start).unwrap(), i64::try_from(length).unwrap());
    // OFD locks want it so.
    lock.l_pid = 0;
    lock
}

/// Programs whose end tells them apart.
pub(super) fn program(yes: bool) -> &'static [u8] {
    static PROGRAMS: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    let programs = PROGRAMS.get_or_init(|| ["/bin/false", "/bin/true"].map(|path| fs::read(path).unwrap()));
    &programs[usize::from(yes)]
}

pub(super) fn as_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap()
}

pub(super) fn from_nix(error: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(error as i32)
}

/// The number of an error of the standard library.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap()
}

fn timespec(nanos: i128) -> Timespec {
    let (secs, nanos) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    Timespec { tv_sec: i64::try_from(secs).unwrap(), tv_nsec: i64::try_from(nanos).unwrap() }
}

/// Reads `length` bytes at `offset`, fewer at the end of the file.
pub(super) fn read(file: &File, offset: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        let count = file.read_at(&mut bytes[filled..], as_u64(offset + filled)).unwrap();
        if count == 0 {
            break;
        }
        filled += count;
    }
    bytes.truncate(filled);
    bytes
}
