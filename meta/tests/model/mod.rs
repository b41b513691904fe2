//! A file system as POSIX describes it, in maps and vectors: what the machine is compared with. Written from the manual
//! pages; it knows nothing of extents, batches or crashes.

use std::collections::{BTreeMap, BTreeSet};

use flexfs_wire::attr::{S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISGID, S_ISUID, SetAttr, SetTime};
use flexfs_wire::errno::Errno;
use flexfs_wire::message::{RENAME_EXCHANGE, RENAME_NOREPLACE};
use flexfs_wire::time::Time;

mod data;

pub(crate) const ROOT: u64 = 1;

type Outcome = Result<(), Errno>;

/// An inode of the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) mode: u32,
    pub(crate) nlink: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) atime: Time,
    pub(crate) mtime: Time,
    pub(crate) ctime: Time,
    pub(crate) btime: Time,
    /// Of a file its bytes, of a symlink its target.
    pub(crate) bytes: Vec<u8>,
    /// Of a directory.
    pub(crate) entries: BTreeMap<String, u64>,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
    pub(crate) linkable: bool,
}

impl File {
    pub(crate) fn is_dir(&self) -> bool {
        self.mode & S_IFMT == S_IFDIR
    }
    pub(crate) fn is_regular(&self) -> bool {
        self.mode & S_IFMT == S_IFREG
    }
    pub(crate) fn size(&self) -> u64 {
        if self.is_dir() { self.entries.len() as u64 } else { self.bytes.len() as u64 }
    }
}

/// Who makes everything: user and group.
pub(crate) const OWNER: (u32, u32) = (7, 8);

/// What is made.
pub(crate) struct New<'a> {
    pub(crate) ino: u64,
    pub(crate) mode: u32,
    pub(crate) target: &'a [u8],
    pub(crate) open: bool,
}

/// The file system.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) files: BTreeMap<u64, File>,
    /// How often each session has each inode open.
    pub(crate) opens: BTreeMap<(u64, u64), u32>,
    pub(crate) now: Time,
}

impl Model {
    pub(crate) fn new(now: Time) -> Self {
        let root = File {
            mode: S_IFDIR | 0o755,
            nlink: 2,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            ..File::default()
        };
        Self { files: BTreeMap::from([(ROOT, root)]), opens: BTreeMap::new(), now }
    }

    pub(crate) fn get(&self, ino: u64) -> Result<&File, Errno> {
        self.files.get(&ino).ok_or(Errno::ESTALE)
    }

    fn at(&mut self, ino: u64) -> &mut File {
        self.files.get_mut(&ino).expect("the model looked before")
    }

    fn dir(&self, ino: u64) -> Result<&File, Errno> {
        let dir = self.get(ino)?;
        if dir.is_dir() { Ok(dir) } else { Err(Errno::ENOTDIR) }
    }

    fn living_dir(&self, ino: u64) -> Result<&File, Errno> {
        let dir = self.dir(ino)?;
        if dir.nlink > 0 { Ok(dir) } else { Err(Errno::ENOENT) }
    }

    fn touch_dir(&mut self, ino: u64) {
        let now = self.now;
        let dir = self.at(ino);
        (dir.mtime, dir.ctime) = (now, now);
    }

    pub(crate) fn is_open(&self, ino: u64) -> bool {
        self.opens.keys().any(|(_, open)| *open == ino)
    }

    /// Makes an inode. `name` None: without a name, open by the session.
    pub(crate) fn make(&mut self, session: u64, parent: u64, name: Option<&str>, new: &New<'_>) -> Outcome {
        let New { ino, mode, target, open } = *new;
        let dir = self.living_dir(parent)?;
        if name.is_some_and(|name| dir.entries.contains_key(name)) {
            return Err(Errno::EEXIST);
        }
        let is_dir = mode & S_IFMT == S_IFDIR;
        let inherits = dir.mode & S_ISGID != 0;
        let file = File {
            mode: if inherits && is_dir { mode | S_ISGID } else { mode },
            nlink: name.map_or(0, |_| if is_dir { 2 } else { 1 }),
            uid: OWNER.0,
            gid: if inherits { dir.gid } else { OWNER.1 },
            atime: self.now,
            mtime: self.now,
            ctime: self.now,
            btime: self.now,
            bytes: if mode & S_IFMT == S_IFLNK { target.to_vec() } else { Vec::new() },
            linkable: name.is_none(),
            ..File::default()
        };
        self.files.insert(ino, file);
        if let Some(name) = name {
            let dir = self.at(parent);
            dir.entries.insert(name.into(), ino);
            dir.nlink += u32::from(is_dir);
            self.touch_dir(parent);
        }
        if open || name.is_none() {
            *self.opens.entry((session, ino)).or_default() += 1;
        }
        Ok(())
    }

    pub(crate) fn link(&mut self, ino: u64, parent: u64, name: &str) -> Outcome {
        if self.living_dir(parent)?.entries.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let file = self.get(ino)?;
        if file.is_dir() {
            return Err(Errno::EPERM);
        }
        if file.nlink == 0 && !file.linkable {
            return Err(Errno::ENOENT);
        }
        let now = self.now;
        let file = self.at(ino);
        file.nlink += 1;
        file.linkable = false;
        file.ctime = now;
        self.at(parent).entries.insert(name.into(), ino);
        self.touch_dir(parent);
        Ok(())
    }

    pub(crate) fn remove(&mut self, parent: u64, name: &str, is_rmdir: bool) -> Outcome {
        let ino = *self.dir(parent)?.entries.get(name).ok_or(Errno::ENOENT)?;
        self.check_victim(ino, is_rmdir)?;
        self.at(parent).entries.remove(name);
        self.touch_dir(parent);
        self.at(parent).nlink -= u32::from(is_rmdir);
        self.drop_name(ino);
        Ok(())
    }

    fn check_victim(&self, ino: u64, wants_dir: bool) -> Outcome {
        let victim = self.get(ino)?;
        match (wants_dir, victim.is_dir()) {
            (true, false) => Err(Errno::ENOTDIR),
            (false, true) => Err(Errno::EISDIR),
            (true, true) if !victim.entries.is_empty() => Err(Errno::ENOTEMPTY),
            _ => Ok(()),
        }
    }

    fn drop_name(&mut self, ino: u64) {
        let now = self.now;
        let file = self.at(ino);
        file.nlink = if file.is_dir() { 0 } else { file.nlink - 1 };
        file.ctime = now;
        self.bury(ino);
    }

    fn bury(&mut self, ino: u64) {
        if self.files.get(&ino).is_some_and(|file| file.nlink == 0) && !self.is_open(ino) {
            self.files.remove(&ino);
        }
    }

    fn is_above(&self, upper: u64, dir: u64) -> bool {
        let mut below = BTreeSet::from([upper]);
        let mut size = 0;
        while size < below.len() {
            size = below.len();
            for (ino, file) in &self.files {
                if below.contains(ino) {
                    let subdirs = file.entries.values().filter(|child| self.files[child].is_dir());
                    below = below.iter().copied().chain(subdirs.copied()).collect();
                }
            }
        }
        below.contains(&dir)
    }

    pub(crate) fn rename(&mut self, from: (u64, &str), to: (u64, &str), flags: u32) -> Outcome {
        let (exchange, no_replace) = (flags & RENAME_EXCHANGE != 0, flags & RENAME_NOREPLACE != 0);
        if exchange && no_replace {
            return Err(Errno::EINVAL);
        }
        self.dir(from.0)?;
        let target = self.living_dir(to.0)?.entries.get(to.1).copied();
        let moved = *self.dir(from.0)?.entries.get(from.1).ok_or(Errno::ENOENT)?;
        match (target, no_replace, exchange) {
            (Some(_), true, _) => return Err(Errno::EEXIST),
            (None, _, true) => return Err(Errno::ENOENT),
            _ => {}
        }
        let is_dir = self.get(moved)?.is_dir();
        if is_dir && self.is_above(moved, to.0) {
            return Err(Errno::EINVAL);
        }
        if target.is_some_and(|target| self.files[&target].is_dir() && self.is_above(target, from.0)) {
            return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
        }
        if target == Some(moved) {
            return Ok(());
        }
        if let Some(target) = target.filter(|_| !exchange) {
            self.check_victim(target, is_dir)?;
        }
        self.at(from.0).entries.remove(from.1);
        self.at(from.0).nlink -= u32::from(is_dir);
        self.at(to.0).nlink += u32::from(is_dir);
        self.at(to.0).entries.insert(to.1.into(), moved);
        let now = self.now;
        self.at(moved).ctime = now;
        self.touch_dir(from.0);
        self.touch_dir(to.0);
        let Some(target) = target else { return Ok(()) };
        let target_is_dir = self.files[&target].is_dir();
        self.at(to.0).nlink -= u32::from(target_is_dir);
        if exchange {
            self.at(from.0).entries.insert(from.1.into(), target);
            self.at(from.0).nlink += u32::from(target_is_dir);
            self.at(target).ctime = now;
        } else {
            self.drop_name(target);
        }
        Ok(())
    }

    pub(crate) fn set_attr(&mut self, ino: u64, change: &SetAttr) -> Outcome {
        let now = self.now;
        let mut file = self.get(ino)?.clone();
        if change.uid.is_some() || change.gid.is_some() {
            file.uid = change.uid.unwrap_or(file.uid);
            file.gid = change.gid.unwrap_or(file.gid);
            if !file.is_dir() {
                file.kill_privileges();
            }
        }
        if let Some(size) = change.size {
            file.resize(size, now)?;
        }
        if let Some(mode) = change.mode {
            file.mode = file.mode & !0o7777 | mode & 0o7777;
        }
        file.ctime = now;
        for (time, change) in [(&mut file.atime, change.atime), (&mut file.mtime, change.mtime)] {
            match change {
                Some(SetTime::Now) => *time = now,
                Some(SetTime::At(at)) => *time = at,
                None => {}
            }
        }
        self.files.insert(ino, file);
        Ok(())
    }

    pub(crate) fn set_xattr(&mut self, ino: u64, name: &str, value: Option<&[u8]>) -> Outcome {
        let now = self.now;
        self.get(ino)?;
        let file = self.at(ino);
        match value {
            Some(value) => {
                file.xattrs.insert(name.into(), value.to_vec());
            }
            None => {
                file.xattrs.remove(name).ok_or(Errno::ENODATA)?;
            }
        }
        file.ctime = now;
        Ok(())
    }

    pub(crate) fn open(&mut self, session: u64, ino: u64, write: bool, truncate: bool) -> Outcome {
        let now = self.now;
        if self.get(ino)?.is_dir() && write {
            return Err(Errno::EISDIR);
        }
        if truncate {
            self.at(ino).resize(0, now)?;
        }
        *self.opens.entry((session, ino)).or_default() += 1;
        Ok(())
    }

    pub(crate) fn close(&mut self, session: u64, ino: u64) {
        if let Some(count) = self.opens.get_mut(&(session, ino)) {
            *count -= 1;
            if *count == 0 {
                self.opens.remove(&(session, ino));
                self.bury(ino);
            }
        }
    }

    /// A mount goes away with all it has open.
    pub(crate) fn end(&mut self, session: u64) {
        let mine: Vec<u64> =
            self.opens.keys().filter(|(owner, _)| *owner == session).map(|(_, ino)| *ino).collect();
        self.opens.retain(|(owner, _), _| *owner != session);
        for ino in mine {
            self.bury(ino);
        }
    }
}

impl File {
    fn kill_privileges(&mut self) {
        self.mode &= !S_ISUID;
        if self.mode & 0o010 != 0 {
            self.mode &= !S_ISGID;
        }
    }
}
