//! What goes into the machine beside a request, and what comes out beside an answer.

use flexfs_wire::errno::Errno;
use flexfs_wire::id::{Commit, RequestId, SessionId};
use flexfs_wire::limits::IDLE_BYTES_MAX;
use flexfs_wire::message::{Answer, Caller, Reply};
use flexfs_wire::time::Time;

/// Who asks, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// Time of the call: goes into time stamps and the answer. A replay gives the original's.
    pub now: Time,
    /// When its program was told that it is done (`Call::told`).
    pub told: Option<Time>,
    /// The session.
    pub session: SessionId,
    /// Number of the call in its session; the same for a resend and for a replay.
    pub request: RequestId,
    /// Who acts, already mapped (root squash).
    pub caller: Caller,
    /// Whose word it is that the caller may do this.
    pub rights: Rights,
    /// Mode bits taken off everything made (the flag `umask` of volume, token and command line).
    pub umask: u32,
}

/// Who has looked at whether a caller may do what he asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// The client's kernel, and it is believed: the mount runs with `default_permissions`.
    Client,
    /// The same, but root is nobody in this session (`rootSquash`): what only root may do is refused (`guard.rs`).
    Guarded,
    /// Nobody: this is root of such a session. The client's kernel checked the rights of somebody else, so mode bits are checked here, too.
    Nobody,
}

/// A session's idea of the server's clock may be ahead by so much, seconds.
const TOLD_AHEAD_MAX: i64 = 1;
/// What a session has told its programs may arrive so late, seconds: longer than any outage that is sat out.
const TOLD_LATE_MAX: i64 = 3_600;

impl Context {
    /// Whether the caller is a squashed root.
    pub(super) fn is_squashed(&self) -> bool {
        self.rights == Rights::Nobody
    }

    /// Whether root is nobody in this session.
    pub(super) fn is_guarded(&self) -> bool {
        self.rights != Rights::Client
    }

    /// What goes into time stamps: now, or when the program was told.
    #[must_use]
    pub fn stamp(&self) -> Time {
        let is_near = |told: &Time| {
            let late = self.now.secs.saturating_sub(told.secs);
            (-TOLD_AHEAD_MAX..=TOLD_LATE_MAX).contains(&late)
        };
        self.told.filter(is_near).unwrap_or(self.now)
    }
}

/// What a request led to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Outcome {
    /// The answer, nodes not yet sealed. `None`: a lock is waited for; the answer comes as a [`Wakeup`] of a later call.
    pub answer: Option<Answer>,
    /// Lock waits that ended by this request.
    pub wakeups: Vec<Wakeup>,
}

/// The late answer of a `Lock` request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Wakeup {
    /// Session to be told.
    pub session: SessionId,
    /// The waiting request.
    pub request: RequestId,
    /// Its answer.
    pub answer: Answer,
}

/// Bounds of a volume that its settings give. May change while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Block size in bytes.
    pub block_bytes: u32,
    /// Bytes that files may have allocated (`max_blocks` x block size), `u64::MAX` = no limit.
    pub bytes_max: u64,
    /// Inodes, the root counted; `u64::MAX` = no limit.
    pub inodes_max: u64,
    /// What the store can still take, bytes: shown by `statfs` where there is no smaller limit. Measured by the caller.
    pub store_free_bytes: u64,
}

impl Limits {
    /// From the volume's settings, where 0 stands for no limit.
    #[must_use]
    pub fn new(block_bytes: u32, max_blocks: u64, max_inodes: u64) -> Self {
        let or_none = |limit: u64| if limit == 0 { u64::MAX } else { limit };
        Self {
            block_bytes,
            bytes_max: or_none(max_blocks.saturating_mul(u64::from(block_bytes))),
            inodes_max: or_none(max_inodes),
            store_free_bytes: 1 << 50,
        }
    }
}

/// How much one call does at once. The defaults keep every call within a few milliseconds; tests set them low, so that
/// small scenarios reach what large volumes do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Extents cleared at once; a range with more is declared dead and cleared in the background.
    pub cleared_at_once: usize,
    /// Dead ranges of one file; past it a call clears the oldest itself.
    pub dead_ranges: usize,
    /// An inode with more extents is not erased in the call that takes its last name.
    pub erased_at_once: u64,
    /// Extents looked at for one layout: some 50 KiB of answer, and 1 ms of the volume's thread.
    pub layout_extents: usize,
    /// Extents looked at on either side of a copy; over more of them it is cut short, as the man page allows.
    pub copied_extents: usize,
    /// Replaced files that stay for a while; with more of them the next ones go at once.
    pub lingering: usize,
    /// Bytes of blocks that one session may have stored and that no file refers to; the oldest go.
    pub idle_bytes: u64,
    /// Inodes and entries in one generation of their caches: some 60 MiB and 40 MiB in both generations.
    pub cached: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            cleared_at_once: 2_048,
            dead_ranges: 32,
            erased_at_once: 256,
            layout_extents: 2_048,
            copied_extents: 4_096,
            lingering: 64 * 1024,
            idle_bytes: IDLE_BYTES_MAX,
            cached: 128 * 1024,
        }
    }
}

/// Figures for metrics and for `statfs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Inodes, the root and orphans counted.
    pub inodes: u64,
    /// Bytes allocated by files: extents and inline parts, shared extents counted once per file.
    pub bytes: u64,
    /// Orphans: inodes without a name, open or waiting to be reclaimed.
    pub orphans: u64,
    /// Opens counted over all sessions.
    pub opens: u64,
    /// Locks held.
    pub locks: u64,
    /// Lock requests that wait.
    pub lock_waits: u64,
    /// Sessions.
    pub sessions: u64,
    /// Answers kept for resends.
    pub dedup: u64,
    /// Bytes of blocks that no file refers to, as stored; garbage that retention keeps is not in them.
    pub idle_bytes: u64,
}

/// A session as it was persisted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its number.
    pub session: SessionId,
    /// What the session layer wants to find again: opaque here, never shown.
    pub bytes: Vec<u8>,
}

/// What is known of a block's file, for the service that keeps hosted blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockState {
    /// Referred to by a file, or garbage whose retention runs: keep it.
    Kept,
    /// Granted to a living session and not yet referred to: keep it.
    Granted,
    /// Nobody can refer to it any more: the file may go.
    Stray,
}

pub(crate) fn answered(now: Time, commit: Commit, result: Result<Reply, Errno>) -> Answer {
    Answer { commit, at: now, result }
}
