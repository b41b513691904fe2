//! What a mount shows, held against the model. Every look is a question a program may ask; a wrong answer panics.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType, OFlags, RawDir, SeekFrom, Stat};
use rustix::io::Errno;

use super::act::{Hand, Map, Side, as_u64, open, read};
use super::model::{Id, Kind, Model, Place, ROOT};
use super::random::Random;
use super::user::{USER, User};

/// Clocks of the two programs that stamp files are read a little before and after the call itself, nanoseconds.
const SLACK: i128 = 20_000_000;
/// Space for names when a directory is read piece by piece, bytes: two or three entries.
const SMALL: usize = 80;
const LARGE: usize = 8192;

/// Somebody who looks.
pub(super) struct Look<'a> {
    pub(super) side: &'a mut Side,
    pub(super) model: &'a mut Model,
    pub(super) random: &'a mut Random,
    pub(super) user: &'a User,
}

/// What `stat(2)` said.
struct Seen {
    ino: u64,
    mode: u32,
    nlink: u64,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: i128,
    ctime: i128,
}

impl From<Stat> for Seen {
    fn from(stat: Stat) -> Self {
        let time = |secs: i64, nanos: u64| i128::from(secs) * 1_000_000_000 + i128::from(nanos);
        Self {
            ino: stat.st_ino,
            mode: stat.st_mode,
            nlink: stat.st_nlink,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap(),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// A directory that was read in part before a step.
pub(super) struct Listing {
    dir: Id,
    fd: std::os::fd::OwnedFd,
    seen: Vec<Vec<u8>>,
    before: BTreeSet<&'static str>,
}

impl Look<'_> {
    fn path(&self, place: &Place) -> PathBuf {
        self.side.path(self.model, place)
    }

    fn says(&self, what: &str, path: impl AsRef<Path>) -> String {
        format!("mount {}, {what} of {}", self.side.name, path.as_ref().display())
    }

    /// A name: absent, or what it names with its attributes.
    pub(super) fn name(&mut self, place: &Place) {
        let path = self.path(place);
        let Some(id) = self.model.find(place) else {
            let (what, found) = match self.random.below(4) {
                0 => ("open", open(&path, OFlags::RDONLY).map(|_| ())),
                1 => ("access", rustix::fs::accessat(CWD, &path, Access::EXISTS, AtFlags::empty())),
                2 => ("statx", stat_of(&path).map(|_| ())),
                _ => ("lstat", rustix::fs::lstat(&path).map(|_| ())),
            };
            assert_eq!(found, Err(Errno::NOENT), "{} (absent)", self.says(what, &path));
            return;
        };
        let says = self.says("lstat", &path);
        let stat = rustix::fs::lstat(&path).unwrap_or_else(|error| panic!("{says}: {error}"));
        self.compare(id, &stat.into(), &says);
        if let Kind::Link(target) = &self.model.node(id).kind {
            let found = rustix::fs::readlink(&path, Vec::new()).unwrap().into_bytes();
            assert_eq!(found, target.as_bytes(), "{}", self.says("readlink", &path));
        }
    }

    /// Attributes.
    fn compare(&mut self, id: Id, seen: &Seen, says: &str) {
        let node = self.model.node(id);
        let (kind, size) = match &node.kind {
            Kind::File(bytes) => (FileType::RegularFile, Some(as_u64(bytes.len()))),
            Kind::Link(target) => (FileType::Symlink, Some(as_u64(target.len()))),
            Kind::Dir { .. } => (FileType::Directory, None),
        };
        assert_eq!(FileType::from_raw_mode(seen.mode), kind, "{says}: kind");
        if let Some(size) = size {
            assert_eq!(seen.size, size, "{says}: size");
        }
        assert_eq!(format!("{:o}", seen.mode & 0o7777), format!("{:o}", node.mode), "{says}: mode");
        assert_eq!((seen.uid, seen.gid), (node.uid, node.gid), "{says}: owner");
        assert_eq!(seen.nlink, self.model.nlink(id), "{says}: nlink");
        let slack = if node.exact { 0 } else { SLACK };
        assert!(
            (node.mtime.from - slack..=node.mtime.to + slack).contains(&seen.mtime),
            "{says}: mtime is {}, {} ms before the change",
            seen.mtime,
            (node.mtime.from - seen.mtime) / 1_000_000
        );
        assert!(
            seen.ctime >= node.ctime - SLACK,
            "{says}: ctime is {}, {} ms before the change",
            seen.ctime,
            (node.ctime - seen.ctime) / 1_000_000
        );
        assert_eq!(node.ino.unwrap_or(seen.ino), seen.ino, "{says}: number");
        let node = self.model.node_mut(id);
        node.ino = Some(seen.ino);
        // What was seen must not go back.
        node.ctime = node.ctime.max(seen.ctime);
    }

    /// A file's bytes, all of them or some, by one of the ways there are. `place` is one of its names.
    pub(super) fn content(&mut self, place: Option<&Place>, id: Id) {
        let hand = self.side.hands.iter().position(|hand| hand.id == id);
        match (hand, place) {
            (Some(hand), _) if self.random.once_in(2) || place.is_none() => self.hand(hand),
            (_, Some(place)) => self.fresh(place, id),
            (_, None) => {}
        }
    }

    /// A part of a file: much of it, a little, a bit past its end.
    fn range(&mut self, id: Id) -> (usize, usize) {
        let end = self.model.bytes(id).len();
        match self.random.below(4) {
            0 | 1 => (0, end + 10),
            2 => (self.random.below(end + 1), 1 + self.random.below(5000)),
            _ => (end.saturating_sub(self.random.below(5000)), 6000),
        }
    }

    fn expect(&self, id: Id, (offset, length): (usize, usize), found: &[u8], says: &str) {
        let bytes = self.model.bytes(id);
        let (from, to) = (offset.min(bytes.len()), (offset + length).min(bytes.len()));
        let wanted = &bytes[from..to];
        if found != wanted {
            let at = found.iter().zip(wanted).position(|(found, wanted)| found != wanted);
            let at = at.map_or_else(|| "none".to_owned(), |at| (offset + at).to_string());
            panic!(
                "{says}, {offset}+{length}: {} bytes instead of {}, first wrong byte: {at}",
                found.len(),
                wanted.len()
            );
        }
    }

    /// Opens the file for this.
    fn fresh(&mut self, place: &Place, id: Id) {
        let path = self.path(place);
        if self.random.once_in(6) {
            let says = self.says("direct read", &path);
            let file = open(&path, OFlags::RDONLY | OFlags::DIRECT).unwrap_or_else(|e| panic!("{says}: {e}"));
            let found = read_direct(&file, self.model.bytes(id).len());
            return self.expect(id, (0, found.len().max(self.model.bytes(id).len())), &found, &says);
        }
        let says = self.says("read", &path);
        let file = open(&path, OFlags::RDONLY).unwrap_or_else(|error| panic!("{says}: {error}"));
        let range = self.range(id);
        self.expect(id, range, &read(&file, range.0, range.1), &says);
        if self.random.once_in(4) {
            let stat = rustix::fs::fstat(&file).unwrap();
            let says = self.says("fstat", &path);
            self.compare(id, &stat.into(), &says);
        }
    }

    /// A file that has been open on this mount since some time.
    pub(super) fn hand(&mut self, index: usize) {
        let hand = &self.side.hands[index];
        let (id, stat) = (hand.id, rustix::fs::fstat(&hand.file).unwrap());
        let says = format!("mount {}, fstat of open file (node {id})", self.side.name);
        self.compare(id, &stat.into(), &says);
        let range = self.range(id);
        let size = self.model.bytes(id).len();
        let file = &self.side.hands[index].file;
        let found = read(file, range.0, range.1);
        self.expect(id, range, &found, &format!("mount {}, read of open file (node {id})", self.side.name));
        if self.random.once_in(3) {
            let from = self.random.below(size + 1);
            self.seek(index, id, from);
        }
        let Hand { file: _, map, .. } = &self.side.hands[index];
        // fstat has shown that this mount knows the size: nothing beyond it is touched.
        let Some(map) = map else { return };
        let (from, to) = (range.0.min(map.bytes).min(size), (range.0 + range.1).min(map.bytes).min(size));
        let found = map.read(from, to - from);
        self.expect(
            id,
            (from, to - from),
            &found,
            &format!("mount {}, mapping of open file (node {id})", self.side.name),
        );
    }

    /// `lseek(2)`: the end is where it is now, and what is not zero is no hole.
    fn seek(&self, hand: usize, id: Id, from: usize) {
        let (file, bytes) = (&self.side.hands[hand].file, self.model.bytes(id));
        let says = format!("mount {}, lseek of open file (node {id})", self.side.name);
        assert_eq!(rustix::fs::seek(file, SeekFrom::End(0)), Ok(as_u64(bytes.len())), "{says}: end");
        let data = bytes[from..].iter().position(|byte| *byte != 0).map(|at| as_u64(from + at));
        match (rustix::fs::seek(file, SeekFrom::Data(as_u64(from))), data) {
            (Ok(found), Some(data)) => assert!(found <= data, "{says}: data at {data}, found at {found}"),
            (found, Some(data)) => panic!("{says}: data at {data}, but {found:?} behind {from}"),
            // Zeros may be data or none.
            (_, None) => {}
        }
    }

    /// Attributes by name: values, absence, and sometimes the list of them.
    pub(super) fn xattrs(&mut self, place: &Place, id: Id) {
        if matches!(self.model.node(id).kind, Kind::Link(_)) {
            return;
        }
        let path = self.path(place);
        for name in ["user.one", "user.two", "trusted.three"] {
            let mut value = [0; 1024];
            let found = rustix::fs::getxattr(&path, name, &mut value).map(|length| value[..length].to_vec());
            let wanted = self.model.node(id).xattrs.get(name).cloned().ok_or(Errno::NODATA);
            assert!(
                found == wanted,
                "{} {name}: {:?} instead of {:?}",
                self.says("getxattr", &path),
                found.map(|value| value.len()),
                wanted.map(|value| value.len())
            );
        }
        let mut list = [0; 1024];
        let length = rustix::fs::listxattr(&path, &mut list).unwrap();
        let found: BTreeSet<&[u8]> =
            list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
        let wanted: BTreeSet<&[u8]> = self.model.node(id).xattrs.keys().map(|name| name.as_bytes()).collect();
        assert!(found == wanted, "{}", self.says("listxattr", &path));
    }

    /// All entries of a directory.
    pub(super) fn listing(&mut self, dir: Id) {
        let path = self.side.dir(self.model, dir);
        let says = self.says("listing", &path);
        let fd = open(&path, OFlags::RDONLY | OFlags::DIRECTORY).unwrap_or_else(|e| panic!("{says}: {e}"));
        let size = if self.random.once_in(2) { SMALL } else { LARGE };
        let mut found = BTreeMap::new();
        list(&fd, size, usize::MAX, |name, ino, kind| {
            assert!(
                found.insert(name.to_vec(), (ino, kind)).is_none(),
                "{says}: twice {}",
                name.escape_ascii()
            );
        });
        self.compare_names(dir, &found, &says);
        let stat = rustix::fs::fstat(&fd).unwrap();
        self.compare(dir, &stat.into(), &self.says("fstat", &path));
    }

    fn compare_names(&self, dir: Id, found: &BTreeMap<Vec<u8>, (u64, FileType)>, says: &str) {
        let shown: Vec<String> = found.keys().map(|name| name.escape_ascii().to_string()).collect();
        let wanted: Vec<&str> = self.model.names(dir).keys().copied().collect();
        assert_eq!(shown, wanted, "{says}");
        for (name, id) in self.model.names(dir) {
            let (ino, kind) = found[name.as_bytes()];
            let node = self.model.node(*id);
            let wanted = match node.kind {
                Kind::File(_) => FileType::RegularFile,
                Kind::Link(_) => FileType::Symlink,
                Kind::Dir { .. } => FileType::Directory,
            };
            assert_eq!((kind, ino), (wanted, node.ino.unwrap_or(ino)), "{says}: {name}");
        }
    }

    /// Directories that have been open since some time, read again from their start.
    pub(super) fn folders(&mut self) {
        self.side.folders.retain(|(dir, _)| self.model.is_there(*dir) && self.model.node(*dir).names > 0);
        for index in 0..self.side.folders.len() {
            let (dir, fd) = &self.side.folders[index];
            let dir = *dir;
            let says = format!("mount {}, listing of open directory (node {dir})", self.side.name);
            rustix::fs::seek(fd, SeekFrom::Start(0)).unwrap();
            let mut found = BTreeMap::new();
            list(fd, SMALL, usize::MAX, |name, ino, kind| {
                found.insert(name.to_vec(), (ino, kind));
            });
            let stat = rustix::fs::fstat(fd).unwrap();
            self.compare_names(dir, &found, &says);
            self.compare(dir, &stat.into(), &says);
        }
    }

    /// Reads the beginning of a directory.
    pub(super) fn begin(&mut self, dir: Id) -> Listing {
        let path = self.side.dir(self.model, dir);
        let fd = open(&path, OFlags::RDONLY | OFlags::DIRECTORY).unwrap().into();
        let mut seen = Vec::new();
        list(&fd, SMALL, 1, |name, _, _| seen.push(name.to_vec()));
        Listing { dir, fd, seen, before: self.model.names(dir).keys().copied().collect() }
    }

    /// Reads the rest: what was there all the time is there once.
    pub(super) fn finish(&mut self, mut listing: Listing) {
        let dir = listing.dir;
        if !self.model.is_there(dir) || self.model.node(dir).names == 0 {
            return;
        }
        list(&listing.fd, SMALL, usize::MAX, |name, _, _| listing.seen.push(name.to_vec()));
        for name in listing.before.iter().filter(|name| self.model.names(dir).contains_key(*name)) {
            let times = listing.seen.iter().filter(|seen| *seen == name.as_bytes()).count();
            // A name that was taken away and made again may come twice.
            assert!(times >= 1, "mount {}: {name} left out of a listing of node {dir}", self.side.name);
        }
        if self.side.folders.len() < 3 {
            self.side.folders.push((dir, listing.fd));
        }
    }

    /// `..` of a directory, wherever it was moved.
    pub(super) fn parent(&mut self, dir: Id) {
        if dir == ROOT {
            return;
        }
        let path = self.side.dir(self.model, dir).join("..");
        let says = self.says("stat", &path);
        let stat = rustix::fs::stat(&path).unwrap_or_else(|error| panic!("{says}: {error}"));
        self.compare(self.model.parent(dir), &stat.into(), &says);
    }

    /// What an ordinary user may do to a name.
    pub(super) fn access(&mut self, place: &Place) {
        let wanted = 1 + u32::try_from(self.random.below(7)).unwrap();
        let reached = self.model.chain(place.dir).iter().all(|dir| self.model.may(*dir, USER, 1));
        let expected = match self.model.find(place) {
            _ if !reached => Err(Errno::ACCESS),
            None => Err(Errno::NOENT),
            // A symlink is followed, to nowhere.
            Some(id) if matches!(self.model.node(id).kind, Kind::Link(_)) => return,
            Some(id) if self.model.may(id, USER, wanted) => Ok(()),
            Some(_) => Err(Errno::ACCESS),
        };
        let path = self.path(place);
        let found = self.user.access(&path, wanted);
        assert_eq!(found, expected, "{} ({wanted}) by user {USER}", self.says("access", &path));
    }

    /// Opens a file and keeps it, often with a mapping of all of it.
    pub(super) fn keep(&mut self, place: &Place, id: Id) {
        let path = self.path(place);
        let append = self.random.once_in(4);
        let flags = if append { OFlags::RDWR | OFlags::APPEND } else { OFlags::RDWR };
        let file = open(&path, flags).unwrap();
        let size = self.model.bytes(id).len();
        assert_eq!(file.metadata().unwrap().len(), as_u64(size), "{}", self.says("fstat", &path));
        let map = (size > 0 && self.random.once_in(2)).then(|| Map::new(&file, size));
        let victim = self.random.below(64);
        self.side.keep(Hand { id, file, append, map }, victim);
    }

    /// Everything.
    pub(super) fn all(&mut self) {
        for dir in self.model.dirs() {
            self.listing(dir);
            self.parent(dir);
        }
        for (place, id) in self.model.entries() {
            self.name(&place);
            self.xattrs(&place, id);
            self.access(&place);
            if self.model.is_file(id) {
                self.fresh(&place, id);
            }
        }
        for index in 0..self.side.hands.len() {
            self.hand(index);
        }
        self.folders();
    }
}

/// Reads a directory on, `pieces` times a buffer of `size` bytes; `.` and `..` are left out.
fn list(fd: impl AsFd, size: usize, pieces: usize, mut take: impl FnMut(&[u8], u64, FileType)) {
    let mut space = [MaybeUninit::uninit(); LARGE];
    let mut entries = RawDir::new(fd, &mut space[..size]);
    let mut read = 0;
    loop {
        if entries.is_buffer_empty() {
            read += 1;
            if read > pieces {
                return;
            }
        }
        let Some(entry) = entries.next() else { return };
        let entry = entry.unwrap();
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            take(name, entry.ino(), entry.file_type());
        }
    }
}

/// All of a file, past the page cache.
fn read_direct(file: &fs::File, size: usize) -> Vec<u8> {
    // The kernel wants memory on a border of 4096.
    let room = (size + 1).next_multiple_of(4096);
    let mut memory = vec![0u8; room + 4096];
    let start = memory.as_ptr().align_offset(4096);
    let part = &mut memory[start..start + room];
    let count = rustix::io::pread(file, &mut *part, 0).unwrap();
    part[..count].to_vec()
}

/// `statx(2)`, as the standard library calls it.
fn stat_of(path: &Path) -> Result<fs::Metadata, Errno> {
    fs::symlink_metadata(path).map_err(super::act::errno)
}
