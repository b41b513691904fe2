//! Names: making, linking, removing, renaming.

use std::collections::BTreeSet;

use flexfs_wire::attr::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK};
use flexfs_wire::errno::Errno;
use flexfs_wire::message::{Make, RENAME_EXCHANGE, RENAME_NOREPLACE};

use super::{Faults, File, Model, Verdict, Who};

impl Model {
    /// The directory, which must be one.
    pub(super) fn dir(&self, ino: u64) -> Result<&File, Faults> {
        let dir = self.get(ino)?;
        if dir.is_dir() { Ok(dir) } else { Err(Errno::ENOTDIR.into()) }
    }

    /// What a name stands for.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `EACCES`.
    pub fn lookup(&self, who: Who, parent: u64, name: &[u8]) -> Result<u64, Faults> {
        let dir = self.dir(parent)?;
        let mut faults = Faults::default();
        faults.join(who.check(dir, 1));
        faults.add_if(!dir.names.contains_key(name), Errno::ENOENT);
        faults.check()?;
        Ok(dir.names[name])
    }

    /// `open(O_CREAT)`, `mkdir`, `mknod`, `symlink`; without a name `open(O_TMPFILE)`. `is_number_good`: the caller may
    /// use this number. `masked`: permission bits that the volume takes off.
    ///
    /// # Errors
    /// `EEXIST`, `ENOENT`, `ENOTDIR`, `EACCES`, `EINVAL`, `ENAMETOOLONG`, `ENOSPC`, `EPERM`.
    pub fn make(
        &mut self,
        who: Who,
        parent: u64,
        name: Option<&[u8]>,
        make: &Make,
        is_number_good: bool,
        masked: u32,
    ) -> Verdict {
        let dir = self.dir(parent)?;
        let kind = make.mode & S_IFMT;
        let mut faults = Faults::default();
        faults.add_if(dir.nlink == 0, Errno::ENOENT);
        faults.add_if(name.is_some_and(|name| dir.names.contains_key(name)), Errno::EEXIST);
        faults.join(who.check(dir, 3));
        let kinds = [S_IFREG, S_IFDIR, S_IFLNK, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK];
        faults.add_if(!kinds.contains(&kind) || !is_number_good, Errno::EINVAL);
        faults.add_if(name.is_none() && kind != S_IFREG, Errno::EINVAL);
        // Devices are made by the privileged; Linux lets everybody make the character device 0, which stands for what is not there.
        let is_device = kind == S_IFBLK || (kind == S_IFCHR && make.rdev != 0);
        faults.add_if(who.is_plain && is_device, Errno::EPERM);
        faults.add_if(kind != S_IFLNK && !make.target.is_empty(), Errno::EINVAL);
        faults.add_if(kind == S_IFLNK && make.target.is_empty(), Errno::ENOENT);
        faults.add_if(make.target.len() > 4095, Errno::ENAMETOOLONG);
        faults.add_if(self.files.len() as u64 >= self.files_max, Errno::ENOSPC);
        faults.check()?;
        let now = self.now;
        let times = File { atime: now, mtime: now, ctime: now, btime: now, ..File::default() };
        let is_dir = kind == S_IFDIR;
        let (mode, gid) = new_mode(who, dir, make, masked);
        let file = File {
            mode,
            nlink: name.map_or(0, |_| 1 + u32::from(is_dir)),
            uid: who.uid,
            gid,
            rdev: if matches!(kind, S_IFCHR | S_IFBLK) { make.rdev } else { 0 },
            bytes: make.target.clone(),
            is_linkable: name.is_none(),
            ..times
        };
        self.files.insert(make.ino.0, file);
        if let Some(name) = name {
            self.enter(parent, name, make.ino.0);
        }
        if make.open || name.is_none() {
            *self.opens.entry((who.session, make.ino.0)).or_default() += 1;
        }
        Ok(())
    }

    /// `link(2)`; the first name of an `O_TMPFILE`.
    ///
    /// # Errors
    /// `EEXIST`, `ENOENT`, `ENOTDIR`, `EPERM`, `EACCES`.
    pub fn link(&mut self, who: Who, ino: u64, parent: u64, name: &[u8]) -> Verdict {
        let mut faults = Faults::default();
        match self.dir(parent) {
            Err(other) => faults.join(Err(other)),
            Ok(dir) => {
                faults.add_if(dir.nlink == 0, Errno::ENOENT);
                faults.add_if(dir.names.contains_key(name), Errno::EEXIST);
                faults.join(who.check(dir, 3));
            }
        }
        match self.get(ino) {
            Err(other) => faults.join(Err(other)),
            Ok(file) => {
                faults.add_if(file.is_dir(), Errno::EPERM);
                faults.add_if(file.nlink == 0 && !file.is_linkable, Errno::ENOENT);
            }
        }
        faults.check()?;
        let now = self.now;
        let file = self.at(ino);
        file.nlink += 1;
        file.is_linkable = false;
        file.ctime = now;
        self.enter(parent, name, ino);
        // A directory's link to its parent came with `enter`: what was linked is none.
        Ok(())
    }

    /// `unlink(2)`, or `rmdir(2)`.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `EISDIR`, `ENOTEMPTY`, `EACCES`, `EPERM`.
    pub fn remove(&mut self, who: Who, parent: u64, name: &[u8], is_rmdir: bool) -> Verdict {
        let dir = self.dir(parent)?;
        let Some(ino) = dir.names.get(name).copied() else {
            let mut faults = Faults::from(Errno::ENOENT);
            faults.join(who.check(dir, 3));
            return Err(faults);
        };
        let victim = self.get(ino)?;
        let mut faults = Faults::default();
        faults.join(who.check_removal(dir, victim));
        faults.join(check_kind(victim, is_rmdir));
        // `unlink` of a directory is EPERM by POSIX; Linux says EISDIR.
        faults.allow_if(!is_rmdir && victim.is_dir(), Errno::EPERM);
        faults.check()?;
        self.leave(parent, name);
        self.drop_name(ino);
        Ok(())
    }

    /// `renameat2(2)`.
    ///
    /// # Errors
    /// All of the page.
    pub fn rename(&mut self, who: Who, from: (u64, &[u8]), to: (u64, &[u8]), flags: u32) -> Verdict {
        let exchange = flags & RENAME_EXCHANGE != 0;
        let (moved, replaced) = self.check_rename(who, from, to, flags)?;
        if replaced == Some(moved) {
            return Ok(());
        }
        let now = self.now;
        self.leave(from.0, from.1);
        if let Some(replaced) = replaced {
            self.leave(to.0, to.1);
            if exchange {
                self.enter(from.0, from.1, replaced);
                self.at(replaced).ctime = now;
            }
        }
        self.enter(to.0, to.1, moved);
        self.at(moved).ctime = now;
        if let Some(replaced) = replaced.filter(|_| !exchange) {
            self.drop_name(replaced);
        }
        Ok(())
    }

    /// Both files, or every error that applies.
    fn check_rename(
        &self,
        who: Who,
        from: (u64, &[u8]),
        to: (u64, &[u8]),
        flags: u32,
    ) -> Result<(u64, Option<u64>), Faults> {
        let (exchange, no_replace) = (flags & RENAME_EXCHANGE != 0, flags & RENAME_NOREPLACE != 0);
        let mut faults = Faults::default();
        let is_unknown = flags & !(RENAME_EXCHANGE | RENAME_NOREPLACE) != 0;
        faults.add_if(is_unknown || exchange && no_replace, Errno::EINVAL);
        let (source, target) = match (self.dir(from.0), self.dir(to.0)) {
            (Ok(source), Ok(target)) => (source, target),
            (source, target) => {
                faults.join(source.map(|_| ()));
                faults.join(target.map(|_| ()));
                return Err(faults);
            }
        };
        let replaced = target.names.get(to.1).copied();
        faults.add_if(target.nlink == 0, Errno::ENOENT);
        faults.add_if(no_replace && replaced.is_some(), Errno::EEXIST);
        faults.add_if(exchange && replaced.is_none(), Errno::ENOENT);
        let Some(moved) = source.names.get(from.1).copied() else {
            faults.add_if(true, Errno::ENOENT);
            faults.join(who.check(source, 3));
            faults.join(who.check(target, 3));
            return Err(faults);
        };
        if replaced == Some(moved) {
            // Two links of one file, or a name onto itself: nothing is done (XSH `rename`), so only the way must be open.
            faults.join(who.check(source, 1));
            faults.join(who.check(target, 1));
            faults.check()?;
            return Ok((moved, replaced));
        }
        faults.join(self.check_move(who, (from.0, moved), (to.0, replaced), exchange));
        faults.check()?;
        Ok((moved, replaced))
    }

    fn check_move(
        &self,
        who: Who,
        (source, moved): (u64, u64),
        (target, replaced): (u64, Option<u64>),
        exchange: bool,
    ) -> Verdict {
        let mut faults = Faults::default();
        let (source_dir, target_dir, file) =
            (&self.files[&source], &self.files[&target], &self.files[&moved]);
        faults.join(who.check_removal(source_dir, file));
        faults.join(who.check(target_dir, 3));
        let is_loop = file.is_dir() && self.is_below(target, moved);
        faults.add_if(is_loop, Errno::EINVAL);
        // The name `..` in a directory that moves is written anew: that needs the right to write it.
        let changes_parent = |file: &File| file.is_dir() && source != target;
        faults.add_if(changes_parent(file) && !who.may(file, 2), Errno::EACCES);
        let Some(other) = replaced.map(|replaced| &self.files[&replaced]) else { return faults.check() };
        faults.join(who.check_removal(target_dir, other));
        if exchange {
            let is_loop = other.is_dir() && replaced.is_some_and(|other| self.is_below(source, other));
            faults.add_if(is_loop, Errno::EINVAL);
            faults.add_if(changes_parent(other) && !who.may(other, 2), Errno::EACCES);
        } else {
            faults.join(check_kind(other, file.is_dir()));
            // A directory that the source lies in is not empty, whatever else is wrong.
            faults.allow_if(other.is_dir() && !other.names.is_empty(), Errno::ENOTEMPTY);
        }
        faults.check()
    }

    /// Whether `dir` is `upper` or lies below it.
    fn is_below(&self, dir: u64, upper: u64) -> bool {
        let mut below = BTreeSet::from([upper]);
        let mut open = vec![upper];
        while let Some(at) = open.pop() {
            let names = self.files.get(&at).into_iter().flat_map(|file| file.names.values());
            open.extend(names.copied().filter(|child| below.insert(*child)));
        }
        below.contains(&dir)
    }

    fn enter(&mut self, parent: u64, name: &[u8], ino: u64) {
        let (now, is_dir) = (self.now, self.files[&ino].is_dir());
        let dir = self.at(parent);
        dir.names.insert(name.to_vec(), ino);
        dir.nlink += u32::from(is_dir);
        dir.touch(now);
    }

    fn leave(&mut self, parent: u64, name: &[u8]) {
        let now = self.now;
        let ino = self.at(parent).names.remove(name).expect("the operation has looked before");
        let is_dir = self.files[&ino].is_dir();
        let dir = self.at(parent);
        dir.nlink -= u32::from(is_dir);
        dir.touch(now);
    }

    fn drop_name(&mut self, ino: u64) {
        let now = self.now;
        let file = self.at(ino);
        file.nlink = if file.is_dir() { 0 } else { file.nlink - 1 };
        file.ctime = now;
        self.bury(ino);
    }
}

/// Whether a file may be removed as a directory, or as something else.
fn check_kind(file: &File, as_dir: bool) -> Verdict {
    let mut faults = Faults::default();
    faults.add_if(as_dir && !file.is_dir(), Errno::ENOTDIR);
    faults.add_if(!as_dir && file.is_dir(), Errno::EISDIR);
    faults.add_if(as_dir && !file.names.is_empty(), Errno::ENOTEMPTY);
    faults.check()
}

/// Mode and group of something new: the umask, and what a set-gid directory hands down (`inode(7)`).
fn new_mode(who: Who, dir: &File, make: &Make, masked: u32) -> (u32, u32) {
    let kind = make.mode & S_IFMT;
    let mut mode = make.mode & (S_IFMT | 0o7777);
    let inherits = dir.mode & 0o2000 != 0;
    let gid = if inherits { dir.gid } else { who.gid };
    if inherits && kind == S_IFDIR {
        mode |= 0o2000;
    } else if inherits && who.is_plain && who.gid != dir.gid && mode & 0o2010 == 0o2010 {
        // Nobody makes a program of a group that he is not in.
        mode &= !0o2000;
    }
    if kind != S_IFLNK {
        mode &= !(make.umask & 0o777) & !(masked & 0o777);
    }
    (mode, gid)
}
