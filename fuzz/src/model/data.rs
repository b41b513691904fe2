//! Bytes of files, and extended attributes.

use flexfs_wire::errno::Errno;
use flexfs_wire::limits::FILE_BYTES_MAX;
use flexfs_wire::message::{FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, XattrMode};
use flexfs_wire::time::Time;

use super::{Faults, File, Model, Verdict, Who};

impl Model {
    fn regular(&self, ino: u64) -> Result<&File, Faults> {
        let file = self.get(ino)?;
        match file {
            _ if file.is_regular() => Ok(file),
            _ if file.is_dir() => Err(Errno::EISDIR.into()),
            _ => Err(Errno::EINVAL.into()),
        }
    }

    /// Whether there is such a regular file.
    ///
    /// # Errors
    /// `EISDIR`, `EINVAL`, `ESTALE`.
    pub fn check_regular(&self, ino: u64) -> Verdict {
        self.regular(ino).map(|_| ())
    }

    /// Writes parts, one after the other, at `time` by the writer's clock.
    ///
    /// # Errors
    /// `EISDIR`, `EINVAL`.
    pub fn write(
        &mut self,
        ino: u64,
        parts: &[(usize, Vec<u8>)],
        time: Option<Time>,
        kills: bool,
    ) -> Verdict {
        self.check_regular(ino)?;
        if parts.is_empty() {
            return Ok(());
        }
        let now = self.now;
        let file = self.at(ino);
        for (offset, bytes) in parts {
            let end = offset + bytes.len();
            if file.bytes.len() < end {
                file.bytes.resize(end, 0);
            }
            file.bytes[*offset..end].copy_from_slice(bytes);
        }
        file.mtime = time.unwrap_or(now).min(now);
        file.ctime = if time.is_some() { file.ctime.max(file.mtime) } else { now };
        if kills {
            file.clear_set_id();
        }
        Ok(())
    }

    /// `fallocate(2)`.
    ///
    /// # Errors
    /// `EINVAL`, `EFBIG`, `EOPNOTSUPP`, `ENODEV`, `EISDIR`.
    pub fn fallocate(&mut self, who: Who, ino: u64, mode: u32, offset: u64, length: u64) -> Verdict {
        let keeps = mode & FALLOC_KEEP_SIZE != 0;
        let zeroes = mode & (FALLOC_PUNCH_HOLE | FALLOC_ZERO_RANGE) != 0;
        let known = [0, FALLOC_ZERO_RANGE].contains(&(mode & !FALLOC_KEEP_SIZE))
            || mode == FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE;
        let mut faults = Faults::default();
        faults.add_if(!known, Errno::EOPNOTSUPP);
        faults.add_if(length == 0, Errno::EINVAL);
        faults.add_if(offset.checked_add(length).is_none_or(|end| end > FILE_BYTES_MAX), Errno::EFBIG);
        let file = self.get_or(ino, &mut faults)?;
        faults.add_if(!file.is_regular(), Errno::ENODEV);
        faults.allow_if(file.is_dir(), Errno::EISDIR);
        faults.check()?;
        let now = self.now;
        let place = |offset| usize::try_from(offset).expect("drivers keep files small");
        let (from, to) = (place(offset), place(offset + length));
        let file = self.at(ino);
        if !keeps && file.bytes.len() < to {
            file.bytes.resize(to, 0);
        }
        if zeroes {
            let end = to.min(file.bytes.len());
            file.bytes[from.min(end)..end].fill(0);
        }
        file.touch(now);
        file.may_have_extents = true;
        // As a write by anybody but root does.
        if who.uid != 0 {
            file.clear_set_id();
        }
        Ok(())
    }

    /// `copy_file_range(2)`: how much there is to copy.
    ///
    /// # Errors
    /// `EINVAL` for overlapping ranges, `EISDIR`, `ESTALE`.
    pub fn copied(
        &self,
        (source, from): (u64, usize),
        (target, to): (u64, usize),
        length: usize,
    ) -> Result<usize, Faults> {
        let mut faults = Faults::default();
        faults.join(self.check_regular(source));
        faults.join(self.check_regular(target));
        faults.check()?;
        let length = length.min(self.files[&source].bytes.len().saturating_sub(from));
        if source == target && from < to + length && to < from + length {
            return Err(Errno::EINVAL.into());
        }
        Ok(length)
    }

    /// Copies that much.
    pub fn copy(
        &mut self,
        who: Who,
        (source, from): (u64, usize),
        (target, to): (u64, usize),
        length: usize,
    ) {
        let bytes = self.files[&source].bytes[from..from + length].to_vec();
        self.write(target, &[(to, bytes)], None, who.uid != 0).expect("it was looked at before");
        self.at(target).may_have_extents = true;
    }

    /// `setxattr(2)` of a kept namespace, or `removexattr(2)` when there is no value.
    ///
    /// # Errors
    /// `EEXIST`, `ENODATA`, `EOPNOTSUPP`, `ERANGE`, `EACCES`, `EPERM`.
    pub fn set_xattr(
        &mut self,
        who: Who,
        ino: u64,
        name: &[u8],
        value: Option<&[u8]>,
        mode: XattrMode,
    ) -> Verdict {
        let now = self.now;
        let mut faults = Faults::default();
        faults.join(check_xattr_name(name));
        let file = self.get_or(ino, &mut faults)?;
        let is_there = file.xattrs.contains_key(name);
        let is_user = name.starts_with(b"user.");
        faults.add_if(is_user && !who.may(file, 2), Errno::EACCES);
        // `xattr(7)`: in a sticky directory user attributes are its owner's to set.
        let is_stuck = file.is_dir() && file.mode & 0o1000 != 0 && !who.owns(file);
        faults.add_if(is_user && is_stuck, Errno::EPERM);
        // `trusted.` and `security.` are a capability's, which a process without privilege has not.
        faults.add_if(!is_user && who.is_plain, Errno::EPERM);
        match value {
            None => faults.add_if(!is_there, Errno::ENODATA),
            Some(_) => {
                faults.add_if(is_there && mode == XattrMode::Create, Errno::EEXIST);
                faults.add_if(!is_there && mode == XattrMode::Replace, Errno::ENODATA);
            }
        }
        faults.check()?;
        let file = self.at(ino);
        match value {
            Some(value) => file.xattrs.insert(name.to_vec(), value.to_vec()),
            None => file.xattrs.remove(name),
        };
        file.ctime = now;
        Ok(())
    }

    /// `getxattr(2)`.
    ///
    /// # Errors
    /// `ENODATA`, `EOPNOTSUPP`, `ERANGE`, `EACCES`.
    pub fn xattr(&self, who: Who, ino: u64, name: &[u8]) -> Result<Vec<u8>, Faults> {
        let mut faults = Faults::default();
        faults.join(check_xattr_name(name));
        let file = self.get_or(ino, &mut faults)?;
        faults.join(who.check(file, 4));
        faults.add_if(!file.xattrs.contains_key(name), Errno::ENODATA);
        // `xattr(7)`: trusted attributes are seen by the privileged only.
        faults.add_if(who.is_plain && name.starts_with(b"trusted."), Errno::ENODATA);
        faults.check()?;
        Ok(file.xattrs[name].clone())
    }
}

fn check_xattr_name(name: &[u8]) -> Verdict {
    let mut faults = Faults::default();
    faults.add_if(name.is_empty() || name.len() > 255, Errno::ERANGE);
    let known = ["user.", "trusted.", "security."]
        .iter()
        .any(|known| name.strip_prefix(known.as_bytes()).is_some_and(|rest| !rest.is_empty()));
    faults.add_if(!known, Errno::EOPNOTSUPP);
    faults.check()
}
