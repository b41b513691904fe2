//! What is known here of one file: its state between the server and the programs.
//!
//! Bytes move one way: `dirty` -> a flight -> the server's layout. A flight is a batch that is on its way; its bytes
//! stay readable until the server's answer names where they are. Flights are committed in the order of their
//! numbers, so a later write to the same bytes always wins.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_listener::Event;
use flexfs_wire::attr::{Attr, without_privileges};
use flexfs_wire::errno::Errno;
use flexfs_wire::extent::NewBlock;
use flexfs_wire::id::Commit;
use flexfs_wire::lease::Leases;
use flexfs_wire::message::Caller;
use flexfs_wire::seal::Node;
use flexfs_wire::time::Time;

use super::dirty::{Dirty, Piece};
use super::layout::Map;
use super::pending::Pending;
use super::promise::Promise;
use super::readahead::Streams;
use crate::lease::Asked;

/// Bytes per unit of `Attr::blocks`.
const BLOCKS_UNIT: u64 = 512;

/// A file that is open, has unsent data, or is known to the kernel.
#[derive(Debug)]
pub(crate) struct File {
    /// Its handle.
    pub(crate) node: Node,
    /// Held by whoever changes the file at the server: changes of one file go out one after the other.
    pub(crate) order: Arc<async_lock::Mutex<()>>,
    /// Notified when a flight was stored, committed or lost.
    pub(crate) moved: Event,
    /// The kernel forgot the inode: the state goes when nothing needs it any more.
    pub(crate) forgotten: AtomicBool,
    state: Mutex<State>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// What the server said last. `None` before it said anything.
    pub(crate) known: Option<Attr>,
    /// The life of the leases in which `known` is what the file has, as long as the lease stands.
    pub(crate) whole_in: Option<u64>,
    /// The server changed attributes that are not told here: `known` may be from before.
    pub(crate) is_doubted: bool,
    /// Attributes that programs were told of and the server was not yet.
    pub(crate) pending: Option<Box<Pending>>,
    /// Where the bytes are, at `known.version` or useless.
    pub(crate) map: Option<Box<Map>>,
    /// Not on its way yet.
    pub(crate) dirty: Dirty,
    /// On their way, ascending.
    pub(crate) flights: Vec<Flight>,
    /// Number of the last flight.
    pub(crate) last_flight: u64,
    /// When the newest of the bytes not yet at the server was written.
    pub(crate) written: Option<Time>,
    /// Who wrote last.
    pub(crate) writer: Option<Caller>,
    /// Dirty bytes clear set-uid and set-gid.
    pub(crate) kill_privileges: bool,
    /// Extended attributes were set here: answers that say there are none may be from before.
    pub(crate) is_decorated: bool,
    /// Opens of this mount.
    pub(crate) opens: u32,
    /// Callers that wait until what was written is durable.
    pub(crate) awaited: u32,
    /// The last change the server answered, and in which life of the session.
    pub(crate) answered: Option<(Commit, u64)>,
    /// Changes sent and not yet answered: versions that the server tells meanwhile may be ours.
    pub(crate) changing: u32,
    /// Somebody else changed the data and the kernel was not told yet.
    pub(crate) stale_kernel: bool,
    /// The table of dirty files names this one.
    pub(crate) listed: bool,
    /// When the oldest dirty byte came, for the writeback.
    pub(crate) dirty_since: Option<std::time::Instant>,
    /// Its program closed it and went on, before these bytes are at the server.
    pub(crate) promised: Option<Promise>,
    /// How often bytes or changes were lost: who waits for theirs meanwhile has to hear of it, whoever was told first.
    pub(crate) losses: u16,
    /// A writeback failed, and the next flush has to say so.
    pub(crate) flush_error: Option<Errno>,
    /// The same for the next write, so that a writer without room stops early.
    pub(crate) write_error: Option<Errno>,
    /// The last writeback was refused for want of a valid token, and that was logged.
    pub(crate) is_refused: bool,
    /// Where sequential readers are.
    pub(crate) streams: Option<Box<Streams>>,
    /// What may be cached of it.
    pub(crate) lease: Lease,
    /// The life of the leases that the unwritten bytes belong to.
    pub(crate) written_in: u64,
}

/// A file's lease, and its recall.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    /// What was granted, and in which life of the leases; void in any other.
    granted: Option<(Level, u64)>,
    /// When that was asked: what is answered of it here is no newer.
    pub(crate) asked: Asked,
    /// The version that the file had when it became exclusive: whatever comes after it is of this client.
    exclusive_from: u64,
    /// A recall is being processed. Until it is answered the lease stands: what is read may be what was true before, and
    /// what is written goes to the server before it is answered.
    pub(crate) recall: Recalling,
    /// A recall came: no attributes are changed here any more that the server hears of later.
    pub(crate) is_asked: bool,
    /// The kernel was given pages, and not told to drop them since; it may have dropped them by itself.
    pub(crate) is_filled: bool,
    /// Reads and writes under way.
    pub(crate) busy: u32,
    /// Ranges that the kernel may have got pages of while a recall was processed.
    pub(crate) tainted: Vec<Range<u64>>,
    /// What held back reads are to fill of the kernel's pages.
    pub(crate) held: Vec<Range<u64>>,
    /// When pages of the kernel were dropped last: by a recall that ended, or because they were old.
    pub(crate) dropped: Option<std::time::Instant>,
}

/// How much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Shared,
    Exclusive,
}

/// How far a recall is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Recalling {
    /// There is none.
    #[default]
    No,
    /// Reads go on.
    Open,
    /// New reads wait: the last pages are being taken from the kernel.
    Shut,
}

impl Lease {
    /// Whether the file may be cached. A recall that is processed leaves what was granted before it until its end, and makes nothing of
    /// nothing: it may be of a lease that this client has not heard of yet.
    pub(crate) fn holds(&self, life: u64) -> bool {
        self.granted.is_some_and(|(_, granted)| granted == life)
    }

    /// Whether writes may be kept here.
    pub(crate) fn is_exclusive(&self, life: u64) -> bool {
        self.recall == Recalling::No && self.granted == Some((Level::Exclusive, life))
    }

    /// The same, and nobody asks for it: what is begun now is known to who will.
    pub(crate) fn is_ours(&self, life: u64) -> bool {
        self.is_exclusive(life) && !self.is_asked
    }

    /// Takes in what was granted with an answer that tells this version of the file.
    pub(crate) fn grant(&mut self, leases: Leases, (life, asked): (u64, Asked), version: u64) {
        if self.recall != Recalling::No {
            return;
        }
        if leases.has(Leases::ATTR) {
            self.asked = asked;
        }
        if leases.has(Leases::EXCLUSIVE) {
            if !self.is_exclusive(life) {
                self.exclusive_from = version;
            }
            self.granted = Some((Level::Exclusive, life));
            self.is_asked = false;
        } else if leases.has(Leases::ATTR) {
            self.granted = Some((Level::Shared, life));
        }
    }

    /// Goes down to a shared lease, if it is more.
    pub(crate) fn share(&mut self) {
        if let Some((level, _)) = &mut self.granted {
            *level = Level::Shared;
        }
    }

    /// Nothing is left of it.
    pub(crate) fn drop_all(&mut self) {
        self.granted = None;
    }
}

/// A batch on its way.
#[derive(Debug)]
pub(crate) struct Flight {
    /// Its number.
    pub(crate) number: u64,
    /// What it carries.
    pub(crate) batch: Arc<Batch>,
    /// How far it is.
    pub(crate) progress: Progress,
    /// How often it was begun anew because the session was lost.
    pub(crate) again: u32,
    /// When it is stored: its block goes along with the `Write` that names it.
    pub(crate) carry: Option<Carry>,
}

/// A small encoded block that is not at the server yet.
#[derive(Debug)]
pub(crate) struct Carry {
    /// The block. It stays until its `Write` is answered: another task may have to send that once more.
    pub(crate) bytes: Arc<Vec<u8>>,
    /// See `Core::carries`.
    _permit: async_lock::SemaphoreGuardArc,
}

impl Carry {
    /// Of a block that `permit` lets go along.
    pub(crate) fn new(bytes: Vec<u8>, permit: async_lock::SemaphoreGuardArc) -> Self {
        Self { bytes: Arc::new(bytes), _permit: permit }
    }
}

/// How far a flight is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nobody has begun.
    Waiting,
    /// A task encodes and sends it.
    Sending,
    /// The block is stored, or is to be carried; a `Write` must name it.
    Stored(NewBlock),
    /// A flush sends it inline.
    Inline,
}

/// Bytes that left the dirty map together; they fit into one block.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Ascending, not overlapping.
    pub(crate) pieces: Vec<Piece>,
    /// Bytes in them.
    pub(crate) bytes: u64,
    /// When the newest was written.
    pub(crate) time: Option<Time>,
    /// Who wrote.
    pub(crate) writer: Caller,
    /// Clear set-uid and set-gid.
    pub(crate) kill_privileges: bool,
}

impl Batch {
    /// Offset just past the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.pieces.last().map_or(0, Piece::end)
    }

    /// First byte.
    pub(crate) fn start(&self) -> u64 {
        self.pieces.first().map_or(0, |piece| piece.offset)
    }

    /// Memory it takes, in bytes.
    pub(crate) fn cost(&self) -> u64 {
        self.pieces.iter().map(Piece::cost).sum()
    }
}

impl File {
    /// Of which nothing is known.
    pub(crate) fn new(node: Node) -> Self {
        Self {
            node,
            order: Arc::default(),
            moved: Event::new(),
            forgotten: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// The state; never held across an await.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A change is sent; until the value is dropped, versions that the server tells may be this change's.
    pub(crate) fn begin_change(&self) -> Change<'_> {
        self.state().changing += 1;
        Change(self)
    }

    /// Somebody waits until what was written is durable; until the value is dropped, the server is asked to say so at once.
    pub(crate) fn begin_awaiting(self: &Arc<Self>) -> Awaiting {
        self.state().awaited += 1;
        Awaiting(Arc::clone(self))
    }

    /// The kernel knows the inode (again).
    pub(crate) fn remember(&self) {
        self.forgotten.store(false, Ordering::SeqCst);
    }
}

/// See [`File::begin_change`].
#[derive(Debug)]
pub(crate) struct Change<'a>(&'a File);

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.0.state().changing -= 1;
    }
}

/// See [`File::begin_awaiting`].
#[derive(Debug)]
pub(crate) struct Awaiting(Arc<File>);

impl Drop for Awaiting {
    fn drop(&mut self) {
        self.0.state().awaited -= 1;
    }
}

impl State {
    /// What a writeback met, said once to who asks: a `fsync` or a `close`. Of what was lost after the first `heard` losses he hears in
    /// any case.
    pub(crate) fn report(&mut self, heard: u16) -> Result<(), Errno> {
        self.write_error = None;
        self.flush_error.take().or_else(|| self.lost_since(heard)).map_or(Ok(()), Err)
    }

    /// Whether something was lost after so many losses. Why, was told.
    pub(crate) fn lost_since(&self, heard: u16) -> Option<Errno> {
        (self.losses != heard).then_some(Errno::EIO)
    }

    /// Something was lost: the next flush has to say so.
    pub(crate) fn note_loss(&mut self, errno: Errno) {
        self.count_loss();
        self.flush_error = Some(errno);
    }

    /// Something was lost, and who finds that out says so.
    pub(crate) fn count_loss(&mut self) {
        self.losses = self.losses.wrapping_add(1);
    }

    /// Whether the kernel must drop its pages, for somebody else changed the data; told once, to who sees to it.
    pub(crate) fn take_stale(&mut self) -> bool {
        let stale = std::mem::take(&mut self.stale_kernel);
        if stale {
            self.note_dropped();
        }
        stale
    }

    /// The kernel is about to drop pages.
    pub(crate) fn note_dropped(&mut self) {
        self.lease.dropped = Some(flexfs_uring::clock::now());
        self.lease.is_filled = false;
    }

    /// Whether everything written is at the server.
    pub(crate) fn is_clean(&self) -> bool {
        self.dirty.is_empty() && self.flights.is_empty()
    }

    /// One open of this mount fewer.
    pub(crate) fn end_open(&mut self) {
        self.opens = self.opens.saturating_sub(1);
        if self.opens == 0 {
            self.streams = None;
        }
    }

    /// Bytes that are not at the server.
    pub(crate) fn unwritten(&self) -> u64 {
        self.dirty.bytes() + self.flights.iter().map(|flight| flight.batch.bytes).sum::<u64>()
    }

    /// Whether nothing here is needed any more once the kernel forgot the inode.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_clean() && self.opens == 0 && self.changing == 0 && self.pending.is_none()
    }

    /// Size as programs here see it.
    pub(crate) fn size(&self) -> u64 {
        let flights = self.flights.iter().map(|flight| flight.batch.end()).max().unwrap_or(0);
        self.known.map_or(0, |known| known.size).max(self.dirty.end()).max(flights)
    }

    /// The data version known, 0 for none.
    pub(crate) fn version(&self) -> u64 {
        self.known.map_or(0, |known| known.version)
    }

    /// The map, if it describes the version known.
    pub(crate) fn map(&self) -> Option<&Map> {
        let known = self.known.as_ref()?;
        self.map.as_deref().filter(|map| map.version() == known.version)
    }

    /// Puts bytes that were dirty on their way. The number of their flight.
    pub(crate) fn launch(&mut self, pieces: Vec<Piece>, progress: Progress) -> u64 {
        self.last_flight += 1;
        let batch = Arc::new(Batch {
            bytes: super::pack::raw_bytes(&pieces) as u64,
            pieces,
            time: self.written,
            writer: self.writer.unwrap_or(Caller { uid: 0, gid: 0 }),
            kill_privileges: self.kill_privileges,
        });
        self.flights.push(Flight { number: self.last_flight, batch, progress, again: 0, carry: None });
        self.last_flight
    }

    /// The flight of that number.
    pub(crate) fn flight(&mut self, number: u64) -> Option<&mut Flight> {
        self.flights.iter_mut().find(|flight| flight.number == number)
    }

    /// Takes flights out that have arrived or are lost. The memory they took.
    pub(crate) fn land(&mut self, landed: impl Fn(&Flight) -> bool) -> u64 {
        let cost =
            self.flights.iter().filter(|flight| landed(flight)).map(|flight| flight.batch.cost()).sum();
        self.flights.retain(|flight| !landed(flight));
        self.settle();
        cost
    }

    /// Drops what was only there for bytes that are not here any more.
    pub(crate) fn settle(&mut self) {
        if self.dirty.is_empty() {
            self.dirty_since = None;
            self.kill_privileges = false;
        }
        if self.is_clean() {
            self.written = None;
        }
    }

    /// An attribute came that no change of ours answers; `life` is that of the leases. True when it tells of somebody
    /// else's change.
    pub(crate) fn learn(&mut self, attr: &Attr, life: u64) -> bool {
        let version = self.version();
        if self.is_overtaken(attr, life) {
            return false;
        }
        let foreign = self.known.is_some() && attr.version > version;
        let mine = self.lease.is_exclusive(life) && version >= self.lease.exclusive_from;
        if foreign && self.changing > 0 && mine {
            // Our own change, whose answer comes soon.
            return false;
        }
        self.known = Some(*attr);
        if foreign {
            self.map = None;
            self.stale_kernel = true;
        }
        foreign
    }

    /// The answer to a change of ours, before it is taken in by [`State::learn_own`]: others may have changed the file
    /// before it.
    pub(crate) fn learn_gap(&mut self, attr: &Attr) {
        if self.known.is_some_and(|known| attr.version > known.version + 1) {
            self.known = Some(*attr);
            self.map = None;
            self.stale_kernel = true;
        }
    }

    /// The answer to a call of ours, which `changes` the data or does not. True: nobody else changed the data in
    /// between and the map is at the version before, so it may be changed likewise.
    pub(crate) fn learn_own(&mut self, attr: &Attr, changes: bool) -> bool {
        let Some(known) = self.known.replace(*attr) else {
            self.map = None;
            return false;
        };
        let own = attr.version == known.version || changes && attr.version == known.version + 1;
        if !own {
            self.map = None;
            self.stale_kernel = true;
        }
        own && changes && self.map.as_deref().is_some_and(|map| map.version() + 1 == attr.version)
    }

    /// Whether more is known here than these attributes tell, which the server gave out before.
    pub(crate) fn is_overtaken(&self, attr: &Attr, life: u64) -> bool {
        let Some(known) = &self.known else { return false };
        let is_older = attr.version == known.version && attr.ctime < known.ctime;
        attr.version < known.version || is_older && self.is_true(life)
    }

    /// Whether `known`, with what was written and changed here since, is what the file has. `life`: of the leases, now.
    pub(crate) fn is_true(&self, life: u64) -> bool {
        self.whole_in == Some(life) && self.lease.recall == Recalling::No && self.lease.holds(life)
    }

    /// The same, and nobody else can change it.
    pub(crate) fn is_whole(&self, life: u64) -> bool {
        self.is_true(life) && self.lease.is_exclusive(life)
    }

    /// Attributes came with a lease, in this life.
    pub(crate) fn know_whole(&mut self, life: u64) {
        if !self.is_doubted && self.lease.holds(life) {
            self.whole_in = Some(life);
        }
    }

    /// The server changes attributes that are not told here. Which answers are from before is not known: for good.
    pub(crate) fn doubt(&mut self) {
        self.is_doubted = true;
        self.whole_in = None;
    }

    /// Lays what only this client knows over the server's attributes. `life`: of the leases, now.
    pub(crate) fn overlay(&self, attr: &mut Attr, life: u64) {
        if let Some(known) = self.known.filter(|_| self.is_overtaken(attr, life)) {
            if self.is_true(life) {
                *attr = known;
            }
            attr.version = known.version;
            attr.size = known.size;
            attr.blocks = known.blocks;
            attr.mtime = known.mtime;
            attr.ctime = attr.ctime.max(known.ctime);
        }
        if !self.is_clean() {
            self.overlay_unwritten(attr);
        }
        if let Some(told) = self.pending.as_ref().map(|pending| &pending.attr) {
            // Writes wait for it: what is unwritten is from before.
            (attr.mode, attr.uid, attr.gid) = (told.mode, told.uid, told.gid);
            (attr.atime, attr.mtime) = (told.atime, told.mtime);
            // A link that was made here since is younger.
            attr.ctime = attr.ctime.max(told.ctime);
        }
    }

    /// What is known, as programs here see it.
    pub(crate) fn shown(&self, life: u64) -> Option<Attr> {
        let mut attr = self.known?;
        self.overlay(&mut attr, life);
        Some(attr)
    }

    fn overlay_unwritten(&self, attr: &mut Attr) {
        attr.size = attr.size.max(self.size());
        if let Some(written) = self.written {
            attr.mtime = written;
            attr.ctime = attr.ctime.max(written);
        }
        // Not known before the server counts; but never a hole's 0 for a file that has data (tar, cp --sparse).
        let more = self.unwritten().div_ceil(BLOCKS_UNIT);
        let all = attr.size.div_ceil(4096) * (4096 / BLOCKS_UNIT);
        attr.blocks = attr.blocks.max(all.min(attr.blocks + more));
        if self.kill_privileges || self.flights.iter().any(|flight| flight.batch.kill_privileges) {
            attr.mode = without_privileges(attr.mode);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr(version: u64) -> Attr {
        let (ino, mode) = (flexfs_wire::id::Ino(7), flexfs_wire::attr::S_IFREG);
        Attr { size: version, version, ..Attr::new(ino, mode, Time::default()) }
    }

    /// A file at version 5, with a change of ours under way.
    fn changing() -> State {
        let map = Some(Box::new(Map::empty(5)));
        State { known: Some(attr(5)), map, changing: 1, ..State::default() }
    }

    #[test]
    fn a_version_is_taken_for_our_own_only_while_nobody_else_can_make_one() {
        let mut state = changing();
        state.lease.grant(Leases::ATTR, (1, Asked::default()), 6);
        assert!(state.learn(&attr(6), 1), "it may be somebody else's");
        assert_eq!((state.size(), state.map().is_some()), (6, false));
        // Exclusive from the version known, then from one that is not known yet.
        for (from, foreign) in [(5, false), (6, true)] {
            let mut state = changing();
            state.lease.grant(Leases::ATTR.and(Leases::EXCLUSIVE), (1, Asked::default()), from);
            assert_eq!(state.learn(&attr(6), 1), foreign);
            assert_eq!((state.version() == 6, state.map().is_none()), (foreign, foreign));
        }
        let mut state = changing();
        state.lease.grant(Leases::ATTR.and(Leases::EXCLUSIVE), (1, Asked::default()), 5);
        assert!(state.learn(&attr(6), 2), "the lease is void");
    }

    #[test]
    fn a_link_made_while_a_mode_is_on_its_way_keeps_its_change_time() {
        let at = |secs| Time { secs, nanos: 0 };
        let told = Attr { mode: 0o600, ctime: at(5), ..attr(5) };
        let state = State { pending: Some(Box::new(Pending::new(told))), ..State::default() };
        let shown = |ctime| {
            let mut attr = Attr { ctime, nlink: 2, ..attr(5) };
            state.overlay(&mut attr, 1);
            (attr.mode, attr.nlink, attr.ctime)
        };
        assert_eq!(shown(at(4)), (0o600, 2, at(5)), "the server does not know of the mode");
        assert_eq!(shown(at(6)), (0o600, 2, at(6)), "the link's");
    }

    #[test]
    fn the_answer_to_a_change_tells_of_those_before_it() {
        let mut state = changing();
        state.learn_gap(&attr(6));
        assert!(state.map().is_some() && state.learn_own(&attr(6), true));
        let mut state = changing();
        state.learn_gap(&attr(7));
        assert_eq!((state.size(), state.map().is_some()), (7, false));
        assert!(!state.learn_own(&attr(7), true));
    }
}
