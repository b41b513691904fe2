//! Attaching to a mount point and letting go of it: checks, `mount(2)`, `umount2(2)`, what sysfs says about it.
//!
//! Nothing here asks the file system itself (no `stat` of the mount point once it is mounted): the answers come from
//! the mount table, so that a mount that does not answer can still be taken down.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flexfs_uring::clock;
use flexfs_wire::limits::FUSE_IO_BYTES_MAX;
use flexfs_wire::settings::Flags;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

/// Type shown in the mount table; the kernel takes `fuse`, with `flexfs` as its subtype.
pub const FS_TYPE: &str = "fuse.flexfs";
/// The device of FUSE.
const DEVICE: &str = "/dev/fuse";
/// The mount table of this process (proc_pid_mountinfo(5)).
const MOUNT_TABLE: &str = "/proc/self/mountinfo";
/// Readahead of the kernel per file in KiB: two of the largest requests, so that one is always on its way.
const READ_AHEAD_KIB: u32 = 2048;
/// Time for a mount to say that it is dead.
const PROBE_TIME: Duration = Duration::from_secs(2);
/// Pause between attempts to unmount something busy.
const UMOUNT_PAUSE: Duration = Duration::from_millis(100);

/// Why nothing can be mounted here.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The mount point.
    #[error("{}: {text}", path.display())]
    MountPoint {
        /// Where.
        path: PathBuf,
        /// What is wrong, and what to do.
        text: String,
    },
    /// The device.
    #[error("cannot open {DEVICE}: {source}{}", device_hint(source))]
    Device {
        /// The errno.
        source: io::Error,
    },
    /// `mount(2)`.
    #[error("cannot mount on {}: {source}{}", path.display(), mount_hint(source))]
    Mount {
        /// Where.
        path: PathBuf,
        /// The errno.
        source: io::Error,
    },
}

fn device_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            " (load the module with `modprobe fuse`; in a container, pass --device /dev/fuse)"
        }
        io::ErrorKind::PermissionDenied => " (run as root)",
        _ => "",
    }
}

fn mount_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => " (mounting needs root, or CAP_SYS_ADMIN in a container)",
        _ => "",
    }
}

/// One line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Device number, `major:minor`, as sysfs names it.
    pub device: String,
    /// Where.
    pub target: PathBuf,
    /// Type, e.g. `fuse.flexfs`.
    pub fs_type: String,
    /// What, e.g. the volume.
    pub source: OsString,
}

impl Mounted {
    /// Number of the FUSE connection: the minor device number.
    #[must_use]
    pub fn connection(&self) -> Option<u64> {
        self.device.split_once(':').and_then(|(_, minor)| minor.parse().ok())
    }

    /// Raises the kernel's readahead; INIT only allows to lower it.
    ///
    /// # Errors
    /// Those of writing to sysfs.
    pub fn raise_read_ahead(&self) -> io::Result<()> {
        let path = format!("/sys/class/bdi/{}/read_ahead_kb", self.device);
        std::fs::write(path, READ_AHEAD_KIB.to_string())
    }

    /// Breaks the connection: whatever waits for an answer gets an error, and the mount is dead.
    ///
    /// # Errors
    /// Those of writing to the FUSE control file system.
    pub fn abort(&self) -> io::Result<()> {
        let Some(connection) = self.connection() else { return Ok(()) };
        std::fs::write(format!("/sys/fs/fuse/connections/{connection}/abort"), "1")
    }
}

/// Checks a mount point before anything else is done, and gives its real path.
///
/// # Errors
/// Missing, no directory, not empty (unless allowed), a dead mount, a flexfs mount already.
pub fn check_mount_point(path: &Path, non_empty: bool) -> Result<PathBuf, AttachError> {
    let refuse = |text: String| AttachError::MountPoint { path: path.to_owned(), text };
    let dead =
        || refuse(format!("a dead mount is in the way; take it off with: umount -l {}", path.display()));
    let taken = |target: &Path| match find(target) {
        Ok(Some(mounted)) if mounted.fs_type == FS_TYPE && is_dead(target) => Err(dead()),
        Ok(Some(mounted)) if mounted.fs_type == FS_TYPE => Err(refuse(format!(
            "volume {} is mounted here already; see: mount.flexfs status {}",
            mounted.source.to_string_lossy(),
            target.display()
        ))),
        _ => Ok(()),
    };
    // By its own name first: a mount that does not answer must not be asked.
    taken(path)?;
    let target = path.canonicalize().map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::NOENT) => refuse(format!("no such directory; make it with: mkdir -p {}", path.display())),
        Some(Errno::NOTCONN) => dead(),
        _ => refuse(error.to_string()),
    })?;
    taken(&target)?;
    if !target.is_dir() {
        return Err(refuse("not a directory".to_owned()));
    }
    if !non_empty {
        let mut entries = target.read_dir().map_err(|error| refuse(error.to_string()))?;
        if entries.next().is_some() {
            return Err(refuse(
                "the directory is not empty; choose another, or allow it with --nonEmpty".to_owned(),
            ));
        }
    }
    Ok(target)
}

/// Whether nobody serves the mount on `target` any more. The kernel then says so at once; one that is only slow, or
/// waits for its server, is alive, and asked from a thread that may be left behind.
fn is_dead(target: &Path) -> bool {
    let (done, asked) = crossbeam::channel::bounded(1);
    let target = target.to_owned();
    let ask = move || {
        let errno = rustix::fs::stat(&target).err();
        // Nobody listens any more when it took too long.
        let _ = done.send(errno == Some(Errno::NOTCONN));
    };
    let started = std::thread::Builder::new().name("probe".to_owned()).spawn(ask);
    started.is_ok() && asked.recv_timeout(PROBE_TIME).unwrap_or(false)
}

/// Opens the FUSE device. `blocking` is for transports whose threads wait in `read(2)`.
///
/// # Errors
/// [`AttachError::Device`].
pub fn open_device(blocking: bool) -> Result<OwnedFd, AttachError> {
    let nonblock = if blocking { OFlags::empty() } else { OFlags::NONBLOCK };
    rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC | nonblock, Mode::empty())
        .map_err(|errno| AttachError::Device { source: errno.into() })
}

/// Mounts a device. The kernel then sends INIT and waits for its answer.
///
/// # Errors
/// [`AttachError::Mount`].
pub fn mount(device: impl AsFd, source: &str, target: &Path, flags: Flags) -> Result<(), AttachError> {
    let failed = |source: io::Error| AttachError::Mount { path: target.to_owned(), source };
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other,max_read={FUSE_IO_BYTES_MAX}",
        device.as_fd().as_raw_fd(),
    );
    let options = CString::new(options).map_err(|error| failed(error.into()))?;
    // Device nodes are data of a shared volume; opening them here would reach this machine's devices.
    let mut mount_flags = MountFlags::NODEV;
    mount_flags.set(MountFlags::RDONLY, flags.ro);
    mount_flags.set(MountFlags::NOEXEC, flags.no_exec);
    mount_flags.set(MountFlags::NOSUID, flags.no_suid);
    mount_flags.set(MountFlags::NOATIME, flags.no_atime);
    rustix::mount::mount(source, target, FS_TYPE, mount_flags, options.as_c_str())
        .map_err(|errno| failed(errno.into()))
}

/// The topmost mount on `target`.
///
/// # Errors
/// When there is no mount table.
pub fn find(target: &Path) -> io::Result<Option<Mounted>> {
    let table = std::fs::read(MOUNT_TABLE)?;
    Ok(parse_table(&table).filter(|mounted| mounted.target == target).last())
}

/// How unmounting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// Cleanly, or somebody else had done it.
    Clean,
    /// Not: programs work in it.
    Busy,
}

/// Unmounts `target`; what is busy is tried until `deadline`.
///
/// # Errors
/// Those of `umount2(2)` but `EBUSY`.
pub fn unmount(target: &Path, deadline: Instant) -> io::Result<Unmounted> {
    loop {
        match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => return Ok(Unmounted::Clean),
            Err(Errno::BUSY) if clock::now() < deadline => std::thread::sleep(UMOUNT_PAUSE),
            Err(Errno::BUSY) => return Ok(Unmounted::Busy),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Takes `target` out of the tree at once.
///
/// # Errors
/// Those of `umount2(2)`.
pub fn detach(target: &Path) -> io::Result<()> {
    match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// `36 35 98:0 /root /mount/point opts tags.. - type source options`, blanks and backslashes in octal.
fn parse_table(table: &[u8]) -> impl Iterator<Item = Mounted> {
    table.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let device = String::from_utf8(fields.nth(2)?.to_vec()).ok()?;
        let target = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
        let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
        let fs_type = String::from_utf8(fields.next()?.to_vec()).ok()?;
        let source = OsString::from_vec(unescape(fields.next()?));
        Some(Mounted { device, target, fs_type, source })
    })
}

fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, behind)) = rest.split_first() {
        let octal = behind.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &behind[3..];
            }
            _ => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt as _;

    #[test]
    fn the_topmost_mount_counts() {
        let table = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
            40 22 0:51 / /mnt/with\\040blank rw - tmpfs tmpfs rw\n\
            41 40 0:52 / /mnt/with\\040blank rw,nodev shared:7 master:2 - fuse.flexfs my\\134vol rw,user_id=0\n\
            broken line\n";
        let all: Vec<Mounted> = parse_table(table).collect();
        assert_eq!(all.len(), 3);
        let last = all.iter().rfind(|one| one.target == Path::new("/mnt/with blank")).unwrap();
        assert_eq!((last.fs_type.as_str(), last.connection()), (FS_TYPE, Some(52)));
        assert_eq!(last.source.as_bytes(), b"my\\vol");
        assert!(find(Path::new("/")).unwrap().is_some());
    }

    #[test]
    fn mount_points_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        assert_eq!(check_mount_point(dir.path(), false).unwrap(), real);
        std::fs::write(dir.path().join("file"), "").unwrap();
        let text = |path: &Path, non_empty| check_mount_point(path, non_empty).unwrap_err().to_string();
        assert!(text(dir.path(), false).ends_with("allow it with --nonEmpty"));
        assert_eq!(check_mount_point(dir.path(), true).unwrap(), real);
        assert!(text(&dir.path().join("file"), true).ends_with("not a directory"));
        assert!(text(&dir.path().join("absent"), true).contains("mkdir -p"));
    }
}
