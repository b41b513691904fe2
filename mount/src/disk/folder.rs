//! The folder of a volume's cache: whose it is, what is in it, how much room its file system has.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use flexfs_uring::file::File;
use flexfs_wire::block::SEGMENTS_MAX;
use flexfs_wire::id::BlockId;
use rustix::fs::{FlockOperation, OFlags, SeekFrom};
use rustix::io::Errno;

use super::slot::{self, PAGE, SLOT_BYTES, SLOT_PAGES};

/// Name of the lock's file.
const LOCK: &str = "lock";
/// Folder of whole files in plain form.
const PLAIN: &str = "plain";
/// Digits of a block's file name.
const NAME_DIGITS: usize = 16;
/// How files of blocks are opened: by readers, too, for the filler takes over what they opened.
pub(super) const OPEN: OFlags = OFlags::RDWR.union(OFlags::NOFOLLOW);

/// Why there is no disk cache. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another mount has it.
    #[error(
        "the disk cache {} is in use by another mount of this volume ({by}); give this mount a --diskFolder of its own",
        folder.display()
    )]
    Taken {
        /// The volume's folder.
        folder: PathBuf,
        /// Process and mount point of the other.
        by: String,
    },
    /// Others could read or exchange what is in it.
    #[error(
        "the disk cache {} is not this user's alone; make it so (chown, chmod 700), or remove it, or give another --diskFolder",
        folder.display()
    )]
    Open {
        /// The volume's folder.
        folder: PathBuf,
    },
    /// Too little to be of use.
    #[error(
        "--diskQuota comes to {bytes} bytes, which is too little to be of use; give {min} at least, e.g. 1G"
    )]
    Quota {
        /// What it comes to.
        bytes: u64,
        /// The least.
        min: u64,
    },
    /// No UUID.
    #[error(
        "the volume's id {0:?} is no UUID, so the disk cache has no name for its folder; mount without --diskQuota"
    )]
    Volume(String),
    /// The system.
    #[error("cannot use the disk cache {}: {source}; give another --diskFolder, or mount without --diskQuota", folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What an earlier mount left of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) block: BlockId,
    /// Bytes of the disk that it takes.
    pub(super) bytes: u64,
    /// When it was last read or written, seconds since 1970; as well as the file system notes it.
    pub(super) used: i64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder of a volume below `base`, made if it is not there, and its lock.
    pub(super) fn claim(base: &Path, volume: &str, owner: &str) -> Result<(Self, fs::File), OpenError> {
        let path = base.join(volume);
        let failed = |source: io::Error| OpenError::Io { folder: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed)?;
        let found = fs::symlink_metadata(&path).map_err(failed)?;
        let own = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw();
        if !own || found.mode() & 0o077 != 0 {
            return Err(OpenError::Open { folder: path });
        }
        let lock = path.join(LOCK);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let mut file = options.open(&lock).map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let by = fs::read_to_string(&lock).unwrap_or_default();
                return Err(OpenError::Taken { folder: path, by: by.trim().to_owned() });
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        // For people, and for the text above.
        file.set_len(0).and_then(|()| writeln!(file, "{owner}")).map_err(failed)?;
        Ok((Self { path }, file))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file of a block.
    pub(super) fn file(&self, block: BlockId) -> PathBuf {
        self.path.join(format!("{:0width$x}", block.0, width = NAME_DIGITS))
    }

    /// Where whole files in plain form are (`plain`).
    pub(super) fn plain(&self) -> PathBuf {
        self.path.join(PLAIN)
    }

    /// Bytes that they take.
    pub(super) fn plain_bytes(&self) -> u64 {
        let entries = fs::read_dir(self.plain()).into_iter().flatten().flatten();
        entries.filter_map(|entry| Some(entry.metadata().ok()?.blocks() * 512)).sum()
    }

    /// Removes them all.
    pub(super) fn remove_plain(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.plain()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Bytes of its file system, and of them those that are free for us.
    pub(super) fn room(&self) -> io::Result<(u64, u64)> {
        let stat = rustix::fs::statvfs(&self.path)?;
        Ok((stat.f_blocks.saturating_mul(stat.f_frsize), stat.f_bavail.saturating_mul(stat.f_frsize)))
    }

    /// Opens the file of a block, which is made if it is not there.
    pub(super) fn open(&self, block: BlockId) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        options.open(self.file(block)).map(File::from)
    }

    /// Removes the file of a block; absent is fine.
    pub(super) fn remove(&self, block: BlockId) -> io::Result<()> {
        match fs::remove_file(self.file(block)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// All blocks of which there is a file. Other names are left alone.
    pub(super) fn list(&self) -> io::Result<Vec<Left>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let Some(block) = entry.file_name().to_str().and_then(parse_name) else { continue };
            // Gone meanwhile is as good as never there.
            let Ok(stat) = entry.metadata() else { continue };
            if stat.is_file() {
                let used = stat.atime().max(stat.mtime());
                found.push(Left { block, bytes: stat.blocks() * 512, used });
            }
        }
        Ok(found)
    }

    /// Segments that a block's file may hold, `(number, pages)`: those whose slot begins with data. What they hold is looked
    /// at when they are read.
    pub(super) fn map(&self, block: BlockId) -> io::Result<Vec<(u32, u8)>> {
        let file = self.open(block)?;
        let mut slots = Vec::new();
        let mut at = 0;
        for number in 0..SEGMENTS_MAX {
            let start = slot::offset(number);
            if start < at {
                continue;
            }
            let data = match rustix::fs::seek(&file, SeekFrom::Data(start)) {
                Ok(data) => data,
                // No data from there on.
                Err(Errno::NXIO) => break,
                Err(errno) => return Err(errno.into()),
            };
            if data >= start + SLOT_BYTES as u64 {
                // Straight to the slot in which the next data is.
                at = data / SLOT_BYTES as u64 * SLOT_BYTES as u64;
                continue;
            }
            if data == start {
                let hole = rustix::fs::seek(&file, SeekFrom::Hole(start))?;
                let pages = (hole - start).div_ceil(PAGE as u64).min(u64::from(SLOT_PAGES));
                slots.push((number, u8::try_from(pages).unwrap_or(SLOT_PAGES)));
            }
        }
        Ok(slots)
    }
}

fn parse_name(name: &str) -> Option<BlockId> {
    let is_ours =
        name.len() == NAME_DIGITS && name.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
    u64::from_str_radix(name, 16).ok().filter(|_| is_ours).map(BlockId)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOLUME: &str = "0d4c1d2e-58d0-4e4a-9c43-93c2f7f5a111";

    #[test]
    fn one_mount_at_a_time() {
        let base = tempfile::tempdir().unwrap();
        let (folder, lock) = Folder::claim(base.path(), VOLUME, "7 /mnt/a").unwrap();
        assert_eq!(folder.path().metadata().unwrap().mode() & 0o777, 0o700);
        let error = Folder::claim(base.path(), VOLUME, "8 /mnt/b").unwrap_err();
        assert!(error.to_string().contains("7 /mnt/a"), "{error}");
        drop(lock);
        Folder::claim(base.path(), VOLUME, "8 /mnt/b").unwrap();
        Folder::claim(base.path(), "another-volume", "8 /mnt/b").unwrap();
    }

    #[test]
    fn folders_of_others_are_refused() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join(VOLUME);
        DirBuilder::new().mode(0o755).create(&path).unwrap();
        let error = Folder::claim(base.path(), VOLUME, "").unwrap_err();
        assert!(matches!(error, OpenError::Open { .. }), "{error}");
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink(base.path(), &path).unwrap();
        assert!(Folder::claim(base.path(), VOLUME, "").is_err());
    }

    #[test]
    fn names_of_blocks() {
        assert_eq!(parse_name("00000000000001a7"), Some(BlockId(0x1a7)));
        for name in ["lock", "1a7", "00000000000001A7", "+0000000000001a7", "00000000000001a7.tmp"] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }

    #[test]
    fn slots_are_found_again() {
        let base = tempfile::tempdir().unwrap();
        let (folder, _lock) = Folder::claim(base.path(), VOLUME, "").unwrap();
        let file = folder.open(BlockId(3)).unwrap();
        for (number, bytes) in [(0, 65_600), (1, 65_600), (2, 5000), (40, 1), (127, 65_628)] {
            rustix::io::pwrite(&file, &vec![1; bytes], slot::offset(number)).unwrap();
        }
        assert_eq!(folder.map(BlockId(3)).unwrap(), [(0, 17), (1, 17), (2, 2), (40, 1), (127, 17)]);
        let left = folder.list().unwrap();
        assert_eq!((left.len(), left[0].block), (1, BlockId(3)));
        assert!(left[0].bytes >= (17 + 17 + 2 + 1 + 17) * 4096, "{left:?}");
        folder.remove(BlockId(3)).unwrap();
        folder.remove(BlockId(3)).unwrap();
        assert_eq!(folder.list().unwrap(), []);
    }
}
