//! A whole small file system in maps: what the metadata server's machine is compared with.
//!
//! Written from POSIX.1-2017 (XSH `rename`, `link`, `unlink`, `rmdir`, `open`, `chmod`, `chown`, `utimensat`, `truncate`,
//! `fcntl`) and, where POSIX leaves room, from the Linux manual pages (`rename(2)`, `open(2)`, `fallocate(2)`,
//! `copy_file_range(2)`, `xattr(7)`, `flock(2)`, `inode(7)`): not from the machine. It knows nothing of extents,
//! batches, caches or crashes.
//!
//! Where several errors apply POSIX lets the system choose one, so an operation gathers [`Faults`]: all that apply.
//! Without any it must succeed; else it must fail with one of them.

mod access;
mod data;
mod dir;
mod fault;
mod lock;

use std::collections::BTreeMap;

use flexfs_wire::attr::{S_IFDIR, S_IFMT, S_IFREG};
use flexfs_wire::errno::Errno;
use flexfs_wire::time::Time;

pub use access::Who;
pub use fault::Faults;
pub use lock::{Claim, Locks};

/// The root directory.
pub const ROOT: u64 = 1;

/// What an operation came to.
pub type Verdict = Result<(), Faults>;

/// A file of any type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// Type and permission bits.
    pub mode: u32,
    /// Links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number.
    pub rdev: u32,
    /// Access time.
    pub atime: Time,
    /// Modification time.
    pub mtime: Time,
    /// Change time.
    pub ctime: Time,
    /// Birth time.
    pub btime: Time,
    /// Of a file its bytes, of a symlink its target.
    pub bytes: Vec<u8>,
    /// Of a directory its names, without `.` and `..`.
    pub names: BTreeMap<Vec<u8>, u64>,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Made by `O_TMPFILE` and not linked yet.
    pub is_linkable: bool,
    /// Had data that is not inline: such a file may refuse inline writes.
    pub may_have_extents: bool,
}

impl File {
    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.mode & S_IFMT == S_IFDIR
    }

    /// Whether it is a regular file.
    #[must_use]
    pub fn is_regular(&self) -> bool {
        self.mode & S_IFMT == S_IFREG
    }

    /// `st_size`; of a directory the number of its names, as this file system shows it.
    #[must_use]
    pub fn size(&self) -> u64 {
        if self.is_dir() { self.names.len() as u64 } else { self.bytes.len() as u64 }
    }

    fn touch(&mut self, now: Time) {
        (self.mtime, self.ctime) = (now, now);
    }

    /// What writing and `chown` do to set-id bits (`inode(7)`: set-gid without group execution was mandatory locking).
    fn clear_set_id(&mut self) {
        self.mode &= !0o4000;
        if self.mode & 0o010 != 0 {
            self.mode &= !0o2000;
        }
    }
}

/// The file system.
#[derive(Clone, Debug)]
pub struct Model {
    /// All files that exist: named, or open.
    pub files: BTreeMap<u64, File>,
    /// How often each session has each file open.
    pub opens: BTreeMap<(u64, u64), u32>,
    /// Locks held and waited for.
    pub locks: Locks,
    /// Most files, the root counted.
    pub files_max: u64,
    /// The time of the operation that runs.
    pub now: Time,
}

impl Model {
    /// An empty root directory.
    #[must_use]
    pub fn new(now: Time, files_max: u64) -> Self {
        let times = File { atime: now, mtime: now, ctime: now, btime: now, ..File::default() };
        let root = File { mode: S_IFDIR | 0o755, nlink: 2, ..times };
        Self {
            files: BTreeMap::from([(ROOT, root)]),
            opens: BTreeMap::new(),
            locks: Locks::default(),
            files_max,
            now,
        }
    }

    /// A file, or `ESTALE`.
    ///
    /// # Errors
    /// `ESTALE` when it does not exist (any more).
    pub fn get(&self, ino: u64) -> Result<&File, Faults> {
        self.files.get(&ino).ok_or_else(|| Errno::ESTALE.into())
    }

    /// A file, or what was wrong before and `ESTALE`.
    fn get_or(&self, ino: u64, faults: &mut Faults) -> Result<&File, Faults> {
        self.get(ino).map_err(|other| {
            faults.join(Err(other));
            faults.clone()
        })
    }

    fn at(&mut self, ino: u64) -> &mut File {
        self.files.get_mut(&ino).expect("the operation has looked before")
    }

    /// Opens a file (`open(2)` on one that exists).
    ///
    /// # Errors
    /// `EISDIR`, `EACCES`; `EINVAL` for what has no size to cut.
    pub fn open(&mut self, who: Who, ino: u64, write: bool, truncate: bool, kills: bool) -> Verdict {
        let file = self.get(ino)?;
        let mut faults = Faults::default();
        faults.add_if(file.is_dir() && (write || truncate), Errno::EISDIR);
        faults.add_if(truncate && !file.is_regular() && !file.is_dir(), Errno::EINVAL);
        let lacks = |bits| !who.may(file, bits);
        faults.add_if((write || truncate) && lacks(2), Errno::EACCES);
        if !write {
            // Opening for execution and for reading are not told apart: one of both rights is needed, at least.
            faults.add_if(lacks(4) && lacks(1), Errno::EACCES);
        }
        faults.check()?;
        if truncate {
            let now = self.now;
            let file = self.at(ino);
            file.bytes.clear();
            file.touch(now);
            if kills {
                file.clear_set_id();
            }
        }
        *self.opens.entry((who.session, ino)).or_default() += 1;
        Ok(())
    }

    /// Takes back opens of a session, no more than it has.
    pub fn close(&mut self, session: u64, ino: u64, count: u32) {
        let Some(open) = self.opens.get_mut(&(session, ino)) else { return };
        *open = open.saturating_sub(count);
        if *open == 0 {
            self.opens.remove(&(session, ino));
            self.bury(ino);
        }
    }

    /// A session ends with all it has open and locked.
    pub fn end(&mut self, session: u64) {
        let mine: Vec<u64> = self.opens.keys().filter(|key| key.0 == session).map(|key| key.1).collect();
        self.opens.retain(|key, _| key.0 != session);
        self.locks.end(session);
        for ino in mine {
            self.bury(ino);
        }
    }

    /// A file without a name and without an open is no more.
    fn bury(&mut self, ino: u64) {
        let is_open = self.opens.keys().any(|key| key.1 == ino);
        if !is_open && self.files.get(&ino).is_some_and(|file| file.nlink == 0) {
            self.files.remove(&ino);
        }
    }
}
