//! Where plain files are, and what vouches for one.
//!
//! ```text
//! plain/INO-IDENTITY        the file's bytes; 16 and 32 hex digits
//! plain/INO-IDENTITY.sum    what they are, written when they are all there
//! plain/*.new               being written
//!
//! sum  0  magic     [u8; 4]   "FXPL"
//!      4  version   u32       1
//!      8  volume    [u8; 16]  its UUID
//!     24  ino       u64
//!     32  size      u64
//!     40  identity  u128      of the layout
//!     56  check     u128      XXH3-128 of all bytes
//!     72  own_check u64       XXH3-64 of bytes 0..72
//! ```
//! All little-endian.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use flexfs_uring::file;
use flexfs_wire::id::Ino;
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a sum.
pub(super) const SUM_BYTES: usize = 80;
const MAGIC: [u8; 4] = *b"FXPL";
const VERSION: u32 = 1;
/// Bytes of a sum that its own checksum covers.
const CHECKED_BYTES: usize = 72;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSum {
    magic: [u8; 4],
    version: U32,
    volume: [u8; 16],
    ino: U64,
    size: U64,
    identity: U128,
    check: U128,
    own_check: U64,
}

const _: () = assert!(size_of::<RawSum>() == SUM_BYTES);

/// What a plain file is a copy of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name {
    pub(super) ino: Ino,
    pub(super) identity: u128,
}

/// What an earlier mount left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) name: Name,
    pub(super) bytes: u64,
    /// When it was last read or written, seconds since 1970.
    pub(super) used: i64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Place {
    folder: PathBuf,
    volume: [u8; 16],
}

impl Place {
    /// The folder, made if it is not there.
    pub(super) fn open(folder: &Path, volume: [u8; 16]) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Self { folder: folder.to_owned(), volume })
    }

    /// The bytes of a file.
    pub(super) fn file(&self, name: &Name) -> PathBuf {
        self.folder.join(format!("{:016x}-{:032x}", name.ino.0, name.identity))
    }

    /// Its sum.
    pub(super) fn sum(&self, name: &Name) -> PathBuf {
        self.file(name).with_extension("sum")
    }

    /// A file while it is written.
    pub(super) fn unfinished(&self, path: &Path) -> PathBuf {
        path.with_extension("new")
    }

    /// Removes a file and its sum on the ring; absent is fine.
    pub(super) async fn unlink(&self, name: &Name) {
        for path in [self.sum(name), self.file(name)] {
            note_removal(&path, file::unlink(&path).await);
        }
    }

    /// The same off the shards, blocking.
    pub(super) fn remove(&self, name: &Name) {
        for path in [self.sum(name), self.file(name)] {
            note_removal(&path, fs::remove_file(&path));
        }
    }

    /// All whole files; what is of no use is removed. Other names are left alone.
    pub(super) fn list(&self) -> io::Result<Vec<Left>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let path = entry.path();
            let Some(name) = path.file_stem().and_then(|stem| parse_name(stem.to_str()?)) else { continue };
            match path.extension().and_then(|extension| extension.to_str()) {
                None if self.sum(&name).exists() => {
                    let Ok(stat) = entry.metadata() else { continue };
                    let used = stat.atime().max(stat.mtime());
                    found.push(Left { name, bytes: stat.blocks() * 512, used });
                }
                Some("sum") if self.file(&name).exists() => {}
                None | Some("sum" | "new") => drop(fs::remove_file(&path)),
                Some(_) => {}
            }
        }
        Ok(found)
    }

    /// The sum of a file of `size` bytes whose checksum is `check`.
    pub(super) fn make_sum(&self, name: &Name, size: u64, check: u128) -> Vec<u8> {
        let mut sum = RawSum {
            magic: MAGIC,
            version: VERSION.into(),
            volume: self.volume,
            ino: name.ino.0.into(),
            size: size.into(),
            identity: name.identity.into(),
            check: check.into(),
            own_check: 0.into(),
        };
        sum.own_check = xxh3_64(&sum.as_bytes()[..CHECKED_BYTES]).into();
        sum.as_bytes().to_vec()
    }

    /// The checksum that a sum says the bytes have, if it is the sum of this file with this size.
    pub(super) fn read_sum(&self, name: &Name, size: u64, bytes: &[u8]) -> Option<u128> {
        let sum = RawSum::ref_from_bytes(bytes).ok()?;
        let holds = sum.magic == MAGIC
            && sum.version.get() == VERSION
            && sum.volume == self.volume
            && sum.ino.get() == name.ino.0
            && sum.identity.get() == name.identity
            && sum.size.get() == size
            && sum.own_check.get() == xxh3_64(&bytes[..CHECKED_BYTES]);
        holds.then(|| sum.check.get())
    }
}

fn note_removal(path: &Path, removed: io::Result<()>) {
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a file of the disk cache cannot be removed");
    }
}

fn parse_name(stem: &str) -> Option<Name> {
    let (ino, identity) = stem.split_once('-')?;
    let is_hex = |text: &str| text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
    if ino.len() != 16 || identity.len() != 32 || !is_hex(ino) || !is_hex(identity) {
        return None;
    }
    let ino = Ino(u64::from_str_radix(ino, 16).ok()?);
    Some(Name { ino, identity: u128::from_str_radix(identity, 16).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Name = Name { ino: Ino(0x1a7), identity: 0xfeed };

    #[test]
    fn a_sum_vouches_for_one_file_only() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::open(folder.path(), [7; 16]).unwrap();
        let mut sum = place.make_sum(&NAME, 1000, 42);
        assert_eq!(place.read_sum(&NAME, 1000, &sum), Some(42));
        assert_eq!(place.read_sum(&NAME, 1001, &sum), None);
        assert_eq!(place.read_sum(&Name { identity: 1, ..NAME }, 1000, &sum), None);
        assert_eq!(place.read_sum(&NAME, 1000, &sum[..79]), None);
        let other = Place::open(folder.path(), [8; 16]).unwrap();
        assert_eq!(other.read_sum(&NAME, 1000, &sum), None);
        for at in 0..SUM_BYTES {
            sum[at] ^= 4;
            assert_eq!(place.read_sum(&NAME, 1000, &sum), None, "byte {at}");
            sum[at] ^= 4;
        }
    }

    #[test]
    fn halves_are_removed_and_wholes_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::open(folder.path(), [7; 16]).unwrap();
        fs::write(place.file(&NAME), "bytes").unwrap();
        fs::write(place.sum(&NAME), "sum").unwrap();
        let other = Name { ino: Ino(2), identity: 3 };
        fs::write(place.file(&other), "without a sum").unwrap();
        fs::write(place.sum(&Name { ino: Ino(3), identity: 3 }), "without bytes").unwrap();
        fs::write(place.unfinished(&place.file(&other)), "").unwrap();
        fs::write(folder.path().join("not ours.new"), "").unwrap();
        assert_eq!(place.list().unwrap().iter().map(|left| left.name).collect::<Vec<_>>(), [NAME]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        place.remove(&NAME);
        place.remove(&NAME);
        assert_eq!(place.list().unwrap(), []);
    }
}
