//! Frames of a running session to where they are served: what needs the namespace is gathered for the volume thread,
//! blocks are served on this core. What a client may not do is refused here, at the border.

use std::rc::Rc;

use flexfs_wire::errno::Errno;
use flexfs_wire::frame::{self, FrameError, Header, Kind};
use flexfs_wire::id::RequestId;
use flexfs_wire::message::{Call, Caller, Lock, LockKind, Recovery, Replay, Request, Write};
use flexfs_wire::seal::Node;
use tokio::sync::OwnedSemaphorePermit;

use super::block::{self, Task};
use super::core::Core;
use super::link::Link;
use super::pace::{self, Held};
use super::veil;
use crate::blocks::{Part, Wanted};
use crate::clock;
use crate::front;
use crate::metrics;
use crate::namespace::{Rights, acl};
use crate::payload::Payload;
use crate::volume::{EndOfReplay, Job, Stamp, ToVolume};
use crate::volume::{Rules, Shared};

/// uid and gid that root is mapped to.
const NOBODY: u32 = 65_534;
/// Answers by their length, bytes: attributes; an open with inline bytes or extents; values, lists, layouts; a listing.
const SHORT_BYTES: u32 = 256;
const OPENED_BYTES: u32 = 20 * 1024;
const LONG_BYTES: u32 = 64 * 1024;
const LISTING_BYTES: u32 = 1024 * 1024;

/// Requests of one link gathered for one send.
#[derive(Debug, Default)]
pub(super) struct Dispatch {
    jobs: Vec<Job>,
}

impl Dispatch {
    /// One frame.
    ///
    /// # Errors
    /// The peer does not keep to the protocol; the link must end.
    pub(super) fn frame(
        &mut self,
        core: &Rc<Core>,
        link: &Rc<Link>,
        header: Header,
        body: &[u8],
        payload: Payload,
        room: Vec<OwnedSemaphorePermit>,
    ) -> Result<(), FrameError> {
        let Some(session) = link.session().cloned() else { return Err(FrameError::Body(header.kind)) };
        match header.kind {
            Kind::Request => {
                let call: Call = frame::decode(header.kind, body)?;
                let with_payload = matches!(call.request, Request::PutBlock { .. });
                if !payload.is_empty() && !with_payload {
                    return Err(FrameError::Body(header.kind));
                }
                self.request(core, link, &session, header, call, payload, room);
            }
            Kind::Replay => {
                let mut replay: Replay = frame::decode(header.kind, body)?;
                let rules = session.rules();
                let request = &replay.call.request;
                if !nodes_are_good(&session, request)
                    || veil::refused(session.info.encrypted, request).is_some()
                {
                    return Err(FrameError::Body(header.kind));
                }
                if refused_by(rules, &replay.call.request).is_some() {
                    // A volume may have become read-only since; the rest of its replay still counts.
                    tracing::warn!(
                        session = %session.info.id, request = %header.request,
                        "a replayed call is not permitted by the session's flags; it was left out"
                    );
                    return Ok(());
                }
                let rights = squash(rules, &mut replay.call.caller);
                self.flush(&session);
                session.volume.send(ToVolume::Replay {
                    session: session.info.id,
                    link: link.key,
                    request: header.request,
                    rights,
                    umask: rules.umask,
                    bytes: header.body_bytes,
                    replay: Box::new(replay),
                });
            }
            Kind::Recovery => {
                let recovery: Recovery = frame::decode(header.kind, body)?;
                link.begin(header.body_bytes);
                self.flush(&session);
                let end =
                    end_of_replay(link, &session, header, recovery).ok_or(FrameError::Body(header.kind))?;
                session.volume.send(ToVolume::Recovery(Box::new(end)));
            }
            other @ (Kind::Hello | Kind::Welcome | Kind::Reply | Kind::Notice) => {
                return Err(FrameError::Body(other));
            }
        }
        Ok(())
    }

    /// Sends what was gathered: one message, one wake.
    pub(super) fn flush(&mut self, session: &Shared) {
        if !self.jobs.is_empty() {
            let capacity = self.jobs.len();
            let jobs = std::mem::replace(&mut self.jobs, Vec::with_capacity(capacity));
            session.volume.call(ToVolume::Jobs(jobs));
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a frame's parts and where it came from")]
    fn request(
        &mut self,
        core: &Rc<Core>,
        link: &Rc<Link>,
        session: &std::sync::Arc<Shared>,
        header: Header,
        mut call: Call,
        payload: Payload,
        room: Vec<OwnedSemaphorePermit>,
    ) {
        let cost = header.body_bytes.saturating_add(answer_bytes(&call.request));
        let stamp = Stamp { started: clock::now(), kind: metrics::kind_of(&call.request), cost };
        link.begin(cost);
        let rules = session.rules();
        let refusal = if session.has_ended() {
            Some(Errno::EACCES)
        } else if !nodes_are_good(session, &call.request) {
            Some(Errno::ESTALE)
        } else {
            refused_by(rules, &call.request).or_else(|| veil::refused(session.info.encrypted, &call.request))
        };
        if let Some(errno) = refusal {
            link.refuse(core, header.request, stamp, errno);
            return;
        }
        let limited = session.info.limiter.is_on() && !pace::is_free(&call.request);
        if let Request::CancelWait { request } = &call.request {
            // It would find nothing to cancel.
            self.jobs.extend(pace::take(link, session, *request));
        }
        let task = Task {
            core: core.clone(),
            link: link.clone(),
            session: session.clone(),
            request: header.request,
            stamp,
        };
        let bytes = header.body_bytes;
        match call.request {
            Request::PutBlock { block: id } => front::spawn(block::put(task, id, payload, room)),
            Request::ReadBlock { node, block: id, first, count } => {
                let part = Part::Segments { first, count };
                read(task, Wanted { ino: node.ino, block: id, part }, limited, bytes);
            }
            Request::ReadPages { node, block: id, segment, first, count } => {
                let part = Part::Pages { segment, first, count };
                read(task, Wanted { ino: node.ino, block: id, part }, limited, bytes);
            }
            _ => {
                if let Request::Write { write: Write { carried: Some(carried), .. }, .. } = &call.request {
                    core.metrics.block_bytes_in.increment(carried.bytes.len() as u64);
                }
                let rights = squash(rules, &mut call.caller);
                let job = Job {
                    from: link.key,
                    session: session.info.id,
                    request: header.request,
                    finished: RequestId(header.mark),
                    stamp,
                    rights,
                    umask: rules.umask,
                    call,
                };
                match limited {
                    true => self.jobs.extend(pace::admit(core, link, session, job, bytes)),
                    false => self.jobs.push(job),
                }
            }
        }
    }
}

/// Serves a read of a block when its turn comes; `bytes`: memory it takes until then.
fn read(task: Task, wanted: Wanted, limited: bool, bytes: u32) {
    if !limited {
        return front::spawn(block::read(task, wanted));
    }
    let (core, link, session) = (task.core.clone(), task.link.clone(), task.session.clone());
    pace::submit(&core, &link, &session, Held::Read(task, wanted), bytes);
}

fn nodes_are_good(session: &Shared, request: &Request) -> bool {
    request.nodes().iter().flatten().all(|node| session.sealer.verify(*node))
}

/// About the longest answer to a request, bytes. Segments of blocks have a bound of their own (`Core::block_room`).
fn answer_bytes(request: &Request) -> u32 {
    match request {
        Request::ReadDir { bytes_max, .. } => (*bytes_max).clamp(SHORT_BYTES, LISTING_BYTES),
        Request::ReadAhead { count, open, .. } => {
            let (entry, all) =
                if *open { (OPENED_BYTES, 2 * LISTING_BYTES) } else { (SHORT_BYTES, LISTING_BYTES) };
            count.saturating_mul(entry).clamp(SHORT_BYTES, all)
        }
        Request::GetXattr { .. } | Request::ListXattr { .. } | Request::ReadLayout { .. } => LONG_BYTES,
        Request::Open { .. } | Request::LookupToOpen { .. } => OPENED_BYTES,
        // A seal each.
        Request::GrantInodes { .. } => LISTING_BYTES,
        _ => SHORT_BYTES,
    }
}

/// What a session may not do by its flags, and what it is told.
fn refused_by(rules: Rules, request: &Request) -> Option<Errno> {
    let writes = match request {
        Request::PutBlock { .. } | Request::Open { write: true, .. } | Request::Acquire { .. } => true,
        Request::GrantInodes { .. } | Request::GrantBlocks { .. } => true,
        Request::Lock { lock: Lock { kind: LockKind::Write, .. }, .. } => true,
        other => other.is_mutation(),
    };
    if rules.ro && writes {
        return Some(Errno::EROFS);
    }
    match request {
        Request::GetXattr { name, .. }
        | Request::SetXattr { name, .. }
        | Request::RemoveXattr { name, .. }
            if rules.no_acl && acl::is_list(name) =>
        {
            Some(Errno::EOPNOTSUPP)
        }
        _ => None,
    }
}

/// Maps root to nobody where the session's flags say so.
fn squash(rules: Rules, caller: &mut Caller) -> Rights {
    match rules.root_squash {
        false => return Rights::Client,
        true if caller.uid != 0 && caller.gid != 0 => return Rights::Guarded,
        true => {}
    }
    if caller.uid == 0 {
        caller.uid = NOBODY;
    }
    if caller.gid == 0 {
        caller.gid = NOBODY;
    }
    Rights::Nobody
}

fn end_of_replay(link: &Link, session: &Shared, header: Header, recovery: Recovery) -> Option<EndOfReplay> {
    let good = |node: &Node| session.sealer.verify(*node);
    if !recovery.opens.iter().all(|(node, _)| good(node))
        || !recovery.locks.iter().all(|(node, _)| good(node))
        || !recovery.exclusive.iter().all(good)
    {
        return None;
    }
    // A read-only session has neither unwritten bytes nor write locks, or none that it may still use.
    let ro = session.rules().ro;
    let locks = recovery.locks.into_iter().filter(|(_, lock)| !ro || lock.kind != LockKind::Write);
    let exclusive = recovery.exclusive.into_iter().filter(|_| !ro);
    Some(EndOfReplay {
        session: session.info.id,
        link: link.key,
        request: header.request,
        stamp: Stamp { started: clock::now(), kind: metrics::KIND_RECOVERY, cost: header.body_bytes },
        opens: recovery.opens.into_iter().map(|(node, count)| (node.ino, count)).collect(),
        locks: locks.map(|(node, lock)| (node.ino, lock)).collect(),
        exclusive: exclusive.map(|node| node.ino).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flexfs_wire::id::Ino;
    use flexfs_wire::message::LockFamily;

    #[test]
    fn read_only_is_enforced() {
        let ro = Rules { ro: true, root_squash: false, no_acl: false, umask: 0 };
        let refused_by = |rules, request: &Request| refused_by(rules, request).is_some();
        let node = Node::unsealed(Ino(1));
        let lock = |kind| Request::Lock {
            node,
            lock: Lock { family: LockFamily::Posix, kind, owner: 0, pid: 0, start: 0, end: 0 },
            wait: false,
        };
        let open = |write, truncate| Request::Open { node, write, truncate, kill_privileges: false };
        assert!(refused_by(ro, &open(true, false)) && refused_by(ro, &open(false, true)));
        assert!(!refused_by(ro, &open(false, false)));
        assert!(refused_by(ro, &lock(LockKind::Write)) && !refused_by(ro, &lock(LockKind::Read)));
        assert!(refused_by(ro, &Request::PutBlock { block: flexfs_wire::id::BlockId(1) }));
        assert!(refused_by(ro, &Request::GrantBlocks { count: 1 }));
        assert!(!refused_by(Rules { ro: false, ..ro }, &open(true, true)));
    }

    #[test]
    fn no_lists_where_there_are_to_be_none() {
        let rules = Rules { ro: false, root_squash: false, no_acl: true, umask: 0 };
        let get = |name: &[u8]| Request::GetXattr { node: Node::unsealed(Ino(1)), name: name.to_vec() };
        assert_eq!(refused_by(rules, &get(b"system.posix_acl_access")), Some(Errno::EOPNOTSUPP));
        assert_eq!(refused_by(rules, &get(b"user.x")), None);
        assert_eq!(refused_by(Rules { no_acl: false, ..rules }, &get(b"system.posix_acl_default")), None);
    }

    #[test]
    fn root_becomes_nobody() {
        let rules = Rules { ro: false, root_squash: true, no_acl: false, umask: 0 };
        let mut caller = Caller { uid: 0, gid: 5 };
        assert_eq!(squash(rules, &mut caller), Rights::Nobody);
        assert_eq!(caller, Caller { uid: NOBODY, gid: 5 });
        let mut caller = Caller { uid: 7, gid: 7 };
        assert_eq!(squash(rules, &mut caller), Rights::Guarded);
        let mut root = Caller { uid: 0, gid: 0 };
        assert_eq!(squash(Rules { root_squash: false, ..rules }, &mut root), Rights::Client);
    }
}
