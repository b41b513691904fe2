//! What sessions with a scope may still name: an inode that another session moved out of it is not theirs any more.

use flexfs_wire::errno::Errno;
use flexfs_wire::id::{Ino, SessionId};
use flexfs_wire::lease::{Keep, Recall};
use flexfs_wire::message::{Lock, LockKind, Reply, Request};

use super::host::Host;
use super::message::Job;
use crate::engine::Store;
use crate::namespace::Place;

impl<S: Store> Host<S> {
    /// Root of a session's scope, if it is not all of the volume.
    fn scope_of(&self, session: SessionId) -> Option<Ino> {
        let root = self.sessions.get(&session)?.shared.sealer.root();
        (root != Ino::ROOT).then_some(root)
    }

    /// Whether a call names nothing outside of its session's scope. What was answered before is answered again.
    pub(super) fn may_name(&mut self, job: &Job) -> bool {
        let Some(root) = self.scope_of(job.session) else { return true };
        if gives_back(&job.call.request) || self.namespace.has_answered(job.session, job.request) {
            return true;
        }
        let nodes = job.call.request.nodes();
        nodes.iter().flatten().all(|node| self.is_his(job.session, root, node.ino))
    }

    /// Whether a session may read content of an inode: the same for blocks.
    pub(super) fn may_read(&mut self, session: SessionId, ino: Ino) -> bool {
        self.scope_of(session).is_none_or(|root| self.is_his(session, root, ino))
    }

    /// An inode in the scope; or one that nobody else has looked at or changed since it was in it, so that what this session
    /// wrote before it was moved is not lost.
    fn is_his(&mut self, session: SessionId, root: Ino, ino: Ino) -> bool {
        match self.namespace.place(root, ino) {
            Ok(Place::Within) => true,
            Ok(Place::Unknown) if self.namespace.has_open(session, ino) => true,
            Ok(Place::Unknown) if self.namespace.is_shown(root, ino) => true,
            Ok(Place::Unknown | Place::Outside) => self.leases.is_sole(session, ino),
            // The engine's fault; the call meets it too and says so.
            Err(_) => true,
        }
    }

    /// Whether an inode is known to be outside of a session's scope.
    pub(super) fn is_outside(&mut self, session: SessionId, ino: Ino) -> bool {
        let root = self.scope_of(session);
        root.is_some_and(|root| matches!(self.namespace.place(root, ino), Ok(Place::Outside)))
    }

    /// Notes what an answer shows to a session with a scope.
    pub(super) fn note_shown(
        &mut self,
        session: SessionId,
        request: &Request,
        result: &Result<Reply, Errno>,
    ) {
        let Some(root) = self.scope_of(session) else { return };
        match (request, result) {
            (
                Request::Lookup { parent, name } | Request::Link { parent, name, .. },
                Ok(Reply::Entry(entry)),
            ) => self.namespace.note_shown(root, entry.attr.ino, parent.ino, name),
            (Request::ReadDir { node, plus: true, .. }, Ok(Reply::Entries { entries, .. })) => {
                for line in entries.iter().filter(|line| line.entry.is_some()) {
                    self.namespace.note_shown(root, line.ino, node.ino, &line.name);
                }
            }
            _ => {}
        }
    }

    /// A recall as a session may hear it: of a directory that is not in its scope any more it is told no names.
    pub(super) fn within_scope(&mut self, session: SessionId, mut recall: Recall) -> Recall {
        if recall.name.is_some() && self.is_outside(session, recall.ino) {
            (recall.keep, recall.name) = (Keep::Nothing, None);
        }
        recall
    }
}

/// Whether a request only gives back what the session has.
fn gives_back(request: &Request) -> bool {
    matches!(
        request,
        Request::Close { .. }
            | Request::Unlock { .. }
            | Request::Lock { lock: Lock { kind: LockKind::Unlock, .. }, .. }
    )
}
