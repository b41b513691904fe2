//! Where a claimed session is found, whatever volume it belongs to. Asked on the setup path only.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use flexfs_wire::id::SessionId;

use super::shared::Shared;

/// All sessions of this server. Numbers are unique in a volume only; which of several sessions of one number a client
/// means, its proof tells: resume keys are 256 random bits.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    sessions: RwLock<HashMap<SessionId, Vec<Arc<Shared>>>>,
}

impl Registry {
    /// The sessions of that number, one per volume at most.
    pub(crate) fn find(&self, id: SessionId) -> Vec<Arc<Shared>> {
        let sessions = self.sessions.read().unwrap_or_else(PoisonError::into_inner);
        sessions.get(&id).cloned().unwrap_or_default()
    }

    /// Adds a session.
    pub(crate) fn add(&self, shared: &Arc<Shared>) {
        let mut sessions = self.sessions.write().unwrap_or_else(PoisonError::into_inner);
        sessions.entry(shared.info.id).or_default().push(shared.clone());
    }

    /// Takes a session out.
    pub(crate) fn remove(&self, shared: &Arc<Shared>) {
        let mut sessions = self.sessions.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = sessions.get_mut(&shared.info.id) {
            found.retain(|other| !Arc::ptr_eq(other, shared));
            if found.is_empty() {
                sessions.remove(&shared.info.id);
            }
        }
    }
}
