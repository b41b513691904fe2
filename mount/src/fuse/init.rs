//! Negotiation of capabilities (INIT). Pure: what the kernel offers in, what is answered out.
//!
//! Refused although offered, and why:
//! - `WRITEBACK_CACHE`: the kernel would own size and mtime, which other clients must see; measured slower too.
//! - `ATOMIC_O_TRUNC`: the file would be cut before the kernel finds that it is a running program (`ETXTBSY`); without
//!   it a truncating open of a file that is there costs one more round trip.
//! - `PASSTHROUGH`, but where nothing can change and there is a local disk to put files on (`plain`).
//! - `AUTO_INVAL_DATA`: recalls say when pages are old. Where the kernel looks at mtime itself it drops pages after every own
//!   write, and may fetch a page anew while a write of it is on its way: that page then stays old.
//! - `NO_OPEN_SUPPORT`, `NO_OPENDIR_SUPPORT`: opens are counted at the server, for orphans live until the last close.
//! - `HANDLE_KILLPRIV`: version 2 replaces it. `SPLICE_*`: nothing is read from the device but forgets.
//! - `HAS_IOCTL_DIR`, `FILE_OPS`, `MAP_ALIGNMENT`, `HAS_INODE_DAX`, `SUBMOUNTS`: no ioctl, no DAX, no submounts.
//! - `SECURITY_CTX`: labels would be one more xattr per creation, and no user asked.
//! - `CREATE_SUPP_GROUP`: the parent's group rule (set-gid directories) is decided by mode and caller alone.
//! - `ALLOW_IDMAP`: ids of requests would then be mapped per mount; ours are the volume's.
//! - `HAS_RESEND`: resending after a daemon's restart is not done; the mount ends with its daemon.
//! - `REQUEST_TIMEOUT`: would abort the whole mount while the server is away; hard mounts wait.
//! - `ABORT_ERROR`: only changes the errno of a read after an abort. `NO_EXPORT_SUPPORT`: cached handles may work.

use flexfs_wire::limits::FUSE_IO_BYTES_MAX;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::abi::{
    FUSE_INIT_IN_SHORT, FUSE_KERNEL_MINOR_VERSION, FUSE_KERNEL_MINOR_VERSION_MIN, FUSE_KERNEL_VERSION,
    fuse_init_in, fuse_init_out, init_flag as f,
};

/// Flags asked for wherever the kernel offers them, each with its reason.
const WANTED: &[(u64, &str)] = &[
    (f::ASYNC_READ, "readahead may be in flight more than once per file"),
    (f::POSIX_LOCKS, "fcntl locks are kept at the server"),
    (f::FLOCK_LOCKS, "flock locks are kept at the server"),
    (f::BIG_WRITES, "writes of more than a page"),
    (f::MAX_PAGES, "requests of 1 MiB"),
    (f::PARALLEL_DIROPS, "lookups and readdirs in one directory run side by side"),
    (f::DO_READDIRPLUS, "a listing brings attributes: no round trip per entry"),
    (f::READDIRPLUS_AUTO, "but only where somebody looks at them"),
    (f::ASYNC_DIO, "direct I/O through libaio and io_uring overlaps"),
    (f::CACHE_SYMLINKS, "targets never change"),
    (f::EXPLICIT_INVAL_DATA, "pages are kept until a recall drops them, whatever mtime says"),
    (f::HANDLE_KILLPRIV_V2, "the server clears set-uid bits with the write, not in a call before it"),
    (f::SETXATTR_EXT, "the long form of SETXATTR, which the parser expects"),
    (f::INIT_EXT, "flags beyond bit 31"),
    (f::EXPORT_SUPPORT, "handles of open_by_handle_at(2) outlive the kernel's memory of an inode"),
    (f::DIRECT_IO_ALLOW_MMAP, "files switched to direct I/O can still be mapped"),
];

/// Flags for access control lists, unless a flag of the mount takes them away.
const WANTED_FOR_ACLS: &[(u64, &str)] = &[
    (f::POSIX_ACL, "the kernel checks the lists, and keeps them as long as attributes"),
    (f::DONT_MASK, "in a directory with a default list the umask has no say, which the server knows"),
];

/// Background requests (readahead, asynchronous direct I/O) the kernel keeps in flight, all queues together.
const MAX_BACKGROUND: u16 = 256;
/// Readahead asked for; the kernel clamps it to its own 128 KiB default, raised later through sysfs (`attach`).
const MAX_READAHEAD: u32 = 4 << 20;
/// Pages of the largest request.
const MAX_PAGES: u16 = 256;
const _: () = assert!(MAX_PAGES as usize * 4096 == FUSE_IO_BYTES_MAX);

/// What the kernel's INIT said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Major version.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
    /// Largest readahead in bytes.
    pub max_readahead: u32,
    /// All flags.
    pub flags: u64,
}

/// Why no mount can come of an INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InitError {
    /// Too short.
    #[error("the kernel's INIT has {0} bytes: this is no FUSE device")]
    Short(usize),
    /// Another major version.
    #[error("the kernel speaks FUSE {0}.{1}, this program 7.36 and later: use Linux 5.17 or newer")]
    Version(u32, u32),
}

/// The outcome of a negotiation.
#[derive(Clone, Copy, Debug)]
pub struct Agreement {
    /// What is sent back.
    out: fuse_init_out,
    /// Flags in force.
    pub flags: u64,
    /// Whether files may be passed through.
    pub passing: bool,
    /// Whether requests come through io_uring.
    pub over_io_uring: bool,
}

impl Agreement {
    /// The body of the answer, as the kernel takes it.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.out.as_bytes()
    }
}

impl Offer {
    /// Parses the body of INIT. Short bodies of older kernels have no flags beyond bit 31.
    ///
    /// # Errors
    /// `Short`.
    pub fn parse(body: &[u8]) -> Result<Self, InitError> {
        if body.len() < FUSE_INIT_IN_SHORT {
            return Err(InitError::Short(body.len()));
        }
        let mut full = [0; size_of::<fuse_init_in>()];
        let bytes = body.len().min(full.len());
        full[..bytes].copy_from_slice(&body[..bytes]);
        // The array has the size of the struct, so this cannot fail; `Short` is still the honest word if it did.
        let init = fuse_init_in::read_from_bytes(&full).map_err(|_| InitError::Short(body.len()))?;
        let mut flags = u64::from(init.flags);
        if flags & f::INIT_EXT != 0 {
            flags |= u64::from(init.flags2) << 32;
        }
        Ok(Self { major: init.major, minor: init.minor, max_readahead: init.max_readahead, flags })
    }

    /// Whether requests may come through io_uring.
    #[must_use]
    pub fn has_io_uring(&self) -> bool {
        self.flags & f::OVER_IO_URING != 0
    }

    /// Answers the offer. `io_uring`: every queue stands ready to be registered; `acls`: access control lists are served; `passing`: whole
    /// files may be read past this program.
    ///
    /// # Errors
    /// `Version`.
    pub fn answer(&self, io_uring: bool, acls: bool, passing: bool) -> Result<Agreement, InitError> {
        if self.major != FUSE_KERNEL_VERSION || self.minor < FUSE_KERNEL_MINOR_VERSION_MIN {
            return Err(InitError::Version(self.major, self.minor));
        }
        let mut wanted = wanted(acls);
        if io_uring {
            wanted |= f::OVER_IO_URING;
        }
        if passing {
            wanted |= f::PASSTHROUGH;
        }
        let flags = self.flags & wanted;
        let out = fuse_init_out {
            major: FUSE_KERNEL_VERSION,
            minor: FUSE_KERNEL_MINOR_VERSION,
            max_readahead: MAX_READAHEAD.min(self.max_readahead),
            flags: low(flags),
            flags2: low(flags >> 32),
            max_background: MAX_BACKGROUND,
            congestion_threshold: MAX_BACKGROUND / 4 * 3,
            max_write: u32::try_from(FUSE_IO_BYTES_MAX).unwrap_or(u32::MAX),
            time_gran: 1,
            max_pages: MAX_PAGES,
            // Files passed through to are on no stacked file system themselves.
            max_stack_depth: u32::from(flags & f::PASSTHROUGH != 0),
            ..fuse_init_out::default()
        };
        Ok(Agreement {
            out,
            flags,
            passing: flags & f::PASSTHROUGH != 0,
            over_io_uring: flags & f::OVER_IO_URING != 0,
        })
    }
}

/// Flags the fallback asks fuser for: it cannot pass on what `HANDLE_KILLPRIV_V2` and `SETXATTR_EXT` bring, and
/// sets `INIT_EXT` by itself.
#[must_use]
pub fn wanted_without_parser(acls: bool) -> u64 {
    wanted(acls) & !(f::HANDLE_KILLPRIV_V2 | f::SETXATTR_EXT | f::INIT_EXT)
}

fn wanted(acls: bool) -> u64 {
    let for_acls = if acls { WANTED_FOR_ACLS } else { &[] };
    WANTED.iter().chain(for_acls).fold(0, |flags, (flag, _)| flags | flag)
}

/// See `MAX_BACKGROUND`.
#[must_use]
pub fn max_background() -> u16 {
    MAX_BACKGROUND
}

/// The lower half.
fn low(flags: u64) -> u32 {
    u32::try_from(flags & u64::from(u32::MAX)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(minor: u32, flags: u64) -> Offer {
        let init = fuse_init_in {
            major: 7,
            minor,
            max_readahead: 131_072,
            flags: low(flags),
            flags2: low(flags >> 32),
            ..fuse_init_in::default()
        };
        Offer::parse(init.as_bytes()).unwrap()
    }

    #[test]
    fn only_what_was_offered_is_agreed() {
        let agreed = offer(45, u64::MAX).answer(true, false, false).unwrap();
        assert!(agreed.over_io_uring);
        assert_eq!(agreed.flags & (f::WRITEBACK_CACHE | f::PASSTHROUGH | f::AUTO_INVAL_DATA), 0);
        assert_ne!(agreed.flags & f::HANDLE_KILLPRIV_V2, 0);
        assert_eq!(agreed.out.flags2, 1 << 9 | 1 << 4);
        assert_eq!(agreed.out.max_readahead, 131_072);
        assert!(!offer(45, u64::MAX).answer(false, false, false).unwrap().over_io_uring);
        let agreed = offer(45, f::INIT_EXT | f::ASYNC_READ).answer(true, false, false).unwrap();
        assert_eq!((agreed.flags, agreed.over_io_uring), (f::INIT_EXT | f::ASYNC_READ, false));
    }

    #[test]
    fn lists_are_agreed_on_where_they_are_wanted() {
        let both = f::POSIX_ACL | f::DONT_MASK;
        assert_eq!(offer(45, u64::MAX).answer(true, true, false).unwrap().flags & both, both);
        assert_eq!(offer(45, u64::MAX).answer(true, false, false).unwrap().flags & both, 0);
    }

    #[test]
    fn passing_through_is_asked_for_where_it_is_wanted() {
        let agreed = offer(45, u64::MAX).answer(true, false, true).unwrap();
        assert!(agreed.flags & f::PASSTHROUGH != 0 && agreed.out.max_stack_depth == 1);
        let agreed = offer(45, f::INIT_EXT).answer(true, false, true).unwrap();
        assert_eq!((agreed.flags & f::PASSTHROUGH, agreed.out.max_stack_depth), (0, 0));
        let agreed = offer(45, u64::MAX).answer(true, false, false).unwrap();
        assert_eq!((agreed.flags & f::PASSTHROUGH, agreed.out.max_stack_depth), (0, 0));
    }

    #[test]
    fn high_flags_count_only_with_init_ext() {
        assert!(!offer(45, f::OVER_IO_URING).has_io_uring());
        assert!(offer(45, f::OVER_IO_URING | f::INIT_EXT).has_io_uring());
    }

    #[test]
    fn short_and_old_offers_are_refused() {
        assert_eq!(Offer::parse(&[0; 15]), Err(InitError::Short(15)));
        let short = Offer::parse(&[7, 0, 0, 0, 31, 0, 0, 0, 0, 0, 2, 0, 1, 0, 0, 0]).unwrap();
        assert_eq!((short.minor, short.flags), (31, 1));
        assert_eq!(short.answer(true, false, false).unwrap_err(), InitError::Version(7, 31));
        assert_eq!(offer(36, 0).answer(true, false, false).unwrap().flags, 0);
    }
}
