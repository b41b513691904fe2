//! What sessions with a scope may still name: an inode that another session moved out of it is not theirs any more.

use flexfs_wire::errno::Errno;
use flexfs_wire::id::{Ino, SessionId};
use flexfs_wire::lease::{Keep, Recall};
use flexfs_wire::message::{Lock, LockKind, Reply, Request};
use flexfs_wire::seal::Node;

use super::host::Host;
use super::message::Job;
use crate::engine::Store;
use crate::namespace::Place;

/// How a session with a scope stands to an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is in the scope.
    Within,
    /// It has, or had, several names; none in the scope is known, but the session has it open.
    Open,
    /// It is not in the scope, but nobody else has looked at it or changed it since it was: what this session wrote before it was
    /// moved is not lost.
    Sole,
    /// It is not his any more.
    Strange,
}

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
        let [first, second] = job.call.request.nodes();
        let mut standing = |node: Option<Node>| node.map(|node| self.standing(job.session, root, node.ino));
        let (first, second) = (standing(first), standing(second));
        // Nothing is brought back into the scope that was taken out of it: a file that is only open gets no new name, unless it
        // never had one, and what is outside stays there.
        let is_named_anew = matches!(job.call.request, Request::Link { node, .. } if self.has_name(node.ino));
        match (first, second) {
            (Some(Standing::Open), _) if is_named_anew => false,
            (Some(Standing::Strange), _) | (_, Some(Standing::Strange)) => false,
            (Some(one), Some(other)) => (one == Standing::Sole) == (other == Standing::Sole),
            _ => true,
        }
    }

    fn has_name(&mut self, ino: Ino) -> bool {
        self.namespace.attr(ino).is_ok_and(|attr| attr.nlink > 0)
    }

    /// Whether a session may read content of an inode: the same for blocks.
    pub(super) fn may_read(&mut self, session: SessionId, ino: Ino) -> bool {
        self.scope_of(session).is_none_or(|root| self.standing(session, root, ino) != Standing::Strange)
    }

    fn standing(&mut self, session: SessionId, root: Ino, ino: Ino) -> Standing {
        match self.namespace.place(root, ino) {
            Ok(Place::Within) => Standing::Within,
            Ok(Place::Unknown) if self.namespace.is_shown(root, ino) => Standing::Within,
            Ok(Place::Unknown) if self.namespace.has_open(session, ino) => Standing::Open,
            Ok(Place::Unknown | Place::Outside) if self.leases.is_sole(session, ino) => Standing::Sole,
            Ok(Place::Unknown | Place::Outside) => Standing::Strange,
            // The engine's fault; the call meets it too and says so.
            Err(_) => Standing::Within,
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
            )
            | (Request::LookupToOpen { parent, name }, Ok(Reply::Found { entry, .. })) => {
                self.namespace.note_shown(root, entry.attr.ino, parent.ino, name)
            }
            (Request::ReadDir { node, plus: true, .. }, Ok(Reply::Entries { entries, .. }))
            | (Request::ReadAhead { node, .. }, Ok(Reply::Ahead { entries, .. })) => {
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
