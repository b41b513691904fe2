//! What all links of a session share, on whatever core they are. No lock: fixed values and atomics (those of a limited token
//! share its limiter).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use flexfs_wire::id::SessionId;
use flexfs_wire::network::Networks;
use flexfs_wire::seal::Sealer;
use flexfs_wire::settings::Flags;
use tokio::sync::Notify;
use zeroize::Zeroizing;

use super::handle::Volume;
use crate::limit::Limiter;

/// A session as its links see it.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Fixed facts.
    pub(crate) info: SessionInfo,
    /// The volume.
    pub(crate) volume: Arc<Volume>,
    /// Makes and checks node handles of its scope.
    pub(crate) sealer: Sealer,
    /// Flags it was opened with; those of the volume may be added later.
    opened: Flags,
    rules: AtomicU32,
    /// Milliseconds since `born` at which a byte of it was last seen.
    seen_ms: AtomicU64,
    born: Instant,
    /// Links it has now.
    pub(crate) links: AtomicU32,
    ended: AtomicBool,
    /// It was asked for leases and has not answered: others wait for it, so nothing of it is held back.
    recalled: AtomicBool,
    /// Bytes of requests that its links hold back.
    pub(crate) held: AtomicU64,
    /// What is held back is to be looked at: its limits changed, or it was recalled.
    pub(crate) hurried: Notify,
}

/// What does not change while a session lives.
#[derive(Clone)]
pub(crate) struct SessionInfo {
    /// Number.
    pub(crate) id: SessionId,
    /// Id of the token that opened it, hex.
    pub(crate) token_id: String,
    /// Host and mount point.
    pub(crate) client: String,
    /// Networks its links may come from.
    pub(crate) networks: Networks,
    /// Whether its volume is encrypted.
    pub(crate) encrypted: bool,
    /// Bounds of what the sessions of its token do together.
    pub(crate) limiter: Arc<Limiter>,
    /// Secret for `Attach` and `Resume`.
    pub(crate) resume_key: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for SessionInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionInfo")
            .field("id", &self.id)
            .field("token_id", &self.token_id)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// What the server enforces of a session's flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// No mutation, no block, no write lock.
    pub(crate) ro: bool,
    /// uid 0 and gid 0 act as nobody.
    pub(crate) root_squash: bool,
    /// No access lists.
    pub(crate) no_acl: bool,
    /// Bits taken off the mode of everything made.
    pub(crate) umask: u16,
}

const RO: u32 = 1 << 16;
const SQUASH: u32 = 1 << 17;
const NO_ACL: u32 = 1 << 18;

fn pack(flags: Flags) -> u32 {
    let bits = [(flags.ro, RO), (flags.root_squash, SQUASH), (flags.no_acl, NO_ACL)];
    bits.iter().filter(|(is_set, _)| *is_set).fold(u32::from(flags.umask), |all, (_, bit)| all | bit)
}

impl Shared {
    /// A session that lives from `now` on.
    pub(crate) fn new(
        info: SessionInfo,
        volume: Arc<Volume>,
        sealer: Sealer,
        flags: Flags,
        now: Instant,
    ) -> Self {
        Self {
            info,
            volume,
            sealer,
            opened: flags,
            rules: pack(flags).into(),
            seen_ms: 0.into(),
            born: now,
            links: 0.into(),
            ended: false.into(),
            recalled: false.into(),
            held: 0.into(),
            hurried: Notify::new(),
        }
    }

    /// Rules in force.
    pub(crate) fn rules(&self) -> Rules {
        let bits = self.rules.load(Ordering::Relaxed);
        let [low, high, ..] = bits.to_le_bytes();
        Rules {
            ro: bits & RO != 0,
            root_squash: bits & SQUASH != 0,
            no_acl: bits & NO_ACL != 0,
            umask: u16::from_le_bytes([low, high]),
        }
    }

    /// The volume's flags changed: they hold for running sessions too.
    pub(crate) fn tighten(&self, volume: Flags) {
        self.rules.store(pack(self.opened.and(volume)), Ordering::Relaxed);
    }

    /// A byte came in.
    pub(crate) fn touch(&self, now: Instant) {
        let ms = u64::try_from(now.saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX);
        // A store only when it says something new: the line is shared by all cores of the session.
        if self.seen_ms.load(Ordering::Relaxed) < ms {
            self.seen_ms.store(ms, Ordering::Relaxed);
        }
    }

    /// Milliseconds of silence.
    pub(crate) fn silent_ms(&self, now: Instant) -> u64 {
        let ms = u64::try_from(now.saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX);
        ms.saturating_sub(self.seen_ms.load(Ordering::Relaxed))
    }

    /// It was asked for leases, or has answered all such questions.
    pub(crate) fn set_recalled(&self, recalled: bool) {
        if self.recalled.load(Ordering::Relaxed) != recalled {
            self.recalled.store(recalled, Ordering::Relaxed);
            self.hurried.notify_waiters();
        }
    }

    /// Whether others wait for its answer.
    pub(crate) fn is_recalled(&self) -> bool {
        self.recalled.load(Ordering::Relaxed)
    }

    /// No request is served from now on.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}
