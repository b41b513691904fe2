//! A volume as the rest of the process sees it: where to send, how far it is durable, where its blocks are.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use flexfs_wire::id::Commit;

use super::host::Host;
use super::inbox::Inbox;
use super::message::ToVolume;
use crate::engine::Durable;
use crate::engine::fjall::Fjall;

/// Handle of a volume.
#[derive(Debug)]
pub(crate) struct Volume {
    /// UUID.
    pub(crate) id: String,
    /// Folder of hosted blocks.
    pub(crate) blocks: PathBuf,
    pub(super) inbox: Inbox<Host<Fjall>>,
    durable: OnceLock<Durable>,
    /// What survived the last restart; shown until recovery is over.
    survived: AtomicU64,
    /// Recovery is over.
    live: AtomicBool,
    /// The thread could not open the volume and has ended.
    pub(super) broken: AtomicBool,
    /// A `ToVolume::Durable` is on its way.
    pub(super) nudged: AtomicBool,
}

impl Volume {
    pub(super) fn new(id: String, blocks: PathBuf) -> Self {
        Self {
            id,
            blocks,
            inbox: Inbox::new(),
            durable: OnceLock::new(),
            survived: 0.into(),
            live: false.into(),
            broken: false.into(),
            nudged: false.into(),
        }
    }

    /// Sends to the thread. One that ended has told its links to close; what is sent then is lost with them.
    pub(crate) fn send(&self, message: ToVolume) {
        self.inbox.send(message);
    }

    /// The same from a core, which works on it itself if that is no wait. What comes of it comes as ever.
    pub(crate) fn call(&self, message: ToVolume) {
        self.inbox.call(message);
    }

    /// The `mark` of frames to clients. Until recovery is over it stays at what survived: numbers of lost commits lie
    /// below the new ones.
    pub(crate) fn durable(&self) -> Commit {
        match self.durable.get() {
            Some(durable) if self.live.load(Ordering::Acquire) => durable.current(),
            _ => Commit(self.survived.load(Ordering::Acquire)),
        }
    }

    pub(super) fn set_durable(&self, durable: Durable, survived: Commit) {
        self.survived.store(survived.0, Ordering::Release);
        // Set once, by the thread, at its start.
        let _ = self.durable.set(durable);
    }

    pub(super) fn go_live(&self) {
        self.live.store(true, Ordering::Release);
    }
}
