//! The io_uring of one shard: set-up with its refusals explained, the full queue, the wait, the reaping.
#![expect(unsafe_code, reason = "hands submission entries and buffer rings to the kernel")]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::squeue::Entry128;
use io_uring::{IoUring, Probe, cqueue, opcode, types};
use rustix::io::Errno;

type Uring = IoUring<Entry128, cqueue::Entry>;

/// Completion queue entries per submission queue entry. Multishot receives, wake-ups and FUSE entries complete
/// without a fresh submission, so the completion queue is the larger one; what still overflows, the kernel keeps
/// (IORING_FEAT_NODROP).
const CQ_PER_SQ: u32 = 4;

/// Places in the table of registered files: one per FUSE queue of the shard. A shard serves more than one only where
/// there are fewer shards than possible CPUs; queues beyond this use the descriptor itself.
const FIXED_FILES: u32 = 256;

/// How often a full submission queue is flushed before the operation is refused. The kernel takes everything on the
/// first try unless its own completion backlog is full, which each try empties.
const FLUSH_TRIES: u32 = 8;

/// Why a shard could not start. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `io_uring_setup(2)` is not permitted.
    #[error("io_uring is not permitted to this process: {hint}")]
    Denied {
        /// What forbids it and the command that mends it.
        hint: String,
    },
    /// The kernel has no io_uring, or one without 128-byte submission entries.
    #[error(
        "this kernel's io_uring is too old or missing ({0}); FUSE over io_uring needs Linux 6.14 built with \
         CONFIG_IO_URING, use --transport dev on older ones"
    )]
    Unsupported(#[source] io::Error),
    /// The ring's memory was refused.
    #[error(
        "no memory for the ring ({0}); raise the locked-memory limit (`ulimit -l`, LimitMEMLOCK= in the unit) or use \
         fewer shards"
    )]
    Memory(#[source] io::Error),
    /// The kernel lacks operations that are used without an alternative.
    #[error("this kernel's io_uring lacks: {0}; a Linux of 6.14 or newer has them")]
    MissingOperations(String),
    /// The thread could not be pinned.
    #[error("cannot pin the shard's thread to CPU {cpu}: {source}; is the CPU online and inside the cpuset?")]
    Pin {
        /// The CPU that was asked for.
        cpu: u32,
        /// The errno of `sched_setaffinity(2)`.
        source: io::Error,
    },
    /// Any other system call failed.
    #[error("{call} failed: {source}")]
    Call {
        /// The call.
        call: &'static str,
        /// Its errno.
        source: io::Error,
    },
}

/// One io_uring. After `close` every submission is refused with ECANCELED.
pub(crate) struct Ring {
    uring: Option<Uring>,
    /// Completions taken from the kernel and not yet given to their slots.
    reaped: VecDeque<cqueue::Entry>,
    /// Which places in the table of registered files are taken.
    fixed_taken: Vec<bool>,
}

impl Ring {
    /// Sets up a ring of `sq_entries` (rounded up to a power of two) for the calling thread, its only submitter.
    pub(crate) fn new(sq_entries: u32) -> Result<Self, StartError> {
        let sq_entries = sq_entries.clamp(8, 4096).next_power_of_two();
        let uring = match Self::build(sq_entries, true) {
            // A kernel before 6.1 refuses DEFER_TASKRUN; task work then runs at any return from the kernel.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                Self::build(sq_entries, false)
            }
            built => built,
        }
        .map_err(explain_setup)?;
        probe(&uring)?;
        let fixed = uring.submitter().register_files_sparse(FIXED_FILES);
        fixed.map_err(|source| StartError::Call { call: "io_uring_register(files)", source })?;
        Ok(Self {
            uring: Some(uring),
            reaped: VecDeque::new(),
            fixed_taken: vec![false; FIXED_FILES as usize],
        })
    }

    fn build(sq_entries: u32, defer: bool) -> io::Result<Uring> {
        let mut builder = Uring::builder();
        builder.setup_cqsize(sq_entries * CQ_PER_SQ).setup_submit_all().setup_single_issuer().dontfork();
        if defer {
            builder.setup_defer_taskrun();
        } else {
            builder.setup_coop_taskrun();
        }
        builder.setup_taskrun_flag().build(sq_entries)
    }

    /// The ring's descriptor number; -1 when closed.
    pub(crate) fn raw_fd(&self) -> RawFd {
        self.uring.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// Queues an entry. A full queue is flushed, never grown.
    ///
    /// # Safety
    /// All memory the entry refers to must stay valid, at its address and unaliased as the operation demands, until
    /// its last completion was reaped or the ring was closed.
    pub(crate) unsafe fn push(&mut self, entry: &Entry128) -> io::Result<()> {
        for _ in 0..FLUSH_TRIES {
            let Some(uring) = self.uring.as_mut() else { return Err(Errno::CANCELED.into()) };
            // SAFETY: the caller vouches for the entry's memory.
            if unsafe { uring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            tracing::debug!("submission queue full, flushed in the middle of a turn");
            self.enter(0, None)?;
            self.reap();
        }
        Err(Errno::AGAIN.into())
    }

    /// Hands everything queued to the kernel; with `want` > 0 waits for that many completions or the timeout.
    /// Uses the timeout argument of `io_uring_enter(2)`, so that waiting costs no submission.
    pub(crate) fn enter(&mut self, want: usize, timeout: Option<Duration>) -> io::Result<()> {
        let Some(uring) = self.uring.as_mut() else { return Ok(()) };
        if want == 0 {
            let queue = uring.submission();
            if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
                return Ok(());
            }
        }
        let span = timeout.map(types::Timespec::from);
        let args = types::SubmitArgs::new();
        let args = match &span {
            Some(span) => args.timespec(span),
            None => args,
        };
        match uring.submitter().submit_with_args(want, &args) {
            Ok(_) => Ok(()),
            Err(error) => match Errno::from_io_error(&error) {
                // ETIME: the timeout passed. EINTR: a signal, the caller's loop comes back. EBUSY: the completion
                // backlog must be reaped first, which the caller does next. EAGAIN: no memory for a request right
                // now; the entries stay queued.
                Some(Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN) => Ok(()),
                // EBADF, EBADFD, EEXIST (another thread submits), EFAULT, EINVAL, EOPNOTSUPP: all our own faults.
                _ => Err(error),
            },
        }
    }

    /// Moves the kernel's completions to the local queue. They are handled afterwards, one by one, from there: no
    /// recursion, a bounded stack and readable traces.
    pub(crate) fn reap(&mut self) {
        if let Some(uring) = self.uring.as_mut() {
            self.reaped.extend(uring.completion());
        }
    }

    /// The next completion in the local queue.
    pub(crate) fn take_reaped(&mut self) -> Option<cqueue::Entry> {
        self.reaped.pop_front()
    }

    /// Whether completions are waiting in the local queue.
    pub(crate) fn has_reaped(&self) -> bool {
        !self.reaped.is_empty()
    }

    /// Registers a descriptor, so that operations on it take no reference of the shared file object; on many cores
    /// that counter is one contended cache line. `None` when the table is full or the kernel refuses.
    pub(crate) fn fix_file(&mut self, fd: RawFd) -> Option<u32> {
        let place = self.fixed_taken.iter().position(|taken| !taken)?;
        let index = u32::try_from(place).ok()?;
        self.uring.as_ref()?.submitter().register_files_update(index, &[fd]).ok()?;
        self.fixed_taken[place] = true;
        Some(index)
    }

    /// Frees a place of [`Ring::fix_file`]; operations in flight keep the file.
    pub(crate) fn unfix_file(&mut self, index: u32) {
        if let Some(uring) = &self.uring
            && uring.submitter().register_files_update(index, &[-1]).is_ok()
        {
            self.fixed_taken[index as usize] = false;
        }
    }

    /// Registers a ring of provided buffers under `group`.
    ///
    /// # Safety
    /// `base` must be page aligned, hold `entries` descriptors and stay mapped until the ring was closed.
    pub(crate) unsafe fn register_buffers(&self, base: *mut u8, entries: u16, group: u16) -> io::Result<()> {
        let Some(uring) = &self.uring else { return Err(Errno::CANCELED.into()) };
        // SAFETY: the caller vouches for the memory.
        unsafe {
            uring.submitter().register_buf_ring_with_flags(base.expose_provenance() as u64, entries, group, 0)
        }
    }

    /// Closes the ring. The registered files are let go first, so that a device is released even while another
    /// thread still holds a reference of the ring for a wake-up.
    pub(crate) fn close(&mut self) {
        if let Some(uring) = self.uring.take()
            && let Err(error) = uring.submitter().unregister_files()
        {
            tracing::debug!(%error, "registered files could not be let go before the ring was closed");
        }
    }
}

/// Checks for every operation this crate submits, so that a lack shows at start and not in the middle of work.
fn probe(uring: &Uring) -> Result<(), StartError> {
    let mut probe = Probe::new();
    uring
        .submitter()
        .register_probe(&mut probe)
        .map_err(|source| StartError::Call { call: "io_uring_register(probe)", source })?;
    let needed = [
        (opcode::UringCmd80::CODE, "URING_CMD"),
        (opcode::MsgRingData::CODE, "MSG_RING"),
        (opcode::RecvMulti::CODE, "RECV"),
        (opcode::Send::CODE, "SEND"),
        (opcode::Connect::CODE, "CONNECT"),
        (opcode::Accept::CODE, "ACCEPT"),
        (opcode::Read::CODE, "READ"),
        (opcode::Write::CODE, "WRITE"),
        (opcode::Fsync::CODE, "FSYNC"),
        (opcode::PollAdd::CODE, "POLL_ADD"),
        (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
        (opcode::OpenAt::CODE, "OPENAT"),
        (opcode::RenameAt::CODE, "RENAMEAT"),
        (opcode::UnlinkAt::CODE, "UNLINKAT"),
        (opcode::MkDirAt::CODE, "MKDIRAT"),
    ];
    let missing: Vec<&str> =
        needed.iter().filter(|(code, _)| !probe.is_supported(*code)).map(|(_, name)| *name).collect();
    if missing.is_empty() { Ok(()) } else { Err(StartError::MissingOperations(missing.join(", "))) }
}

/// Says what an errno of `io_uring_setup(2)` means for the operator.
fn explain_setup(error: io::Error) -> StartError {
    match Errno::from_io_error(&error) {
        Some(Errno::PERM | Errno::ACCESS) => StartError::Denied { hint: denied_hint() },
        Some(Errno::NOSYS | Errno::INVAL) => StartError::Unsupported(error),
        Some(Errno::NOMEM) => StartError::Memory(error),
        _ => StartError::Call { call: "io_uring_setup", source: error },
    }
}

/// EPERM comes from the sysctl or from a seccomp filter; the sysctl can be read.
fn denied_hint() -> String {
    let setting = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    match setting.trim() {
        "1" => "sysctl kernel.io_uring_disabled is 1 (only CAP_SYS_ADMIN or the group in kernel.io_uring_group); run \
                as root, add the group, or `sysctl -w kernel.io_uring_disabled=0`"
            .into(),
        "2" => "sysctl kernel.io_uring_disabled is 2; allow it with `sysctl -w kernel.io_uring_disabled=0`".into(),
        _ => "a seccomp filter or security module forbids io_uring_setup (default in Docker and Podman); allow it in \
              the container's seccomp profile, e.g. `--security-opt seccomp=unconfined`, or use --transport dev"
            .into(),
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("fd", &self.raw_fd()).field("reaped", &self.reaped.len()).finish()
    }
}

/// Turns a completion into the pair the slots keep.
pub(crate) fn unpack(entry: &cqueue::Entry) -> (u64, crate::slot::Completion) {
    (entry.user_data(), crate::slot::Completion { res: entry.result(), flags: entry.flags() })
}

/// Builds the entry of a 64-byte operation.
pub(crate) fn wide(entry: io_uring::squeue::Entry) -> Entry128 {
    Entry128::from(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_is_flushed_and_nothing_is_lost() {
        let mut ring = Ring::new(8).unwrap();
        let count = 100_u32;
        for index in 0..u64::from(count) {
            let mut entry = wide(opcode::Nop::new().build());
            entry.set_user_data(index);
            // SAFETY: a NOP refers to no memory.
            unsafe { ring.push(&entry) }.unwrap();
        }
        let mut seen = Vec::new();
        while seen.len() < count as usize {
            ring.enter(1, Some(Duration::from_secs(5))).unwrap();
            ring.reap();
            while let Some(entry) = ring.take_reaped() {
                seen.push(unpack(&entry).0);
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..u64::from(count)).collect::<Vec<_>>());
    }

    #[test]
    fn a_ring_without_deferred_task_work_works_too() {
        let uring = Some(Ring::build(8, false).unwrap());
        let mut ring = Ring { uring, reaped: VecDeque::new(), fixed_taken: Vec::new() };
        // SAFETY: a NOP refers to no memory.
        unsafe { ring.push(&wide(opcode::Nop::new().build().user_data(7))) }.unwrap();
        ring.enter(1, Some(Duration::from_secs(5))).unwrap();
        ring.reap();
        assert_eq!(unpack(&ring.take_reaped().unwrap()).0, 7);
    }

    #[test]
    fn the_wait_ends_with_its_timeout() {
        let mut ring = Ring::new(8).unwrap();
        let before = crate::clock::now();
        ring.enter(1, Some(Duration::from_millis(20))).unwrap();
        assert!(before.elapsed() >= Duration::from_millis(19));
        assert!(!ring.has_reaped());
    }

    #[test]
    fn a_closed_ring_refuses() {
        let mut ring = Ring::new(8).unwrap();
        ring.close();
        // SAFETY: a NOP refers to no memory.
        let refused = unsafe { ring.push(&wide(opcode::Nop::new().build())) }.unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(Errno::CANCELED.raw_os_error()));
    }

    #[test]
    fn refusals_say_what_to_do() {
        assert!(explain_setup(Errno::PERM.into()).to_string().contains("seccomp"));
        assert!(explain_setup(Errno::NOSYS.into()).to_string().contains("--transport dev"));
        assert!(explain_setup(Errno::NOMEM.into()).to_string().contains("LimitMEMLOCK"));
    }
}
