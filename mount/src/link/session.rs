//! What all links of a session share. Calls touch only atomics of it; mutations take the short lock around what is
//! kept for replay; everything else is for the moments when links come and go.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use event_listener::Event;
use flexfs_wire::cipher::Cipher;
use flexfs_wire::errno::Errno;
use flexfs_wire::hello::{self, Granted, Hello, Open};
use flexfs_wire::id::{Commit, Epoch, RequestId, SessionId};
use flexfs_wire::lease::Recall;
use flexfs_wire::limits::{LINKS_PER_SESSION_MAX, PROTOCOL_VERSIONS};
use flexfs_wire::seal::Node;
use flexfs_wire::settings::Flags;
use flexfs_wire::time::Time;
use flexfs_wire::token::Secret;
use rustls::ClientConfig;

use super::behind::Behind;
use super::clock::ServerClock;
use super::first::First;
use super::held::Held;
use super::mark::Marks;
use super::unstable::Unstable;
use crate::disk::Disk;
use crate::lease::Recalls;

/// How often an outage is mentioned again.
const AWAY_LOG_EVERY: Duration = Duration::from_secs(60);

/// Where a session goes and what it says there.
#[derive(Debug)]
pub struct Target {
    /// `host:port` of the metadata server when the session was opened.
    pub meta_addr: String,
    /// Verifies the server's role against the token's CA pin.
    pub tls: Arc<ClientConfig>,
    /// Text of the volume token, for sessions after the first.
    pub token: Secret<String>,
    /// Name of the volume.
    pub volume: String,
    /// Host and mount point, for the operator.
    pub client: String,
    /// Flags of the command line.
    pub flags: Flags,
    /// Errors instead of endless waits, when the server has been away for this long.
    pub soft: Option<Duration>,
    /// Shards that will open links.
    pub shards: usize,
    /// What the volume is encrypted with.
    pub cipher: Option<Arc<Cipher>>,
    /// Where segments that were read are kept on this machine.
    pub disk: Option<Arc<Disk>>,
    /// How a server is found that is no longer at its address.
    pub locate: Option<Locate>,
    /// A wait for a lock longer than this is asked for anew: the server keeps the answers to all calls behind the oldest one
    /// without an answer.
    pub lock_wait_max: Duration,
}

/// A question to whoever knows where the server is now: `host:port`, or why there is no answer. Blocks; runs on a thread
/// of its own.
#[derive(Clone)]
pub struct Locate(pub Arc<dyn Fn() -> Result<String, String> + Send + Sync>);

impl std::fmt::Debug for Locate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Locate")
    }
}

impl Target {
    /// The hello that asks for a session.
    pub(crate) fn open(&self) -> Hello {
        Hello::Open(Open {
            versions: PROTOCOL_VERSIONS,
            token: self.token.expose().clone(),
            volume: self.volume.clone(),
            client: self.client.clone(),
            flags: self.flags,
        })
    }
}

/// What names and proves the session.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) session: SessionId,
    resume_key: [u8; 32],
    pub(crate) epoch: Epoch,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("session", &self.session)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl Keys {
    fn new(granted: &Granted) -> Self {
        Self { session: granted.session, resume_key: granted.resume_key, epoch: granted.epoch }
    }

    /// The hello of one more link.
    pub(crate) fn attach(&self, exporter: &[u8; 32], resume: bool) -> Hello {
        let versions = PROTOCOL_VERSIONS;
        let proof = hello::prove(&self.resume_key, self.session, exporter);
        if resume {
            Hello::Resume { versions, session: self.session, proof }
        } else {
            Hello::Attach { versions, session: self.session, proof }
        }
    }
}

/// A turn in the session's life. Links that were down meanwhile take their calls through all they missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The server restarted; all answered calls were replayed and are durable.
    Recovered,
    /// The session was unknown to the server; a new one stands. `commits_lost`: the server had restarted too, and
    /// commits above `durable` may be gone.
    Lost {
        /// See the variant.
        commits_lost: bool,
        /// What was durable for sure.
        durable: Commit,
    },
}

/// How a session ended.
#[derive(Debug)]
pub(crate) struct End {
    /// What calls get.
    pub(crate) errno: Errno,
}

/// Figures of one link, written by its shard alone.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Lane {
    pub(crate) calls: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) rtt_us: AtomicU64,
    pub(crate) connects: AtomicU64,
    /// When the server was last heard of here, milliseconds on the session's clock.
    pub(crate) heard_ms: AtomicU64,
}

/// Adds to a counter only this thread writes.
pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) target: Target,
    pub(crate) granted: Granted,
    pub(crate) marks: Marks,
    pub(crate) lanes: Box<[Lane]>,
    pub(crate) held: Held,
    /// One link at a time leads a recovery or opens a new session.
    pub(crate) lead: async_lock::Mutex<()>,
    /// Something for all links to look at: the end, a halt, an outage's end.
    pub(crate) changed: Event,
    /// Kept from `setup` for the first shard.
    pub(crate) first: Mutex<Option<First>>,
    keys: Mutex<Keys>,
    /// Where the server is, as far as is known.
    pub(crate) addr: Mutex<String>,
    /// A thread asks where it is now.
    pub(crate) locating: AtomicBool,
    turns: Mutex<Vec<Turn>>,
    unstable: Mutex<Unstable>,
    durable: AtomicU64,
    last_commit: AtomicU64,
    /// The server says at once when commits up to this one are durable.
    announced: AtomicU64,
    /// More became durable.
    matured: Event,
    /// Another session takes the place of one that was lost: `durable` is of the one, `turns` tells not yet of it.
    reopening: AtomicBool,
    /// `turns.len()`, readable without the lock.
    era: AtomicU64,
    generation: AtomicU64,
    /// The session was told that the volume is read-only as a whole: it does not change as long as the session stands.
    is_unchanging: AtomicBool,
    /// Links must let go: what they have not read must not be read any more.
    halted: AtomicBool,
    up: AtomicUsize,
    full: AtomicBool,
    /// The goodbye is on its way: links that break are not missed.
    leaving: AtomicBool,
    pub(crate) replayed: AtomicU64,
    ended: OnceLock<End>,
    away: Mutex<Away>,
    /// Zero of the session's clock.
    began: Instant,
    pub(crate) recalls: Arc<Recalls>,
    /// The server's clock, as answers tell it.
    server_clock: Mutex<ServerClock>,
    /// Changes on their way.
    pub(crate) behind: Arc<Behind>,
    pub(crate) listener: OnceLock<Box<dyn Listener>>,
}

/// Who holds what leases allow. Called on shards: must not block.
pub trait Listener: Send + Sync + std::fmt::Debug {
    /// The server wants leases back. Answered with `Request::Recalled`.
    fn handle_recalls(&self, recalls: Vec<Recall>);
    /// The server restarted: it knows of no lease but those named by `exclusive`.
    fn handle_recovered(&self);
    /// The session was lost; all leases are void already.
    fn handle_lost(&self);
    /// The token is no longer good: nothing that is cached may be shown any more.
    fn handle_revoked(&self);
    /// Inodes that are open here and of which the server was not told. It is told now, and of others there will be none until
    /// one of the handlers above was called.
    fn untold_opens(&self) -> Vec<Node>;
    /// Files with unwritten data, and directories with changes on their way, that only this session may tell of.
    fn exclusive(&self) -> Vec<Node>;
}

#[derive(Debug, Default)]
struct Away {
    /// Since when no link is up, and when that was last said.
    since: Option<(Instant, Instant)>,
}

impl Session {
    /// The session that `granted` opened.
    pub(crate) fn new(target: Target, granted: Granted, first: First) -> Self {
        let shards = target.shards.max(1);
        let durable = granted.durable.0;
        Self {
            keys: Mutex::new(Keys::new(&granted)),
            addr: Mutex::new(target.meta_addr.clone()),
            locating: AtomicBool::new(false),
            // Two links for each.
            marks: Marks::new(2 * shards),
            lanes: std::iter::repeat_with(Lane::default).take(2 * shards).collect(),
            held: Held::default(),
            lead: async_lock::Mutex::new(()),
            changed: Event::new(),
            first: Mutex::new(Some(first)),
            turns: Mutex::new(Vec::new()),
            unstable: Mutex::new(Unstable::default()),
            durable: AtomicU64::new(durable),
            last_commit: AtomicU64::new(durable),
            announced: AtomicU64::new(0),
            matured: Event::new(),
            reopening: AtomicBool::new(false),
            era: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            is_unchanging: AtomicBool::new(granted.settings.flags.ro),
            halted: AtomicBool::new(false),
            up: AtomicUsize::new(0),
            full: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            replayed: AtomicU64::new(0),
            ended: OnceLock::new(),
            away: Mutex::new(Away::default()),
            began: flexfs_uring::clock::now(),
            recalls: Arc::default(),
            server_clock: Mutex::default(),
            behind: Arc::default(),
            listener: OnceLock::new(),
            target,
            granted,
        }
    }

    /// Shards, each with a link and perhaps one for large blocks.
    pub(crate) fn shards(&self) -> usize {
        self.lanes.len() / 2
    }

    /// Whether the server takes a second link of each shard.
    pub(crate) fn has_bulk(&self) -> bool {
        self.lanes.len() <= LINKS_PER_SESSION_MAX
    }

    /// What names and proves the session now.
    pub(crate) fn keys(&self) -> Keys {
        lock(&self.keys).clone()
    }

    /// A mark came: commits up to `durable` are on disk.
    pub(crate) fn handle_durable(&self, durable: Commit) {
        if self.durable.fetch_max(durable.0, Ordering::SeqCst) < durable.0 {
            let mut unstable = lock(&self.unstable);
            unstable.handle_durable(durable);
            self.full.store(unstable.is_full(), Ordering::Relaxed);
            drop(unstable);
            self.matured.notify(usize::MAX);
        }
    }

    /// The server was asked to say at once when this commit is durable.
    pub(crate) fn handle_announced(&self, commit: Commit) {
        self.announced.fetch_max(commit.0, Ordering::SeqCst);
    }

    /// Whether every commit up to this one, answered in this session or one before, is known to be durable or lost; which of them,
    /// `is_lost` tells.
    pub(crate) fn is_settled(&self, commit: Commit) -> bool {
        commit <= self.durable() && !self.reopening.load(Ordering::SeqCst)
    }

    /// Waits until that is so. `None`: nobody will say so by himself. It may never end.
    pub(crate) fn announced(&self, commit: Commit) -> Option<impl Future<Output = ()>> {
        (commit.0 <= self.announced.load(Ordering::SeqCst)).then_some(async move {
            loop {
                let listener = self.matured.listen();
                if self.is_settled(commit) {
                    return;
                }
                listener.await;
            }
        })
    }

    /// A mutation was answered.
    pub(crate) fn handle_commit(&self, request: RequestId, commit: Commit, at: Time, body: Option<Vec<u8>>) {
        let before = self.last_commit.fetch_max(commit.0, Ordering::SeqCst);
        // An older one may be told again, and late.
        if commit.0 > before {
            lock(&self.server_clock).handle_answer(at, self.elapsed());
        }
        if let Some(body) = body {
            let mut unstable = lock(&self.unstable);
            unstable.handle_answer(request, commit, at, body);
            self.full.store(unstable.is_full(), Ordering::Relaxed);
        }
    }

    /// When something happens now, by the server's clock as far as it is known. `None` before its first answer to a change.
    pub(crate) fn server_now(&self) -> Option<Time> {
        let (secs, nanos) = flexfs_uring::clock::wall_parts();
        lock(&self.server_clock).now(self.elapsed(), Time { secs, nanos })
    }

    fn elapsed(&self) -> Duration {
        flexfs_uring::clock::now().saturating_duration_since(self.began)
    }

    /// Commits up to here are on disk.
    pub(crate) fn durable(&self) -> Commit {
        Commit(self.durable.load(Ordering::SeqCst))
    }

    /// The highest commit answered.
    pub(crate) fn last_commit(&self) -> Commit {
        Commit(self.last_commit.load(Ordering::SeqCst))
    }

    /// Whether mutations are to wait until more is durable.
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Calls kept for replay.
    pub(crate) fn unstable_count(&self) -> usize {
        lock(&self.unstable).count()
    }

    /// Appends replay frames; see [`Unstable::poll_replay`].
    pub(crate) fn poll_replay(
        &self,
        after: (Commit, RequestId),
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<(Commit, RequestId)>, flexfs_wire::frame::FrameError> {
        lock(&self.unstable).poll_replay(after, self.marks.mark(), bytes_max, out)
    }

    /// The server has restarted, has taken every replayed call and made it durable.
    pub(crate) fn handle_recovered(&self, epoch: Epoch, durable: Commit) {
        self.settle(durable);
        lock(&self.keys).epoch = epoch;
        self.push(Turn::Recovered);
        if let Some(listener) = self.listener.get() {
            listener.handle_recovered();
        }
    }

    /// A new session stands in place of one the server did not know any more. Returns the answered calls lost for good,
    /// and the locks lost.
    pub(crate) fn handle_reopened(&self, granted: &Granted) -> (usize, usize) {
        let restarted = self.keys().epoch != granted.epoch;
        let durable = self.durable();
        self.reopening.store(true, Ordering::SeqCst);
        let unstable = if restarted { self.settle(granted.durable) } else { 0 };
        let locks = self.held.handle_lost();
        *lock(&self.keys) = Keys::new(granted);
        self.is_unchanging.store(granted.settings.flags.ro, Ordering::SeqCst);
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.recalls.void();
        if let Some(listener) = self.listener.get() {
            listener.handle_lost();
        }
        self.push(Turn::Lost { commits_lost: unstable > 0, durable });
        self.reopening.store(false, Ordering::SeqCst);
        self.matured.notify(usize::MAX);
        (unstable, locks)
    }

    /// Nothing answered waits for the disk any more, and commits count from `durable` on: the numbers a dead server had
    /// given out beyond may never be reached.
    fn settle(&self, durable: Commit) -> usize {
        let mut unstable = lock(&self.unstable);
        let count = unstable.handle_recovered();
        unstable.handle_durable(durable);
        self.full.store(false, Ordering::Relaxed);
        self.durable.fetch_max(durable.0, Ordering::SeqCst);
        self.last_commit.store(self.durable.load(Ordering::SeqCst), Ordering::SeqCst);
        drop(unstable);
        self.matured.notify(usize::MAX);
        count
    }

    fn push(&self, turn: Turn) {
        lock(&self.turns).push(turn);
        self.era.fetch_add(1, Ordering::SeqCst);
    }

    /// Number of turns so far. A call made now belongs to this era.
    pub(crate) fn era(&self) -> u64 {
        self.era.load(Ordering::SeqCst)
    }

    /// The turns behind the first `era`.
    pub(crate) fn turns_since(&self, era: u64) -> Vec<Turn> {
        let turns = lock(&self.turns);
        turns.get(usize::try_from(era).unwrap_or(usize::MAX)..).unwrap_or_default().to_vec()
    }

    /// How often the session was lost and opened anew.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Whether a commit answered in `generation` may be gone.
    pub(crate) fn is_lost(&self, commit: Commit, generation: u64) -> bool {
        let turns = lock(&self.turns);
        let mut seen = 0;
        turns.iter().any(|turn| match turn {
            Turn::Recovered => false,
            Turn::Lost { commits_lost, durable } => {
                seen += 1;
                seen > generation && *commits_lost && commit > *durable
            }
        })
    }

    /// Makes all links let go, and says when that is so. Ends with [`Session::resume_links`].
    pub(crate) async fn halt_links(&self) {
        self.halted.store(true, Ordering::SeqCst);
        self.changed.notify(usize::MAX);
        loop {
            let listener = self.changed.listen();
            if self.up.load(Ordering::SeqCst) == 0 {
                return;
            }
            listener.await;
        }
    }

    /// Links may come up again.
    pub(crate) fn resume_links(&self) {
        self.halted.store(false, Ordering::SeqCst);
        self.changed.notify(usize::MAX);
    }

    /// Whether links must let go.
    pub(crate) fn is_halted(&self) -> bool {
        self.halted.load(Ordering::SeqCst)
    }

    /// A link is up.
    pub(crate) fn handle_up(&self) {
        self.up.fetch_add(1, Ordering::SeqCst);
        if let Some((since, _)) = lock(&self.away).since.take() {
            let seconds = flexfs_uring::clock::now().duration_since(since).as_secs_f32();
            tracing::warn!(meta = %self.addr(), seconds, "the metadata server is back");
        }
    }

    /// A link is down.
    pub(crate) fn handle_down(&self) {
        self.up.fetch_sub(1, Ordering::SeqCst);
        self.changed.notify(usize::MAX);
    }

    /// Links that are up.
    pub(crate) fn links_up(&self) -> usize {
        self.up.load(Ordering::SeqCst)
    }

    /// An attempt failed or a link broke; said once, then now and then, however many links there are.
    pub(crate) fn report_away(&self, cause: &dyn std::fmt::Display) {
        let now = flexfs_uring::clock::now();
        let mut away = lock(&self.away);
        match &mut away.since {
            None => {
                away.since = Some((now, now));
                let meta = self.addr();
                tracing::warn!(%meta, %cause, "the metadata server is away; operations wait, trying again");
            }
            Some((since, said)) if now.duration_since(*said) >= AWAY_LOG_EVERY => {
                *said = now;
                let (meta, seconds) = (self.addr(), now.duration_since(*since).as_secs());
                tracing::warn!(%meta, %cause, seconds, "the metadata server is still away");
            }
            Some(_) => {}
        }
    }

    /// The server was heard of on the link of this lane.
    pub(crate) fn hear(&self, lane: &Lane, at: Instant) {
        let millis = at.saturating_duration_since(self.began).as_millis();
        lane.heard_ms.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long no link has heard of the server.
    pub(crate) fn quiet_for(&self) -> Duration {
        let heard = self.lanes.iter().map(|lane| lane.heard_ms.load(Ordering::Relaxed)).max().unwrap_or(0);
        let now = flexfs_uring::clock::now().saturating_duration_since(self.began);
        now.saturating_sub(Duration::from_millis(heard))
    }

    /// Where the server is, as far as is known.
    pub(crate) fn addr(&self) -> String {
        lock(&self.addr).clone()
    }

    /// How long no link has been up.
    pub(crate) fn away_for(&self) -> Duration {
        let since = lock(&self.away).since;
        since.map_or(Duration::ZERO, |(since, _)| flexfs_uring::clock::now().duration_since(since))
    }

    /// The goodbye is about to be said.
    pub(crate) fn begin_leaving(&self) {
        self.leaving.store(true, Ordering::SeqCst);
    }

    /// Whether the goodbye was said.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// The session is over; calls get `errno`. The first end counts.
    pub(crate) fn end(&self, errno: Errno) -> bool {
        let first = self.ended.set(End { errno }).is_ok();
        self.changed.notify(usize::MAX);
        first
    }

    /// The token is no longer good.
    pub(crate) fn revoke(&self, text: &str) {
        if self.end(Errno::EACCES) {
            let unsynced = self.unstable_count();
            tracing::error!(
                volume = %self.target.volume, cause = text, unsynced,
                "the session has ended: all operations fail with EACCES until the volume is mounted anew with a valid \
                 token; unwritten data is refused"
            );
            self.recalls.void();
            if let Some(listener) = self.listener.get() {
                listener.handle_revoked();
            }
        }
    }

    /// Whether nothing in the volume changes as long as this session stands.
    pub(crate) fn is_unchanging(&self) -> bool {
        self.is_unchanging.load(Ordering::SeqCst)
    }

    /// The errno of calls, once the session is over.
    pub(crate) fn ended(&self) -> Option<Errno> {
        self.ended.get().map(|end| end.errno)
    }
}

/// Nothing that holds these locks can panic half-way.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
