//! Sessions that were told that the volume is read-only as a whole: while one of them stands, it is, whatever the settings
//! say by now.
//!
//! A client that knows that nothing changes may have its kernel read from a file of its own (FUSE passthrough). An open
//! descriptor that reads there asks nobody any more, so no recall of a lease could make it see what somebody writes. So
//! `ro` of a volume can be taken away at any time, and is in force until the last session that was opened under it has
//! ended. Sessions that are opened in between are read-only too, and are not told that the volume is.

use std::collections::BTreeSet;

use flexfs_wire::errno::Errno;
use flexfs_wire::id::{Commit, SessionId};
use flexfs_wire::settings::{Flags, VolumeSettings};

use super::host::Host;
use crate::engine::Store;
use crate::namespace::Namespace;

/// Name of the row that keeps the sessions for the next start.
const KEPT: &str = "trusting";

impl<S: Store> Host<S> {
    /// Flags that hold for all sessions.
    pub(super) fn flags_in_force(&self) -> Flags {
        Flags { ro: self.settings.flags.ro || !self.trusting.is_empty(), ..self.settings.flags }
    }

    /// What a new session is told of the volume: that it is read-only only if no change can be on its way any more.
    pub(super) fn told_settings(&self) -> VolumeSettings {
        let mut told = self.settings.clone();
        told.flags.ro &= self.parked.count() == 0;
        told
    }

    /// A session is told so. It may know of itself when this commit is durable.
    ///
    /// # Errors
    /// The engine's.
    pub(super) fn note_trusting(&mut self, session: SessionId) -> Result<Commit, Errno> {
        self.trusting.insert(session);
        let ids: Vec<u64> = self.trusting.iter().map(|id| id.0).collect();
        self.namespace.keep(KEPT, serde_json::to_vec(&ids).unwrap_or_default())
    }

    /// A session ended. With the last one that was told so, the settings are in force.
    pub(super) fn handle_trusting_gone(&mut self, session: SessionId) {
        if self.trusting.remove(&session) && self.trusting.is_empty() && !self.settings.flags.ro {
            tracing::info!(volume = %self.volume.id, "writable: the last mount that was told it is read-only has ended");
            self.tighten_all();
        }
    }

    /// The settings hold for running sessions too.
    pub(super) fn tighten_all(&self) {
        let flags = self.flags_in_force();
        if flags.ro && !self.settings.flags.ro {
            tracing::warn!(
                volume = %self.volume.id, sessions = self.trusting.len(),
                "the volume is to be writable, and stays read-only until the mounts have ended that were told it is \
                 read-only: their kernels may read its files without asking; unmount them, or end their tokens, and mount those \
                 anew that are to write"
            );
        }
        for session in self.sessions.values() {
            session.shared.tighten(flags);
        }
    }
}

/// Those of the last run; the ones that are no session any more are left out by the caller.
///
/// # Errors
/// The engine's.
pub(super) fn kept<S: Store>(namespace: &Namespace<S>) -> Result<BTreeSet<SessionId>, Errno> {
    let ids: Vec<u64> =
        namespace.kept(KEPT)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    Ok(ids.into_iter().map(SessionId).collect())
}
