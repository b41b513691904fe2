//! The mount point: whether it can be used, and what is mounted on it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

/// Time for a file system to say that it is dead.
const PROBE_TIME: Duration = Duration::from_secs(3);

/// What is mounted on a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mounted {
    /// Type of the file system, as in `fuse.flexfs`.
    pub(crate) kind: String,
    /// Its source, as in the name of a volume.
    pub(crate) source: String,
}

impl Mounted {
    /// Whether it is a flexfs mount.
    pub(crate) fn is_flexfs(&self) -> bool {
        self.kind == "fuse.flexfs" || self.kind == "flexfs"
    }
}

/// The path as the mount table has it: absolute, its folder without symbolic links. The last part is not followed, for
/// a dead mount there cannot be looked at.
pub(crate) fn resolve(path: &Path) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    // readlink(2), not lstat(2): the kernel answers it for a mounted directory without asking the file system, which may
    // wait for a server that we are about to start.
    if fs::read_link(&path).is_ok() {
        return path.canonicalize().with_context(|| format!("follow {}", path.display()));
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = parent.canonicalize().with_context(|| missing(&path))?;
            Ok(parent.join(name))
        }
        _ => bail!("{} cannot be a mount point", path.display()),
    }
}

/// What is mounted on `path`, topmost.
pub(crate) fn mounted(path: &Path) -> anyhow::Result<Option<Mounted>> {
    let table = fs::read("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    Ok(find(&String::from_utf8_lossy(&table), path))
}

/// Fails with the cause when `path` cannot be mounted on.
pub(crate) fn check_free(path: &Path) -> anyhow::Result<()> {
    if let Some(found) = mounted(path)? {
        bail!(
            "{} is in use: {} ({}) is mounted there; unmount it, or choose another mount point",
            path.display(),
            found.source,
            found.kind
        );
    }
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("{}", missing(path)),
        Err(error) => return Err(error).with_context(|| format!("look at {}", path.display())),
    };
    if !meta.is_dir() {
        bail!("the mount point {} is no directory", path.display());
    }
    if fs::read_dir(path).with_context(|| format!("look into {}", path.display()))?.next().is_some() {
        bail!("the mount point {} is not empty: its files would be hidden; choose another", path.display());
    }
    Ok(())
}

/// Whether the FUSE process behind the mount on `path` is gone: the kernel then answers at once. A mount that does not
/// answer is alive and waits for its server, so this one does not wait for it.
pub(crate) fn is_dead(path: &Path) -> bool {
    let (answer, asked) = mpsc::channel();
    let path = path.to_owned();
    std::thread::spawn(move || answer.send(rustix::fs::statfs(&path).err()));
    matches!(asked.recv_timeout(PROBE_TIME), Ok(Some(Errno::NOTCONN | Errno::CONNABORTED)))
}

/// Takes a dead mount out of the way.
pub(crate) fn detach(path: &Path) -> anyhow::Result<()> {
    unmount(path, UnmountFlags::DETACH).with_context(|| format!("unmount {}", path.display()))
}

/// Unmounts; `false` when somebody works in it.
pub(crate) fn try_unmount(path: &Path) -> anyhow::Result<bool> {
    match unmount(path, UnmountFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::BUSY) => Ok(false),
        // Not mounted any more: somebody was faster.
        Err(Errno::INVAL) => Ok(true),
        Err(error) => Err(error).with_context(|| format!("unmount {}", path.display())),
    }
}

fn missing(path: &Path) -> String {
    format!("the mount point {} does not exist: make it with `mkdir -p {}`", path.display(), path.display())
}

/// Finds the last (topmost) line for `path` in a mountinfo table (proc(5)): field 5 is the mount point; type and source
/// follow the separator ` - `.
fn find(table: &str, path: &Path) -> Option<Mounted> {
    table.lines().rev().find_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        let point = unescape(head.split(' ').nth(4)?);
        if point != path.as_os_str().as_bytes() {
            return None;
        }
        let mut tail = tail.split(' ');
        let kind = tail.next()?.to_owned();
        let source = String::from_utf8_lossy(&unescape(tail.next()?)).into_owned();
        Some(Mounted { kind, source })
    })
}

/// Undoes the octal escapes of the mount table: `\040` is a space.
fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let digits = bytes.get(index + 1..index + 4).filter(|_| bytes[index] == b'\\');
        let octal = digits.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        plain.push(octal.unwrap_or(bytes[index]));
        index += if octal.is_some() { 4 } else { 1 };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "22 1 254:0 / / rw - ext4 /dev/vda rw\n\
        30 22 0:40 / /mnt/a\\040b rw,nosuid shared:1 master:2 - fuse.flexfs main rw\n\
        31 22 0:41 / /mnt/x rw - tmpfs tmpfs rw\n\
        32 22 0:42 / /mnt/x rw - fuse.flexfs two rw\n\
        broken\n";

    #[test]
    fn mount_table() {
        let kind = |path: &str| find(TABLE, Path::new(path)).map(|found| (found.kind, found.source));
        assert_eq!(kind("/mnt/a b"), Some(("fuse.flexfs".into(), "main".into())));
        assert_eq!(kind("/mnt/x"), Some(("fuse.flexfs".into(), "two".into())));
        assert_eq!(kind("/mnt"), None);
    }

    #[test]
    fn points_that_cannot_be_used_say_why() {
        let dir = tempfile::tempdir().unwrap();
        let told = |path: &Path| check_free(path).unwrap_err().to_string();
        assert!(check_free(dir.path()).is_ok());
        assert!(told(&dir.path().join("none")).contains("mkdir -p"));
        fs::write(dir.path().join("file"), "x").unwrap();
        assert!(told(&dir.path().join("file")).contains("no directory"));
        assert!(told(dir.path()).contains("not empty"));
        assert!(told(Path::new("/proc")).contains("is mounted there"));
    }

    #[test]
    fn paths_resolve_without_looking_at_the_last_part() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        fs::create_dir(real.join("d")).unwrap();
        std::os::unix::fs::symlink(real.join("d"), real.join("link")).unwrap();
        assert_eq!(resolve(&real.join("link/none")).unwrap(), real.join("d/none"));
        assert_eq!(resolve(&real.join("link")).unwrap(), real.join("d"));
        assert_eq!(resolve(&real.join("d/")).unwrap(), real.join("d"));
        assert!(resolve(&real.join("no/where")).is_err());
        assert!(resolve(Path::new("/")).is_err());
    }
}
