//! Who asks, what the permission bits say to that, and changes of attributes.

use flexfs_wire::attr::{SetAttr, SetTime};
use flexfs_wire::errno::Errno;
use flexfs_wire::limits::FILE_BYTES_MAX;

use super::{Faults, File, Model, Verdict};

/// A process without supplementary groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    /// The mount it works on.
    pub session: u64,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Has no privilege and nobody has checked its rights before. Otherwise they were checked, and it may do anything.
    pub is_plain: bool,
}

impl Who {
    /// Whether the permission bits of `file` grant all of `bits` (4 read, 2 write, 1 search): the owner's class decides
    /// for the owner, the group's for its members, also where others may more (XBD 4.5).
    #[must_use]
    pub fn may(self, file: &File, bits: u32) -> bool {
        let class = if self.uid == file.uid {
            file.mode >> 6
        } else if self.gid == file.gid {
            file.mode >> 3
        } else {
            file.mode
        };
        !self.is_plain || class & bits == bits
    }

    /// `EACCES` unless [`Self::may`].
    pub(super) fn check(self, file: &File, bits: u32) -> Verdict {
        if self.may(file, bits) { Ok(()) } else { Err(Errno::EACCES.into()) }
    }

    pub(super) fn owns(self, file: &File) -> bool {
        !self.is_plain || self.uid == file.uid
    }

    /// The right to take the name of `victim` out of `dir`: `S_ISVTX` in XSH `unlink` allows either error.
    pub(super) fn check_removal(self, dir: &File, victim: &File) -> Verdict {
        let mut faults = Faults::default();
        faults.join(self.check(dir, 3));
        let is_stuck = dir.mode & 0o1000 != 0 && !self.owns(dir) && !self.owns(victim);
        faults.add_if(is_stuck, Errno::EPERM);
        faults.add_if(is_stuck, Errno::EACCES);
        faults.check()
    }
}

impl Model {
    /// `chmod`, `chown`, `truncate`, `utimensat` in one call.
    ///
    /// # Errors
    /// `EPERM`, `EACCES`, `EISDIR`, `EINVAL`, `EFBIG`.
    pub fn set_attr(&mut self, who: Who, ino: u64, change: &SetAttr) -> Verdict {
        let now = self.now;
        let mut file = self.get(ino)?.clone();
        check_change(who, &file, change)?;
        if change.uid.is_some() || change.gid.is_some() {
            file.uid = change.uid.unwrap_or(file.uid);
            file.gid = change.gid.unwrap_or(file.gid);
            if !file.is_dir() {
                file.clear_set_id();
            }
        }
        if let Some(size) = change.size {
            file.bytes.resize(usize::try_from(size).expect("drivers keep files small"), 0);
            file.touch(now);
        }
        let kills = change.kill_privileges || (who.is_plain && change.size.is_some());
        if kills && !file.is_dir() {
            file.clear_set_id();
        }
        if let Some(mode) = change.mode {
            file.mode = file.mode & !0o7777 | mode & 0o7777;
            // `chmod`: who is not of the file's group and has no privilege cannot set set-gid.
            if who.is_plain && who.gid != file.gid {
                file.mode &= !0o2000;
            }
        }
        file.ctime = match change.ctime {
            Some(SetTime::At(at)) => file.ctime.max(at.min(now)),
            _ => now,
        };
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
}

fn check_change(who: Who, file: &File, change: &SetAttr) -> Verdict {
    let mut faults = Faults::default();
    let owns = who.owns(file);
    faults.add_if(change.mode.is_some() && !owns, Errno::EPERM);
    // `_POSIX_CHOWN_RESTRICTED`: nobody gives a file away; its owner may give it to a group that he is in.
    let gives = |uid| who.is_plain && (!owns || uid != file.uid);
    let moves = |gid| who.is_plain && (!owns || gid != file.gid && gid != who.gid);
    faults.add_if(change.uid.is_some_and(gives) || change.gid.is_some_and(moves), Errno::EPERM);
    if let Some(size) = change.size {
        faults.add_if(file.is_dir(), Errno::EISDIR);
        faults.add_if(!file.is_dir() && !file.is_regular(), Errno::EINVAL);
        faults.add_if(size > FILE_BYTES_MAX, Errno::EFBIG);
        faults.join(who.check(file, 2));
    }
    let times = [change.atime, change.mtime, change.ctime];
    let has_given = times.iter().flatten().any(|time| matches!(time, SetTime::At(_)));
    faults.add_if(has_given && !owns, Errno::EPERM);
    let has_now = times.iter().flatten().any(|time| matches!(time, SetTime::Now));
    faults.add_if(has_now && !owns && !who.may(file, 2), Errno::EACCES);
    // `utimensat`: one of both times now and the other left alone is the owner's to ask; Linux says so.
    faults.allow_if(has_now && !owns, Errno::EPERM);
    faults.check()
}
