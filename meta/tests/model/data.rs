//! The bytes of files in the model.

use flexfs_wire::errno::Errno;
use flexfs_wire::time::Time;

use super::{File, Model};

impl File {
    pub(crate) fn resize(&mut self, size: u64, now: Time) -> Result<(), Errno> {
        if self.is_dir() {
            return Err(Errno::EISDIR);
        }
        if !self.is_regular() {
            return Err(Errno::EINVAL);
        }
        self.bytes.resize(usize::try_from(size).expect("small in tests"), 0);
        (self.mtime, self.ctime) = (now, now);
        Ok(())
    }

    fn overwrite(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
    }
}

impl Model {
    fn regular(&mut self, ino: u64) -> Result<&mut File, Errno> {
        let file = self.files.get_mut(&ino).ok_or(Errno::ESTALE)?;
        match file {
            _ if file.is_dir() => Err(Errno::EISDIR),
            _ if !file.is_regular() => Err(Errno::EINVAL),
            _ => Ok(file),
        }
    }

    /// Writes parts, one after the other.
    pub(crate) fn write(&mut self, ino: u64, parts: &[(usize, Vec<u8>)]) -> Result<(), Errno> {
        let now = self.now;
        let file = self.regular(ino)?;
        for (offset, bytes) in parts {
            file.overwrite(*offset, bytes);
        }
        (file.mtime, file.ctime) = (now, now);
        Ok(())
    }

    /// `fallocate(2)`: `zero` makes the range zeros; without `keep_size` the file reaches its end.
    pub(crate) fn fallocate(
        &mut self,
        ino: u64,
        range: (usize, usize),
        zero: bool,
        keep_size: bool,
    ) -> Result<(), Errno> {
        let now = self.now;
        let file = match self.regular(ino) {
            Err(Errno::EINVAL) => return Err(Errno::ENODEV),
            other => other?,
        };
        if !keep_size && file.bytes.len() < range.1 {
            file.bytes.resize(range.1, 0);
        }
        if zero {
            let end = range.1.min(file.bytes.len());
            file.bytes[range.0.min(end)..end].fill(0);
        }
        (file.mtime, file.ctime) = (now, now);
        // The callers are ordinary users.
        file.kill_privileges();
        Ok(())
    }

    /// `copy_file_range(2)`; gives how much there is to copy.
    pub(crate) fn copied(
        &mut self,
        source: u64,
        from: usize,
        target: u64,
        to: usize,
        length: usize,
    ) -> Result<usize, Errno> {
        let bytes = &self.regular(source)?.bytes;
        let length = length.min(bytes.len().saturating_sub(from));
        self.regular(target)?;
        if source == target && from < to + length && to < from + length {
            return Err(Errno::EINVAL);
        }
        Ok(length)
    }

    pub(crate) fn copy(
        &mut self,
        source: u64,
        from: usize,
        target: u64,
        to: usize,
        length: usize,
    ) -> Result<(), Errno> {
        let bytes = self.regular(source)?.bytes[from..from + length].to_vec();
        self.write(target, &[(to, bytes)])?;
        self.at(target).kill_privileges();
        Ok(())
    }
}
