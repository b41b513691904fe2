//! The owner of one volume: its namespace, its sessions, what waits for durability. No I/O but the namespace's store, no
//! clock: `now` comes in, answers are gathered in `Outs`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flexfs_wire::errno::Errno;
use flexfs_wire::hello::Granted;
use flexfs_wire::id::{BlockId, Commit, Epoch, Range, RequestId, SessionId};
use flexfs_wire::lease::Leases;
use flexfs_wire::limits::LINKS_PER_SESSION_MAX;
use flexfs_wire::message::{Answer, Notice, Reply};
use flexfs_wire::settings::VolumeSettings;
use flexfs_wire::time::Time;
use tokio::sync::oneshot;

use super::deferred::Deferred;
use super::handle::Volume;
use super::inbox::Work;
use super::limiters::Limiters;
use super::message::{Item, LinkKey, OpenAnswer, PutRight, Stamp, ToVolume};
use super::outs::{Cores, Outs};
use super::parked::Parking;
use super::recovery::{Recovery, Replayed};
use super::registry::Registry;
use super::shared::Shared;
use crate::clock;
use crate::engine::{Room, Store};
use crate::lease;
use crate::metrics::VolumeMetrics;
use crate::namespace::{Limits, Namespace};

/// `Notice::Durable` goes out at most this often per volume.
const NOTICE_EVERY: Duration = Duration::from_millis(20);
/// Expired sessions, free space, background work: looked at this often.
const TICK: Duration = Duration::from_millis(500);
/// A volume that was not looked at for so long did not run (a stopped process, a paused machine, a disk that hung): it heard
/// nobody meanwhile, and nobody's silence counts.
const STALL: Duration = Duration::from_secs(2);
/// Keys that background work may touch at once: about a millisecond.
const BACKGROUND_KEYS: usize = 200;
/// Revoked tokens are remembered this long: a validation may be on its way.
const REVOKED_KEPT: Duration = Duration::from_secs(60);

/// Both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) mono: Instant,
    pub(super) wall: Time,
}

impl Now {
    /// What they show.
    pub(super) fn read() -> Self {
        Self { mono: clock::now(), wall: clock::wall() }
    }
}

/// A session as its volume's thread sees it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) links: Vec<LinkKey>,
    /// Lock requests that wait, and where their answers go.
    pub(super) waits: HashMap<RequestId, (LinkKey, Stamp)>,
    /// Its last commit.
    pub(super) last_commit: Commit,
    /// What it was last told to be durable.
    pub(super) told: Commit,
    /// Requests below are finished.
    pub(super) finished: RequestId,
    /// The last grants, at most [`GRANTS_KEPT`].
    pub(super) grants: VecDeque<GrantKept>,
}

/// Grants kept for resends: numbers whose answer was lost would be granted once more, and those of before used by nobody. One of
/// each kind may be under way on each link.
pub(super) const GRANTS_KEPT: usize = 2 * LINKS_PER_SESSION_MAX;

/// Numbers that were granted to a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct GrantKept {
    pub(super) request: RequestId,
    /// Of inodes; else of blocks.
    pub(super) inodes: bool,
    pub(super) range: Range,
    pub(super) commit: Commit,
}

/// What waits for a commit.
pub(super) enum Later {
    /// An answer.
    Answer { link: LinkKey, request: RequestId, stamp: Stamp, reply: Reply },
    /// A session that wants to know it at once.
    Notice { session: SessionId, link: LinkKey },
    /// A new session.
    Open { session: SessionId, answer: OpenAnswer, granted: Box<Granted> },
    /// Garbage whose files may go: no crash brings back what referred to it.
    Garbage { blocks: Vec<BlockId>, answer: BlocksAnswer },
    /// The end of recovery.
    Doors,
}

/// Where a list of blocks goes.
pub(super) type BlocksAnswer = crossbeam::channel::Sender<Result<Vec<BlockId>, Errno>>;

/// Where a right to put a block goes.
pub(super) type PutAnswer = oneshot::Sender<Result<PutRight, Errno>>;

/// How far the volume is since it was started.
#[derive(Debug)]
pub(super) enum Phase {
    /// Sessions come back and replay.
    Recovering(Recovery),
    /// All was replayed; waits until it is durable. `present`: the sessions that came.
    Fencing { present: HashSet<SessionId>, ends: Vec<super::message::EndOfReplay> },
    /// Requests are served.
    Open,
}

/// See the module.
pub(super) struct Host<S: Store> {
    pub(super) volume: Arc<Volume>,
    pub(super) namespace: Namespace<S>,
    pub(super) registry: Arc<Registry>,
    pub(super) settings: VolumeSettings,
    /// Sessions that were told that the volume is read-only (`trust`).
    pub(super) trusting: BTreeSet<SessionId>,
    pub(super) seal_key: [u8; 16],
    pub(super) epoch: Epoch,
    pub(super) phase: Phase,
    /// Messages that wait for `Phase::Open`.
    pub(super) held: Vec<ToVolume>,
    /// Ordered, as what is sent to them is then a function of what they sent.
    pub(super) sessions: BTreeMap<SessionId, Session>,
    pub(super) outs: Outs,
    deferred: Deferred<Later>,
    /// Sessions with commits that are not durable, or of which they were not told.
    pub(super) undurable: BTreeSet<SessionId>,
    pub(super) last_commit: Commit,
    /// Blocks being written, and who else wants to write them.
    pub(super) puts: HashMap<BlockId, Vec<PutAnswer>>,
    pub(super) revoked: HashMap<String, (Instant, String)>,
    noticed_at: Instant,
    ticked_at: Instant,
    /// Background work is left.
    busy: bool,
    /// Sessions that ended and whose rows the full disk did not let go.
    pub(super) unended: Vec<SessionId>,
    pub(super) room: Room,
    pub(super) stopped: Option<crossbeam::channel::Sender<()>>,
    /// Who may cache what.
    pub(super) leases: lease::Leases,
    /// Calls that wait for leases of others.
    pub(super) parked: Parking,
    /// Bounds of what tokens do.
    pub(super) limiters: Limiters,
}

/// What a host begins with.
pub(super) struct Start<S: Store> {
    pub(super) volume: Arc<Volume>,
    pub(super) namespace: Namespace<S>,
    pub(super) registry: Arc<Registry>,
    pub(super) settings: VolumeSettings,
    pub(super) cores: Cores,
    pub(super) seal_key: [u8; 16],
    pub(super) epoch: Epoch,
    pub(super) room: Room,
}

impl<S: Store> Host<S> {
    /// A host that waits for the sessions it found, or serves at once when there are none.
    pub(super) fn new(start: Start<S>, now: Now) -> Result<Self, Errno> {
        let Start { volume, namespace, registry, settings, cores, seal_key, epoch, room } = start;
        let mut host = Self {
            last_commit: namespace.durable().current(),
            volume,
            namespace,
            registry,
            settings,
            trusting: BTreeSet::new(),
            seal_key,
            epoch,
            phase: Phase::Open,
            held: Vec::new(),
            sessions: BTreeMap::new(),
            outs: Outs::new(cores),
            deferred: Deferred::default(),
            undurable: BTreeSet::new(),
            puts: HashMap::new(),
            revoked: HashMap::new(),
            noticed_at: now.mono,
            ticked_at: now.mono,
            busy: true,
            unended: Vec::new(),
            room,
            stopped: None,
            leases: lease::Leases::new(epoch),
            parked: Parking::default(),
            limiters: Limiters::default(),
        };
        host.restart(now)?;
        Ok(host)
    }

    /// One message.
    pub(super) fn handle(&mut self, message: ToVolume, now: Now) -> Result<(), Errno> {
        match message {
            ToVolume::Jobs(jobs) => self.handle_jobs(jobs, now)?,
            ToVolume::Open(open) if self.is_open() => self.handle_open(*open, now)?,
            held @ ToVolume::Open(_) => self.held.push(held),
            ToVolume::Claim(claim) => self.handle_claim(claim, now),
            ToVolume::LinkGone { session, link } => self.handle_link_gone(session, link, now),
            ToVolume::Replay { session, link, request, rights, umask, bytes, replay } => {
                let replayed = Replayed { session, request, rights, umask, bytes, replay: *replay };
                self.handle_replay(link, replayed, now);
            }
            ToVolume::Recovery(end) => self.handle_end_of_replay(*end, now)?,
            ToVolume::PutRight { session, block, bytes, answer } => {
                self.handle_put_right(session, block, bytes, answer);
            }
            ToVolume::PutDone { block, stored } => self.handle_put_done(block, stored)?,
            ToVolume::ReadRight { session, ino, block, answer } => {
                // A core that lost interest needs no answer.
                let _ = answer.send(self.read_right(session, ino, block, now));
            }
            ToVolume::ReadRow { block, answer } => {
                let _ = answer.send(self.namespace.carried_block(block));
            }
            ToVolume::Durable => self.handle_durable(now)?,
            ToVolume::Tokens(valid) => self.handle_tokens(&valid, now)?,
            ToVolume::Limits { token, limits } => self.handle_limits(&token, limits, now),
            ToVolume::Revoked { token, cause } => self.handle_revoked(&token, &cause, now)?,
            ToVolume::Settings(settings) => self.handle_settings(*settings, now),
            ToVolume::Retired => self.handle_retired(now)?,
            ToVolume::Garbage { count, answer } => self.handle_garbage(count, answer, now),
            ToVolume::Collected(blocks) => self.handle_collected(&blocks)?,
            ToVolume::Strays { blocks, answer } => {
                let _ = answer.send(self.strays(blocks));
            }
            ToVolume::Stop(done) => self.handle_stop(done),
        }
        Ok(())
    }

    /// What is due by time, and what came of the messages since. The volume's thread does it after every batch.
    pub(super) fn tick(&mut self, now: Now) -> Result<(), Errno> {
        self.tick_recovery(now)?;
        if self.is_open() {
            self.send_notices(now);
            let since = now.mono.saturating_duration_since(self.ticked_at);
            if since >= TICK {
                self.ticked_at = now.mono;
                if since >= STALL {
                    self.sessions.values().for_each(|session| session.shared.touch(now.mono));
                }
                self.end_unended(now)?;
                self.end_silent(now)?;
                self.end_deaf(now)?;
                self.measure_space();
                self.namespace.age();
                self.limiters.rest(now.mono);
                self.revoked.retain(|_, (at, _)| now.mono.saturating_duration_since(*at) < REVOKED_KEPT);
                self.busy = true;
            }
            if self.busy {
                self.busy = match self.namespace.background(now.wall, BACKGROUND_KEYS) {
                    // The next tick tries again.
                    Err(Errno::ENOSPC) => false,
                    other => other?,
                };
            }
        }
        self.settle(now)
    }

    /// Sends what came of the messages since.
    pub(super) fn settle(&mut self, now: Now) -> Result<(), Errno> {
        self.break_cycles(now);
        self.send_recalls();
        // What a dead engine refused is not an answer: the client keeps its call and brings it to the next server.
        if self.namespace.durable().has_failed() {
            return Err(Errno::EIO);
        }
        self.outs.flush();
        Ok(())
    }

    /// How long nothing will be due.
    pub(super) fn idle_for(&self, now: Instant) -> Duration {
        let recovery = match &self.phase {
            Phase::Recovering(recovery) if self.room.takes(true) => {
                recovery.deadline().saturating_duration_since(now)
            }
            Phase::Recovering(_) | Phase::Fencing { .. } | Phase::Open => TICK,
        };
        let notice = if self.undurable.is_empty() { TICK } else { NOTICE_EVERY };
        let background = if self.busy && self.is_open() { Duration::from_millis(1) } else { TICK };
        let hurried = if self.parked.is_hurried() { Duration::from_millis(10) } else { TICK };
        recovery.min(notice).min(background).min(hurried).min(TICK)
    }

    /// Whether requests are served.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Answers a request that was not deferred.
    pub(super) fn answer(
        &mut self,
        link: LinkKey,
        request: RequestId,
        stamp: Stamp,
        result: Result<Reply, Errno>,
    ) {
        let answer = Answer { commit: Commit(0), at: Time::default(), result };
        self.outs.push(link, Item::Answer { request, stamp, answer, leases: Leases::NONE });
    }

    /// A commit was made for a session.
    pub(super) fn committed(&mut self, session: SessionId, commit: Commit) {
        self.last_commit = self.last_commit.max(commit);
        if let Some(found) = self.sessions.get_mut(&session) {
            found.last_commit = found.last_commit.max(commit);
            // Its answer carries the mark of now.
            found.told = found.told.max(self.volume.durable());
            self.undurable.insert(session);
        }
    }

    /// Keeps something to do until a commit is durable.
    pub(super) fn defer(&mut self, commit: Commit, later: Later) {
        self.deferred.push(commit, later);
        self.namespace.want(commit);
    }

    fn handle_durable(&mut self, now: Now) -> Result<(), Errno> {
        self.volume.nudged.store(false, std::sync::atomic::Ordering::Release);
        if self.namespace.durable().has_failed() {
            return Err(Errno::EIO);
        }
        let durable = self.namespace.durable().current();
        for later in self.deferred.take_due(durable) {
            match later {
                Later::Answer { link, request, stamp, reply } => {
                    self.answer(link, request, stamp, Ok(reply));
                }
                Later::Notice { session, link } => {
                    if let Some(found) = self.sessions.get_mut(&session)
                        && found.told < durable
                    {
                        found.told = durable;
                        self.outs.push(link, Item::Notice(Notice::Durable));
                    }
                }
                Later::Open { session, answer, granted } => {
                    self.finish_open(session, answer, granted, now)?
                }
                Later::Garbage { blocks, answer } => {
                    // A collector that gave up asks again.
                    let _ = answer.send(Ok(blocks));
                }
                Later::Doors => self.open_doors(now)?,
            }
        }
        Ok(())
    }

    /// Tells sessions what became durable, in as few notices as possible.
    fn send_notices(&mut self, now: Now) {
        if self.undurable.is_empty() || now.mono.saturating_duration_since(self.noticed_at) < NOTICE_EVERY {
            return;
        }
        self.noticed_at = now.mono;
        let durable = self.volume.durable();
        let sessions = &mut self.sessions;
        let outs = &mut self.outs;
        self.undurable.retain(|id| {
            let Some(session) = sessions.get_mut(id) else { return false };
            if durable > session.told
                && let Some(link) = session.links.last()
            {
                session.told = durable;
                outs.push(*link, Item::Notice(Notice::Durable));
            }
            session.told < session.last_commit
        });
    }

    fn handle_settings(&mut self, settings: VolumeSettings, now: Now) {
        tracing::info!(volume = %self.volume.id, name = settings.name, "settings changed");
        self.take_settings(settings, now);
    }

    /// Puts settings in force and keeps them for the next start, where admin may be away.
    pub(super) fn take_settings(&mut self, settings: VolumeSettings, now: Now) {
        // What is encrypted stays so, whatever is said later: plain bytes would be lost on its clients.
        let encrypted = settings.encrypted || self.settings.encrypted;
        self.settings = VolumeSettings { encrypted, ..settings };
        self.tighten_all();
        self.measure_space();
        // A client that is alone with a directory makes names there before it asks.
        let asked = self.leases.keep_together(self.settings.max_inodes != 0);
        self.note_asked(&asked, None, now);
        if let Err(errno) = keep_settings(&mut self.namespace, &self.settings) {
            tracing::warn!(volume = %self.volume.id, %errno, "the volume's settings could not be kept");
        }
    }

    /// Tells the namespace its bounds and what the disk can still take.
    pub(super) fn measure_space(&mut self) {
        let settings = &self.settings;
        let mut limits = Limits::new(settings.block_size, settings.max_blocks, settings.max_inodes);
        limits.store_free_bytes = self.room.usable_bytes();
        self.namespace.set_limits(limits);
    }

    /// Sets the volume's gauges.
    pub(super) fn report(&self, metrics: &VolumeMetrics) {
        let lag = self.last_commit.0.saturating_sub(self.namespace.durable().current().0);
        metrics.update(&self.namespace.figures(), !self.is_open(), self.last_commit, lag);
        metrics.update_leases(self.leases.count(), self.parked.count());
        metrics.update_disk(self.room.free_bytes(), self.room.held_bytes(), self.room.is_short());
    }

    /// Files of garbage are gone. Rows that a full disk keeps are found and given to the collector once more.
    fn handle_collected(&mut self, blocks: &[BlockId]) -> Result<(), Errno> {
        match self.namespace.collected(blocks) {
            Err(Errno::ENOSPC) => Ok(()),
            other => other,
        }
    }

    fn handle_stop(&mut self, done: crossbeam::channel::Sender<()>) {
        for session in self.sessions.values() {
            for link in &session.links {
                self.outs.push(*link, Item::Notice(Notice::Closing));
                self.outs.push(*link, Item::Close);
            }
        }
        self.stopped = Some(done);
    }
}

impl<S: Store> Work for Host<S> {
    fn handle(&mut self, message: ToVolume, now: Now) -> Result<(), Errno> {
        Self::handle(self, message, now)
    }

    fn settle(&mut self, now: Now) -> Result<(), Errno> {
        Self::settle(self, now)
    }

    fn idle_for(&self, now: Instant) -> Duration {
        Self::idle_for(self, now)
    }

    fn is_open(&self) -> bool {
        Self::is_open(self)
    }
}

/// Keeps settings for the next start, where admin may be away. Durable with the next session's record, which is a later commit.
pub(super) fn keep_settings<S: Store>(
    namespace: &mut Namespace<S>,
    settings: &VolumeSettings,
) -> Result<(), Errno> {
    namespace.keep("settings", serde_json::to_vec(settings).unwrap_or_default()).map(drop)
}
