//! Settings of one mount, from wherever they come: the command line, or `mount(8)` and its options.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, ValueEnum};
use flexfs_uring::wakeful::Latency;
use flexfs_wire::settings::Flags;

/// Where locks, sockets of `status` and the like are.
pub const STATE_FOLDER: &str = "/run/flexfs";
/// Where logs of daemons are.
const LOG_FOLDER: &str = "/var/log/flexfs";

/// How requests come from the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// io_uring where the kernel offers it, else /dev/fuse.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// /dev/fuse, through fuser.
    Dev,
}

impl Transport {
    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Dev => "dev",
        }
    }
}

/// A size in bytes, or a part of the machine's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// Bytes.
    Bytes(u64),
    /// Percent of memory, 1 to 100.
    Percent(u8),
}

impl FromStr for Capacity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no size; examples: 10%, 512M, 4G, 1073741824");
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.parse::<u8>().ok().filter(|percent| (1..=100).contains(percent));
            return percent.map(Self::Percent).ok_or_else(bad);
        }
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
            "" => 0,
            "K" | "KIB" => 10,
            "M" | "MIB" => 20,
            "G" | "GIB" => 30,
            "T" | "TIB" => 40,
            _ => return Err(bad()),
        };
        let number = digits.parse::<u64>().map_err(|_| bad())?;
        number.checked_mul(1 << shift).filter(|&bytes| bytes > 0).map(Self::Bytes).ok_or_else(bad)
    }
}

impl std::fmt::Display for Capacity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Settings of one mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct MountArgs {
    /// Name of the volume.
    pub volume: String,
    /// Directory to mount it on.
    pub mount_point: PathBuf,
    /// Read-only.
    #[arg(long = "ro")]
    pub ro: bool,
    /// Reading does not change access times (else as `relatime`).
    #[arg(long = "noATime")]
    pub no_atime: bool,
    /// No execution of programs.
    #[arg(long = "noExec")]
    pub no_exec: bool,
    /// Set-uid and set-gid bits have no effect.
    #[arg(long = "noSUID")]
    pub no_suid: bool,
    /// No POSIX access control lists: they can be neither set nor seen, and modes alone decide.
    #[arg(long = "noACL")]
    pub no_acl: bool,
    /// Allow a mount point that is not empty.
    #[arg(long = "nonEmpty")]
    pub non_empty: bool,
    /// Permission bits taken off everything made here, octal, besides the process's own umask.
    #[arg(long = "umask", value_parser = parse_umask)]
    pub umask: Option<u16>,
    /// Credentials file [default: ~/.flexfs/mount/creds/VOLUME].
    #[arg(long = "credsFile")]
    pub creds_file: Option<PathBuf>,
    /// How requests come from the kernel.
    #[arg(long = "transport", value_enum, default_value_t)]
    pub transport: Transport,
    /// How long idle CPUs may take to wake up while requests come: auto, off, or microseconds. auto: virtual ones do not sleep, others lightly.
    #[arg(long = "cpuLatency", default_value_t)]
    pub cpu_latency: Latency,
    /// While the server is away, fail with an error after a while instead of waiting.
    #[arg(long = "soft")]
    pub soft: bool,
    /// Memory for cached and unwritten data, e.g. 10%, 4G [default: 1/8 of memory, at most 4G].
    #[arg(long = "memCapacity")]
    pub mem_capacity: Option<Capacity>,
    /// Cache what is read on this machine's disk, at most so much, e.g. 64M, 10G, 5% (of the folder's file system) [default: no].
    #[arg(long = "diskQuota")]
    pub disk_quota: Option<Capacity>,
    /// Folder of the disk cache, on a local disk [default: ~/.flexfs/mount/cache].
    #[arg(long = "diskFolder", requires = "disk_quota")]
    pub disk_folder: Option<PathBuf>,
    /// Log of the daemon [default: /var/log/flexfs/MOUNT-POINT.log].
    #[arg(long = "logFile")]
    pub log_file: Option<PathBuf>,
    /// Folder for locks and the socket of `status`.
    #[arg(long = "stateFolder", default_value = STATE_FOLDER)]
    pub state_folder: PathBuf,
    /// Log more.
    #[arg(long = "verbose", short = 'v')]
    pub verbose: bool,
}

impl MountArgs {
    /// For `volume` on `mount_point`, all else as when nothing is said.
    #[must_use]
    pub fn new(volume: &str, mount_point: &Path) -> Self {
        Self {
            volume: volume.to_owned(),
            mount_point: mount_point.to_owned(),
            state_folder: PathBuf::from(STATE_FOLDER),
            ..Self::default()
        }
    }

    /// Makes all paths absolute, for a process that works in `/`.
    ///
    /// # Errors
    /// When the working directory is gone.
    pub fn make_absolute(&mut self) -> std::io::Result<()> {
        let absolute = |path: &mut PathBuf| std::path::absolute(&*path).map(|whole| *path = whole);
        absolute(&mut self.mount_point)?;
        absolute(&mut self.state_folder)?;
        self.creds_file.as_mut().map(absolute).transpose()?;
        self.log_file.as_mut().map(absolute).transpose()?;
        self.disk_folder.as_mut().map(absolute).transpose()?;
        Ok(())
    }

    /// Takes options of `mount(8)` over, e.g. `ro,credsFile=/etc/flexfs/creds,_netdev`.
    ///
    /// # Errors
    /// Unknown options and bad values, by name.
    pub fn apply_options(&mut self, options: &str) -> Result<(), String> {
        options
            .split(',')
            .filter(|option| !option.is_empty())
            .try_for_each(|option| self.apply_option(option))
    }

    fn apply_option(&mut self, option: &str) -> Result<(), String> {
        let (key, value) = option.split_once('=').map_or((option, None), |(key, value)| (key, Some(value)));
        let text =
            || value.filter(|value| !value.is_empty()).ok_or_else(|| format!("option {key} needs a value"));
        match key {
            "ro" => self.ro = true,
            "rw" => self.ro = false,
            "noATime" | "noatime" => self.no_atime = true,
            "atime" | "relatime" => self.no_atime = false,
            "noExec" | "noexec" => self.no_exec = true,
            "exec" => self.no_exec = false,
            "noSUID" | "nosuid" => self.no_suid = true,
            "suid" => self.no_suid = false,
            "noACL" | "noacl" => self.no_acl = true,
            "acl" => self.no_acl = false,
            "nonEmpty" | "nonempty" => self.non_empty = true,
            "soft" => self.soft = true,
            "hard" => self.soft = false,
            "verbose" => self.verbose = true,
            "umask" => self.umask = Some(parse_umask(text()?)?),
            "credsFile" => self.creds_file = Some(PathBuf::from(text()?)),
            "logFile" => self.log_file = Some(PathBuf::from(text()?)),
            "stateFolder" => self.state_folder = PathBuf::from(text()?),
            "memCapacity" => self.mem_capacity = Some(text()?.parse()?),
            "diskQuota" => self.disk_quota = Some(text()?.parse()?),
            "diskFolder" => self.disk_folder = Some(PathBuf::from(text()?)),
            "cpuLatency" => self.cpu_latency = text()?.parse()?,
            "transport" => {
                self.transport = Transport::from_str(text()?, false)
                    .map_err(|_| "option transport is auto, uring or dev".to_owned())?;
            }
            // For mount(8), systemd and people; nodev is always in force.
            "defaults" | "_netdev" | "nofail" | "auto" | "noauto" | "nodev" | "async" | "user" | "nouser"
            | "users" | "group" | "owner" | "dirsync" | "sync" | "nodiratime" | "diratime"
            | "strictatime" | "lazytime" | "nolazytime" | "silent" | "loud" | "dev" | "comment" => {}
            other if other.starts_with("x-") || other.starts_with("X-") => {}
            other => return Err(format!("unknown mount option {other:?}; see: mount.flexfs start --help")),
        }
        Ok(())
    }

    /// The arguments of `start` that mean the same.
    #[must_use]
    pub fn to_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        let flags = [
            (self.ro, "--ro"),
            (self.no_atime, "--noATime"),
            (self.no_exec, "--noExec"),
            (self.no_suid, "--noSUID"),
            (self.no_acl, "--noACL"),
            (self.non_empty, "--nonEmpty"),
            (self.soft, "--soft"),
            (self.verbose, "--verbose"),
        ];
        args.extend(flags.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag.into()));
        let mut pair = |flag: &str, value: OsString| args.extend([OsString::from(flag), value]);
        if let Some(umask) = self.umask {
            pair("--umask", format!("{umask:o}").into());
        }
        if let Some(path) = &self.creds_file {
            pair("--credsFile", path.into());
        }
        if let Some(path) = &self.log_file {
            pair("--logFile", path.into());
        }
        if let Some(capacity) = self.mem_capacity {
            pair("--memCapacity", capacity.to_string().into());
        }
        if let Some(quota) = self.disk_quota {
            pair("--diskQuota", quota.to_string().into());
        }
        if let Some(path) = &self.disk_folder {
            pair("--diskFolder", path.into());
        }
        pair("--stateFolder", self.state_folder.clone().into());
        pair("--transport", self.transport.name().into());
        pair("--cpuLatency", self.cpu_latency.to_string().into());
        args.extend(["--".into(), self.volume.clone().into(), self.mount_point.clone().into()]);
        args
    }

    /// What is asked of the server; it may be stricter.
    #[must_use]
    pub fn flags(&self) -> Flags {
        Flags {
            ro: self.ro,
            no_exec: self.no_exec,
            no_suid: self.no_suid,
            // Nothing is written to a read-only mount.
            no_atime: self.no_atime || self.ro,
            no_acl: self.no_acl,
            root_squash: false,
            umask: self.umask.unwrap_or(0),
        }
    }

    /// The credentials file in force.
    #[must_use]
    pub fn creds_path(&self) -> PathBuf {
        self.creds_file.clone().unwrap_or_else(|| default_creds_path(&self.volume))
    }

    /// Folder and quota of the disk cache, if there is to be one.
    ///
    /// # Errors
    /// A folder without a quota, or on the mount itself.
    pub fn disk(&self) -> Result<Option<(PathBuf, Capacity)>, String> {
        let Some(quota) = self.disk_quota else {
            return match self.disk_folder {
                Some(_) => Err("a diskFolder needs a diskQuota, e.g. diskQuota=10G".to_owned()),
                None => Ok(None),
            };
        };
        let folder = self.disk_folder.clone().unwrap_or_else(|| home().join(".flexfs/mount/cache"));
        if folder.starts_with(&self.mount_point) {
            let folder = folder.display();
            return Err(format!(
                "the disk cache {folder} would lie on the mount itself; choose another --diskFolder"
            ));
        }
        Ok(Some((folder, quota)))
    }

    /// The log file in force.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.log_file.clone().unwrap_or_else(|| {
            let name = self.mount_point.to_string_lossy().trim_matches('/').replace('/', "-");
            Path::new(LOG_FOLDER).join(format!("{}.log", if name.is_empty() { "root" } else { &name }))
        })
    }

    /// Bytes for data, 0 to let the client choose.
    #[must_use]
    pub fn mem_bytes(&self) -> u64 {
        match self.mem_capacity {
            None => 0,
            Some(Capacity::Bytes(bytes)) => bytes,
            Some(Capacity::Percent(percent)) => memory_bytes() / 100 * u64::from(percent),
        }
    }
}

/// `~/.flexfs/mount/creds/VOLUME`; root's home where none is set, as under `mount(8)` at boot.
#[must_use]
pub fn default_creds_path(volume: &str) -> PathBuf {
    home().join(".flexfs/mount/creds").join(volume)
}

fn home() -> PathBuf {
    std::env::var_os("HOME").filter(|home| !home.is_empty()).unwrap_or_else(|| "/root".into()).into()
}

/// Memory of the machine in bytes.
fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

fn parse_umask(text: &str) -> Result<u16, String> {
    u16::from_str_radix(text, 8)
        .ok()
        .filter(|&umask| umask <= 0o777)
        .ok_or_else(|| format!("{text:?} is no umask; give up to three octal digits, e.g. 027"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_mount() {
        let mut args = MountArgs::new("vol", Path::new("/mnt"));
        args.apply_options(
            "rw,_netdev,nofail,ro,credsFile=/c,umask=027,transport=dev,memCapacity=2G,cpuLatency=5,x-systemd.automount,",
        )
        .unwrap();
        assert!(args.ro && args.transport == Transport::Dev && args.umask == Some(0o27));
        assert_eq!(args.mem_bytes(), 2 << 30);
        assert_eq!((args.creds_path().as_path(), args.cpu_latency), (Path::new("/c"), Latency::Micros(5)));
        for bad in [
            "acls",
            "umask=999",
            "credsFile",
            "credsFile=",
            "transport=tcp",
            "cpuLatency=on",
            "memCapacity=0",
            "diskQuota=",
        ] {
            assert!(args.apply_options(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_disk_cache_is_asked_for_by_its_quota() {
        let disk = |options: &str| {
            let mut args = MountArgs::new("vol", Path::new("/mnt"));
            args.apply_options(options).unwrap();
            args.disk()
        };
        assert_eq!(disk(""), Ok(None));
        assert_eq!(disk("diskQuota=5%,diskFolder=/c"), Ok(Some(("/c".into(), Capacity::Percent(5)))));
        assert!(disk("diskQuota=1G").unwrap().unwrap().0.ends_with(".flexfs/mount/cache"));
        assert!(disk("diskFolder=/c").unwrap_err().contains("diskQuota"));
        assert!(disk("diskQuota=1G,diskFolder=/mnt/c").unwrap_err().contains("mount itself"));
    }

    #[test]
    fn sizes() {
        let parse = |text: &str| text.parse::<Capacity>().ok();
        assert_eq!(parse("10%"), Some(Capacity::Percent(10)));
        assert_eq!(parse("64k"), Some(Capacity::Bytes(65_536)));
        assert_eq!(parse("1GiB"), Some(Capacity::Bytes(1 << 30)));
        assert_eq!(parse("4096"), Some(Capacity::Bytes(4096)));
        for bad in ["", "0", "0%", "101%", "-1", "1X", "99999999999T", "G"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn logs_are_named_after_the_mount_point() {
        let args = MountArgs::new("vol", Path::new("/mnt/a/b"));
        assert_eq!(args.log_path(), Path::new("/var/log/flexfs/mnt-a-b.log"));
    }
}
