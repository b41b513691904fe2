//! A volume's host on a stage: engine and blocks in memory, no thread, no socket, time as it is told. For simulations,
//! which are sockets, clock and clients to it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use flexfs_wire::errno::Errno;
use flexfs_wire::hello::{Granted, Reason};
use flexfs_wire::id::{BlockId, Commit, Epoch, Ino, RequestId, SessionId};
use flexfs_wire::lease::Leases;
use flexfs_wire::limits::PROTOCOL_VERSION;
use flexfs_wire::message::{Answer, Call, Lock, Notice, Replay};
use flexfs_wire::settings::{Access, Compression, Flags, VolumeSettings};
use flexfs_wire::time::Time;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;

use super::handle::Volume;
use super::host::{Host, Now, Start};
use super::message::{
    Claim, Claimed, EndOfReplay, Item, Job, LinkKey, OpenSession, Place, PutRight, Stamp, ToCore, ToVolume,
};
use super::outs::{CoreHandle, Cores};
use super::registry::Registry;
use super::thread::raise_epoch;
use crate::engine::Room;
use crate::engine::memory::Memory;
use crate::namespace::{Limits, Namespace, Rights};
use crate::session::handshake::Admitted;

/// Why a stage cannot go on: the host itself failed, which memory gives it no cause for.
const FAILED: &str = "the host failed, and nothing is wrong with its memory";

/// Both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// Monotonic.
    pub mono: Instant,
    /// Calendar.
    pub wall: Time,
}

impl From<Clocks> for Now {
    fn from(clocks: Clocks) -> Self {
        Self { mono: clocks.mono, wall: clocks.wall }
    }
}

/// What the host has for a link.
#[expect(missing_docs, reason = "the variant's line names its fields")]
#[derive(Debug)]
pub enum Sent {
    /// The answer to a request.
    Answer { request: RequestId, answer: Answer, leases: Leases },
    /// Something unasked.
    Notice(Notice),
    /// The link closes.
    Close,
}

/// What comes of a link that claims a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// It is the session's.
    Yes(Epoch),
    /// The same, and the session replays what is above this commit.
    Recovering(Epoch, Commit),
    /// The session is to come with `resume`.
    MustRecover,
    /// There is no such session (any more).
    Unknown,
}

/// See the module.
pub struct Stage {
    host: Host<Memory>,
    outs: UnboundedReceiver<ToCore>,
    blocks: BTreeMap<BlockId, Vec<u8>>,
    settings: VolumeSettings,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage").field("blocks", &self.blocks.len()).finish_non_exhaustive()
    }
}

impl Stage {
    /// A new volume. Nothing it commits is durable before [`Stage::sync`].
    #[must_use]
    pub fn new(block_size: u32, now: Clocks) -> Self {
        let settings = VolumeSettings {
            id: "stage".to_owned(),
            name: "stage".to_owned(),
            block_size,
            compression: Compression::Lz4,
            max_blocks: 0,
            max_inodes: 0,
            retention: -1,
            flags: Flags::default(),
            encrypted: false,
        };
        Self::start(Memory::lazy(), BTreeMap::new(), settings, now)
    }

    fn start(
        mut store: Memory,
        blocks: BTreeMap<BlockId, Vec<u8>>,
        settings: VolumeSettings,
        now: Clocks,
    ) -> Self {
        store.sync(usize::MAX);
        let (inbox, outs) = unbounded_channel();
        let cores: Cores = Arc::new([CoreHandle { inbox, load: 0.into(), home: None }]);
        // What goes through the volume's own inbox comes from cores and engines with threads.
        let volume = Volume::new(settings.id.clone(), PathBuf::new());
        drop(volume.inbox.close());
        let limits = Limits::new(settings.block_size, 0, 0);
        let mut namespace = Namespace::open(store, limits, now.wall).expect(FAILED);
        namespace.store_mut().sync(usize::MAX);
        let epoch = epoch(&mut namespace);
        let start = Start {
            volume: Arc::new(volume),
            namespace,
            registry: Arc::new(Registry::default()),
            settings: settings.clone(),
            cores,
            seal_key: [7; 16],
            epoch,
            room: Room::endless(),
        };
        let host = Host::new(start, now.into()).expect(FAILED);
        Self { host, outs, blocks, settings }
    }

    /// The server dies and starts again with its blocks, with all that was durable, and with `kept` of the commits that
    /// were not.
    #[must_use]
    pub fn crash(self, kept: usize, now: Clocks) -> Self {
        let Self { host, blocks, settings, .. } = self;
        Self::start(host.namespace.into_store().crash(kept), blocks, settings, now)
    }

    /// Whether sessions of the last life are not waited for (any more).
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.host.is_open()
    }

    /// Makes a session, at once durable, whose first link this is. `None` while sessions of the last life are waited for.
    pub fn open(&mut self, link: u32, client: &str, now: Clocks) -> Option<Box<Granted>> {
        self.open_scope(link, client, "/", now)
    }

    /// The same with a directory for its root, which must be there.
    pub fn open_scope(&mut self, link: u32, client: &str, scope: &str, now: Clocks) -> Option<Box<Granted>> {
        if !self.host.is_open() {
            return None;
        }
        let access = Access {
            token_id: "stage".to_owned(),
            settings: self.settings.clone(),
            scope: scope.to_owned(),
            flags: Flags::default(),
            expires_at: None,
            networks: flexfs_wire::network::Networks::default(),
            limits: flexfs_wire::settings::TokenLimits::default(),
        };
        let admitted = Admitted {
            version: PROTOCOL_VERSION,
            access,
            flags: Flags::default(),
            client: client.to_owned(),
        };
        let (answer, mut opened) = oneshot::channel();
        let open = OpenSession { admitted, link: key(link), answer };
        self.handle(ToVolume::Open(Box::new(open)), now);
        self.sync(usize::MAX, now);
        let (granted, _) = opened.try_recv().expect("durable, and so answered").expect("nothing refuses it");
        Some(granted)
    }

    /// A link says whose it is.
    pub fn claim(&mut self, session: SessionId, link: u32, resume: bool, now: Clocks) -> Attached {
        let (answer, mut claimed) = oneshot::channel();
        self.handle(ToVolume::Claim(Claim { session, link: key(link), resume, answer }), now);
        match claimed.try_recv().expect("answered at once") {
            Ok(Claimed::Attached { epoch, .. }) => Attached::Yes(epoch),
            Ok(Claimed::Recovering { epoch, durable }) => Attached::Recovering(epoch, durable),
            Err(refused) if refused.reason == Reason::MustRecover => Attached::MustRecover,
            Err(_) => Attached::Unknown,
        }
    }

    /// A link is gone.
    pub fn link_gone(&mut self, session: SessionId, link: u32, now: Clocks) {
        self.handle(ToVolume::LinkGone { session, link: key(link) }, now);
    }

    /// A request comes in; those below `finished` are finished at the client.
    pub fn request(
        &mut self,
        (session, link): (SessionId, u32),
        request: RequestId,
        finished: RequestId,
        call: Call,
        now: Clocks,
    ) {
        self.touch(session, now);
        let job = Job {
            from: key(link),
            session,
            request,
            finished,
            stamp: stamp(now),
            rights: Rights::Client,
            umask: 0,
            call,
        };
        self.handle(ToVolume::Jobs(vec![job]), now);
    }

    /// A call that was answered before the server died.
    pub fn replay(
        &mut self,
        (session, link): (SessionId, u32),
        request: RequestId,
        replay: Replay,
        now: Clocks,
    ) {
        self.touch(session, now);
        let (rights, umask, bytes, replay) = (Rights::Client, 0, 64, Box::new(replay));
        let message = ToVolume::Replay { session, link: key(link), request, rights, umask, bytes, replay };
        self.handle(message, now);
    }

    /// All was replayed; this is what the session holds.
    pub fn end_replay(
        &mut self,
        (session, link): (SessionId, u32),
        request: RequestId,
        opens: Vec<(Ino, u32)>,
        locks: Vec<(Ino, Lock)>,
        exclusive: Vec<Ino>,
        now: Clocks,
    ) {
        self.touch(session, now);
        let end =
            EndOfReplay { session, link: key(link), request, stamp: stamp(now), opens, locks, exclusive };
        self.handle(ToVolume::Recovery(Box::new(end)), now);
    }

    /// Stores a block.
    ///
    /// # Errors
    /// The session may not write it.
    pub fn put_block(
        &mut self,
        session: SessionId,
        block: BlockId,
        bytes: Vec<u8>,
        now: Clocks,
    ) -> Result<(), Errno> {
        self.touch(session, now);
        let (answer, mut right) = oneshot::channel();
        self.handle(ToVolume::PutRight { session, block, bytes: 1000, answer }, now);
        if right.try_recv().expect("nobody else writes it")? == PutRight::Write {
            self.blocks.entry(block).or_insert(bytes);
            self.handle(ToVolume::PutDone { block, stored: true }, now);
        }
        Ok(())
    }

    /// The bytes of a block that an inode names.
    ///
    /// # Errors
    /// It does not name it; the block is gone.
    pub fn read_block(
        &mut self,
        session: SessionId,
        ino: Ino,
        block: BlockId,
        now: Clocks,
    ) -> Result<Vec<u8>, Errno> {
        self.touch(session, now);
        let (answer, mut right) = oneshot::channel();
        self.handle(ToVolume::ReadRight { session, ino, block, answer }, now);
        if let Place::Row(_) = right.try_recv().expect("answered at once")? {
            return self.host.namespace.carried_block(block)?.ok_or(Errno::ENOENT);
        }
        self.blocks.get(&block).cloned().ok_or(Errno::ENOENT)
    }

    /// The oldest `count` commits that are not durable become so.
    pub fn sync(&mut self, count: usize, now: Clocks) {
        self.host.namespace.store_mut().sync(count);
        self.handle(ToVolume::Durable, now);
    }

    /// Commits that are not durable.
    #[must_use]
    pub fn pending(&mut self) -> usize {
        self.host.namespace.store_mut().pending()
    }

    /// What is due by time; and all that was done since goes out.
    pub fn tick(&mut self, now: Clocks) {
        self.host.tick(now.into()).expect(FAILED);
    }

    /// How long nothing will be due.
    #[must_use]
    pub fn idle_for(&self, now: Instant) -> std::time::Duration {
        self.host.idle_for(now)
    }

    /// The mark of frames to clients.
    #[must_use]
    pub fn durable(&self) -> Commit {
        self.host.volume.durable()
    }

    /// Whether the session lives.
    #[must_use]
    pub fn has_session(&self, session: SessionId) -> bool {
        self.host.sessions.contains_key(&session)
    }

    /// What goes out, and on which links.
    pub fn take_sent(&mut self) -> Vec<(u32, Sent)> {
        let mut sent = Vec::new();
        while let Ok(message) = self.outs.try_recv() {
            let ToCore::Outs(outs) = message else { continue };
            sent.extend(outs.into_iter().map(|out| {
                let item = match out.item {
                    Item::Answer { request, answer, leases, .. } => Sent::Answer { request, answer, leases },
                    Item::Notice(notice) => Sent::Notice(notice),
                    Item::Close => Sent::Close,
                };
                (out.link.slot, item)
            }));
        }
        sent
    }

    fn handle(&mut self, message: ToVolume, now: Clocks) {
        self.host.handle(message, now.into()).expect(FAILED);
    }

    fn touch(&self, session: SessionId, now: Clocks) {
        if let Some(found) = self.host.sessions.get(&session) {
            found.shared.touch(now.mono);
        }
    }
}

/// Counts the starts; durable at once.
fn epoch(namespace: &mut Namespace<Memory>) -> Epoch {
    raise_epoch(namespace, |namespace| namespace.store_mut().sync(usize::MAX)).expect(FAILED)
}

fn key(link: u32) -> LinkKey {
    LinkKey { core: 0, slot: link, generation: 0 }
}

fn stamp(now: Clocks) -> Stamp {
    Stamp { started: now.mono, kind: 0, cost: 0 }
}

#[cfg(test)]
mod tests {
    use flexfs_wire::message::{Caller, Request, XattrMode};

    use super::*;

    /// A program got EIO, and a write was lost, in the moments between the engine's failure and the server's end.
    #[test]
    fn a_failed_engine_is_no_answer() {
        let now = Clocks { mono: crate::clock::now(), wall: Time { secs: 1, nanos: 0 } };
        let mut stage = Stage::new(1 << 20, now);
        let granted = stage.open(0, "test", now).unwrap();
        let change = Call {
            caller: Caller { uid: 0, gid: 0 },
            told: None,
            request: Request::SetXattr {
                node: granted.root,
                name: b"user.colour".to_vec(),
                value: b"red".to_vec(),
                mode: XattrMode::Any,
            },
        };
        let answers = |stage: &mut Stage| {
            let sent = stage.take_sent();
            sent.into_iter().filter(|(_, sent)| matches!(sent, Sent::Answer { .. })).count()
        };
        stage.request((granted.session, 0), RequestId(1), RequestId(1), change.clone(), now);
        stage.tick(now);
        assert_eq!(answers(&mut stage), 1);
        stage.host.namespace.store_mut().die();
        stage.request((granted.session, 0), RequestId(2), RequestId(1), change, now);
        assert_eq!(stage.host.tick(now.into()), Err(Errno::EIO), "the host ends");
        assert_eq!(answers(&mut stage), 0, "and has told nobody anything");
    }
}
