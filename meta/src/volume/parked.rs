//! Calls that wait until others have given back their leases of what the call changes or reads.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use flexfs_wire::attr::{Attr, S_IFDIR};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::{Commit, Ino, RequestId, SessionId};
use flexfs_wire::lease::{Keep, Leases, Recall};
use flexfs_wire::limits::RECALL_MS_MAX;
use flexfs_wire::message::{Answer, DirEntry, Notice, Reply, Request};

use super::host::{Host, Now};
use super::message::{Item, Job};
use crate::engine::Store;
use crate::lease::{Done, Want};
use crate::namespace::{Rights, acl};

/// Recalls in one notice: far below the bound of a body.
const RECALLS_PER_NOTICE: usize = 1_000;
/// A recall without an answer is sent again after this, and then with every tick.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long a write of a session that is itself asked to give the file back waits for others that write to it, too.
const CYCLE_MAX: Duration = Duration::from_millis(50);

/// A call that waits.
#[derive(Debug)]
struct Parked {
    job: Job,
    /// Recalls without an answer.
    missing: Vec<u64>,
    /// Recalls answered to this call.
    done: Vec<Done>,
    reserved: Vec<Ino>,
    /// Looked at then: what it waits for may wait for it.
    until: Option<Instant>,
}

impl Parked {
    /// Who writes to which file, if it is a write.
    fn writes(&self) -> Option<(SessionId, Ino)> {
        match &self.job.call.request {
            Request::Write { node, .. } => Some((self.job.session, node.ino)),
            _ => None,
        }
    }
}

/// All of them, in the order they came in; they go on in that order.
#[derive(Debug, Default)]
pub(super) struct Parking {
    calls: BTreeMap<u64, Parked>,
    places: HashMap<(SessionId, RequestId), u64>,
    /// Which calls wait for a recall, and since when it waits.
    recalls: BTreeMap<u64, Waited>,
    last: u64,
    /// Calls with an `until`.
    hurried: usize,
}

#[derive(Debug)]
struct Waited {
    /// When it was asked for.
    asked: Instant,
    /// The same, or when its session last made a step towards it.
    since: Instant,
    calls: Vec<u64>,
}

impl Parking {
    /// Calls that wait.
    pub(super) fn count(&self) -> usize {
        self.calls.len()
    }

    /// Whether a call is not to wait long.
    pub(super) fn is_hurried(&self) -> bool {
        self.hurried > 0
    }

    fn remove(&mut self, place: u64) -> Option<Parked> {
        let parked = self.calls.remove(&place)?;
        self.places.remove(&(parked.job.session, parked.job.request));
        self.hurried -= usize::from(parked.until.is_some());
        Some(parked)
    }

    /// The session of this recall has made a step towards it.
    fn touch(&mut self, id: u64, now: Instant) {
        if let Some(waited) = self.recalls.get_mut(&id) {
            waited.since = now;
        }
    }
}

impl<S: Store> Host<S> {
    /// Applies a call, now, or when those who cache what it is about have given it back.
    pub(super) fn admit_job(&mut self, job: Job, now: Now) {
        if let Some(place) = self.parked.places.get(&(job.session, job.request)) {
            // The same call over a new link takes the place of the old one.
            if let Some(parked) = self.parked.calls.get_mut(place) {
                parked.job = job;
            }
            return;
        }
        if let Some(errno) = self.refusal(&job, now) {
            return self.answer(job.from, job.request, job.stamp, Err(errno));
        }
        // One session alone is in nobody's way.
        if self.sessions.len() == 1 {
            return self.go_on(job, now);
        }
        self.park(job, Vec::new(), now);
    }

    fn park(&mut self, job: Job, done: Vec<Done>, now: Now) {
        let wants = self.wants(&job.call.request);
        let mut until = None;
        if let Some(ino) = self.answers_recall(&job) {
            let mine: Vec<u64> =
                self.leases.outstanding(job.session).iter().map(|recall| recall.id).collect();
            for id in mine {
                self.parked.touch(id, now.mono);
            }
            if matches!(job.call.request, Request::Acquire { .. }) {
                return self.answer_acquired(&job, ino, Leases::NONE);
            }
            until = Some(now.mono + CYCLE_MAX);
        }
        let missing = self.leases.block(job.session, &wants, &done);
        if missing.is_empty() {
            return self.go_on(job, now);
        }
        let reserved = self.leases.reserve(&wants);
        drop(wants);
        self.parked.last += 1;
        let place = self.parked.last;
        self.note_asked(&missing, Some(place), now);
        self.parked.places.insert((job.session, job.request), place);
        self.parked.calls.insert(place, Parked { job, missing, done, reserved, until });
        self.parked.hurried += usize::from(until.is_some());
    }

    /// Nobody is in the way.
    fn go_on(&mut self, job: Job, now: Now) {
        // While it waited, what it names may have been moved out of its scope, or been given to root.
        if let Some(errno) = self.refusal(&job, now) {
            return self.answer(job.from, job.request, job.stamp, Err(errno));
        }
        match job.call.request {
            Request::Acquire { node } => {
                let is_dir = self.namespace.attr(node.ino).is_ok_and(|attr| attr.is_dir());
                let leases = match is_dir {
                    true => self.leases.grant_alone(job.session, node.ino),
                    false => self.leases.grant_exclusive(job.session, node.ino),
                };
                self.answer_acquired(&job, node.ino, leases);
            }
            _ => self.apply(job, now),
        }
    }

    /// What a call is refused with before anybody is asked to give something back for it.
    fn refusal(&mut self, job: &Job, now: Now) -> Option<Errno> {
        if !self.may_name(job) {
            return Some(Errno::ESTALE);
        }
        if job.rights == Rights::Client || self.namespace.has_answered(job.session, job.request) {
            return None;
        }
        self.namespace.guard(&job.context(now), &job.call.request).err()
    }

    fn answer_acquired(&mut self, job: &Job, ino: Ino, leases: Leases) {
        let result = match self.namespace.attr(ino) {
            Ok(attr) if attr.is_file() || attr.is_dir() => Ok(Reply::Attr(attr)),
            Ok(_) => Err(Errno::EINVAL),
            Err(errno) => Err(errno),
        };
        let answer = Answer { commit: Commit(0), at: flexfs_wire::time::Time::default(), result };
        self.outs.push(job.from, Item::Answer { request: job.request, stamp: job.stamp, answer, leases });
    }

    /// The file of a write that comes from a session which was asked to give that very file back.
    fn answers_recall(&self, job: &Job) -> Option<Ino> {
        match &job.call.request {
            Request::Write { node, .. } | Request::Acquire { node }
                if self.leases.is_asked(job.session, node.ino) =>
            {
                Some(node.ino)
            }
            _ => None,
        }
    }

    pub(super) fn note_asked(&mut self, ids: &[u64], place: Option<u64>, now: Now) {
        for id in ids {
            let waited = self.parked.recalls.entry(*id);
            let waited =
                waited.or_insert_with(|| Waited { asked: now.mono, since: now.mono, calls: Vec::new() });
            waited.calls.extend(place);
        }
    }

    /// What a call needs of others.
    fn wants<'a>(&mut self, request: &'a Request) -> Vec<Want<'a>> {
        let mut wants = Vec::with_capacity(6);
        match request {
            // Whoever is alone with the directory may have made the name; whoever writes to the file says how large it is.
            Request::Lookup { parent, name } | Request::LookupToOpen { parent, name }
                if self.leases.has_exclusive() =>
            {
                wants.push(Want::Read(parent.ino));
                wants.extend(self.namespace.child(parent.ino, name).map(Want::Read));
            }
            Request::ReadDir { node, .. } | Request::ReadAhead { node, .. } => {
                wants.push(Want::Read(node.ino))
            }
            Request::GetAttr { node } | Request::ReadLayout { node, .. } => wants.push(Want::Read(node.ino)),
            // To be granted a lease, under which the kernel keeps access lists.
            Request::GetXattr { node, name } if acl::is_list(name) => wants.push(Want::Read(node.ino)),
            Request::Open { node, truncate, .. } => {
                wants.push(if *truncate { Want::Change(node.ino) } else { Want::Read(node.ino) });
            }
            Request::Make { parent, name: Some(name), .. } => {
                wants.extend([Want::Change(parent.ino), Want::Name(parent.ino, name)]);
            }
            Request::Link { node, parent, name } => {
                wants.extend([
                    Want::Change(parent.ino),
                    Want::Name(parent.ino, name),
                    Want::Change(node.ino),
                ]);
            }
            Request::Remove { parent, name, .. } => {
                wants.extend([Want::Change(parent.ino), Want::Name(parent.ino, name)]);
                wants.extend(self.namespace.child(parent.ino, name).map(Want::Change));
            }
            Request::Rename { parent, name, new_parent, new_name, .. } => {
                for (dir, name) in [(parent.ino, name), (new_parent.ino, new_name)] {
                    wants.extend([Want::Change(dir), Want::Name(dir, name)]);
                    wants.extend(self.namespace.child(dir, name).map(Want::Change));
                }
            }
            // That somebody read is no news to others.
            Request::SetAttr { change, .. } if change.is_mere_access() => {}
            Request::SetAttr { node, .. }
            | Request::SetXattr { node, .. }
            | Request::RemoveXattr { node, .. }
            | Request::Write { node, .. }
            | Request::Fallocate { node, .. } => wants.push(Want::Change(node.ino)),
            // A directory is only had alone if nobody is in the way.
            Request::Acquire { node } if self.namespace.attr(node.ino).is_ok_and(|attr| attr.is_dir()) => {}
            Request::Acquire { node } => wants.push(Want::Change(node.ino)),
            Request::CopyRange { source, target, .. } => {
                wants.extend([Want::Read(source.ino), Want::Change(target.ino)]);
            }
            _ => {}
        }
        wants
    }

    /// Lets a session that is alone with a directory alone with a file in it, too.
    fn is_alone_in(&mut self, session: SessionId, dir: Ino, attr: &Attr) -> bool {
        // Of a file with several names others may know another one.
        !attr.is_dir() && attr.nlink == 1 && self.leases.grant_alone_in(session, dir, attr.ino)
    }

    /// What the answer to a call that was just applied grants.
    pub(super) fn grant(
        &mut self,
        session: SessionId,
        request: &Request,
        result: &mut Result<Reply, Errno>,
        now: Now,
    ) -> Leases {
        match (request, result) {
            // The client's kernel keeps access lists, absent ones too.
            (Request::GetXattr { node, .. }, Ok(_) | Err(Errno::ENODATA)) => {
                self.leases.grant(session, node.ino)
            }
            (Request::Lookup { parent, .. } | Request::LookupToOpen { parent, .. }, Err(Errno::ENOENT)) => {
                self.leases.grant_names(session, parent.ino)
            }
            (Request::Lookup { parent, .. } | Request::Link { parent, .. }, Ok(Reply::Entry(entry)))
            | (Request::LookupToOpen { parent, .. }, Ok(Reply::Found { entry, .. })) => {
                let alone = self.is_alone_in(session, parent.ino, &entry.attr);
                let names = self.leases.grant_names(session, parent.ino);
                names.and(self.leases.grant(session, entry.attr.ino)).and(Leases::ALONE.when(alone))
            }
            (Request::Make { parent, .. }, Ok(Reply::Entry(entry))) => {
                let ino = entry.attr.ino;
                if self.leases.is_alone(session, parent.ino) {
                    let (granted, recall) = self.leases.grant_promised(session, parent.ino, &entry.attr);
                    self.note_asked(recall.as_slice(), None, now);
                    return granted;
                }
                let granted = self.leases.grant_names(session, parent.ino).and(match entry.attr.is_file() {
                    true => self.leases.grant_exclusive(session, ino),
                    false => self.leases.grant(session, ino),
                });
                match entry.attr.is_dir() && granted.has(Leases::ATTR) {
                    true => granted.and(self.leases.grant_born(session, ino)),
                    false => granted,
                }
            }
            // Without an exclusive lease the client writes past its kernel's pages: so only one of several sessions that
            // have the file open holds pages locked while it waits.
            (Request::Open { node, write: true, .. }, Ok(_)) => {
                if self.namespace.is_open_elsewhere(session, node.ino) {
                    self.leases.grant(session, node.ino).less(Leases::EXCLUSIVE)
                } else {
                    self.leases.grant_exclusive(session, node.ino)
                }
            }
            (
                Request::GetAttr { node }
                | Request::Open { node, .. }
                | Request::SetAttr { node, .. }
                | Request::Write { node, .. }
                | Request::Fallocate { node, .. }
                | Request::CopyRange { target: node, .. },
                Ok(_),
            ) => self.leases.grant(session, node.ino),
            (Request::ReadDir { node, plus: true, .. }, Ok(Reply::Entries { entries, .. })) => {
                self.grant_entries(session, node.ino, entries)
            }
            (Request::ReadAhead { node, .. }, Ok(Reply::Ahead { entries, layouts, .. })) => {
                let leases = self.grant_entries(session, node.ino, entries);
                layouts.retain(|(place, _)| {
                    entries.get(*place as usize).is_some_and(|line| line.entry.is_some())
                });
                leases
            }
            _ => Leases::NONE,
        }
    }

    /// Grants a directory's names and what comes with their entries; takes out what is not granted.
    fn grant_entries(&mut self, session: SessionId, dir: Ino, entries: &mut [DirEntry]) -> Leases {
        let alone = self.leases.is_alone(session, dir);
        for line in entries {
            let granted = self.leases.grant(session, line.ino).has(Leases::ATTR);
            let is_dir = line.kind == S_IFDIR;
            let attr = line.entry.as_ref().map(|entry| entry.attr);
            let fits = !alone || is_dir || attr.is_some_and(|attr| self.is_alone_in(session, dir, &attr));
            if !(granted && fits) {
                // Others write to it, or it was recalled: whoever wants to know looks it up.
                line.entry = None;
            }
        }
        self.leases.grant_names(session, dir).and(Leases::ATTR).and(Leases::ALONE.when(alone))
    }

    /// A session did as it was asked.
    pub(super) fn handle_recalled(&mut self, session: SessionId, ids: &[u64], now: Now) {
        let mut ready = Vec::new();
        for id in ids {
            if let Some(done) = self.leases.finish(session, *id) {
                self.settle_recall(*id, Some(&done), &mut ready);
            }
        }
        if !self.leases.owes(session)
            && let Some(found) = self.sessions.get(&session)
        {
            found.shared.set_recalled(false);
        }
        self.unpark(ready, now);
    }

    fn settle_recall(&mut self, id: u64, done: Option<&Done>, ready: &mut Vec<u64>) {
        let Some(waited) = self.parked.recalls.remove(&id) else { return };
        for place in waited.calls {
            let Some(parked) = self.parked.calls.get_mut(&place) else { continue };
            parked.missing.retain(|other| *other != id);
            parked.done.extend(done.cloned());
            if parked.missing.is_empty() {
                ready.push(place);
            }
        }
    }

    fn unpark(&mut self, mut ready: Vec<u64>, now: Now) {
        ready.sort_unstable();
        for place in ready {
            let Some(parked) = self.parked.remove(place) else { continue };
            self.leases.unreserve(&parked.reserved);
            // Somebody may be in the way of what it has become.
            self.park(parked.job, parked.done, now);
        }
    }

    /// Applies what is waited for by those it waits for: two sessions that write to one file at the same time through
    /// pages of their kernels, which each holds locked. One of them is then read a moment late at the other. Who waits for
    /// a session that does not write to the file goes on waiting: that one will answer.
    pub(super) fn break_cycles(&mut self, now: Now) {
        if !self.parked.is_hurried() {
            return;
        }
        let is_due = |parked: &Parked| parked.until.is_some_and(|until| until <= now.mono);
        let due: Vec<u64> =
            self.parked.calls.iter().filter(|(_, parked)| is_due(parked)).map(|(place, _)| *place).collect();
        if due.is_empty() {
            return;
        }
        let writers: HashSet<(SessionId, Ino)> =
            self.parked.calls.values().filter_map(Parked::writes).collect();
        for place in due {
            let Some(parked) = self.parked.calls.get_mut(&place) else { continue };
            let Some((_, ino)) = parked.writes() else { continue };
            let asked = parked.missing.iter().filter_map(|id| self.leases.asked(*id));
            if !asked.into_iter().any(|asked| writers.contains(&(asked.session, ino))) {
                parked.until = Some(now.mono + CYCLE_MAX);
                continue;
            }
            if let Some(parked) = self.parked.remove(place) {
                self.leases.unreserve(&parked.reserved);
                self.go_on(parked.job, now);
            }
        }
    }

    /// The session is gone: nobody waits for it, and nothing of it waits.
    pub(super) fn end_leases(&mut self, session: SessionId, now: Now) {
        let mine: Vec<u64> = self
            .parked
            .calls
            .iter()
            .filter(|(_, parked)| parked.job.session == session)
            .map(|(place, _)| *place)
            .collect();
        for place in mine {
            if let Some(parked) = self.parked.remove(place) {
                self.leases.unreserve(&parked.reserved);
            }
        }
        let mut ready = Vec::new();
        for id in self.leases.end_session(session) {
            self.settle_recall(id, None, &mut ready);
        }
        self.unpark(ready, now);
    }

    /// Sends what the calls of this batch need.
    pub(super) fn send_recalls(&mut self) {
        let mut orders = self.leases.take_orders();
        orders.sort_by_key(|(session, _)| *session);
        for group in orders.chunk_by(|one, other| one.0 == other.0) {
            let recalls = group.iter().map(|(_, recall)| recall.clone()).collect();
            self.send_to(group[0].0, recalls);
        }
    }

    /// A session has a new link, or lost one: what it may not have heard is said again.
    pub(super) fn resend_recalls(&mut self, session: SessionId) {
        let recalls = self.leases.outstanding(session);
        if !recalls.is_empty() {
            self.send_to(session, recalls);
        }
    }

    fn send_to(&mut self, session: SessionId, recalls: Vec<Recall>) {
        let recalls: Vec<Recall> =
            recalls.into_iter().map(|recall| self.within_scope(session, recall)).collect();
        let Some(found) = self.sessions.get(&session) else { return };
        // Before it hears of it: what it does to answer is not held back by limits of its token.
        found.shared.set_recalled(true);
        // Without a link it waits for the next one, or for the end of the session.
        if let Some(link) = found.links.last() {
            for recalls in recalls.chunks(RECALLS_PER_NOTICE) {
                self.outs.push(*link, Item::Notice(Notice::Recall { recalls: recalls.to_vec() }));
            }
        }
    }

    /// Tells again those who have not answered recalls, and ends sessions that never do.
    pub(super) fn end_deaf(&mut self, now: Now) -> Result<(), Errno> {
        let limit = Duration::from_millis(RECALL_MS_MAX);
        let is_late = |waited: &Waited| now.mono.saturating_duration_since(waited.since) > limit;
        let late: Vec<u64> =
            self.parked.recalls.iter().filter(|(_, waited)| is_late(waited)).map(|(id, _)| *id).collect();
        // A notice to a link that is only being made, or is about to break, may be lost: whoever has not answered is told
        // again, whatever steps it makes: a writer that asks for the lease over and over may not know that it is to give it
        // back. To hear of it twice does no harm.
        let mut silent: Vec<SessionId> = self
            .parked
            .recalls
            .iter()
            .filter(|(_, waited)| now.mono.saturating_duration_since(waited.asked) > AGAIN_AFTER)
            .filter_map(|(id, _)| self.leases.asked(*id).map(|asked| asked.session))
            .collect();
        silent.sort_unstable();
        silent.dedup();
        for session in silent {
            self.resend_recalls(session);
        }
        for id in late {
            let Some(asked) = self.leases.asked(id) else { continue };
            let (session, ino, keep) = (asked.session, asked.recall.ino, asked.recall.keep);
            let client = self.sessions.get(&session).map(|found| found.shared.info.client.clone());
            tracing::warn!(
                volume = %self.volume.id, %session, client = client.unwrap_or_default(), ino = ino.0,
                wrote = keep != Keep::All,
                "session ended: it did not give back a lease within {RECALL_MS_MAX} ms; others wait for it"
            );
            self.end(session, now, None)?;
        }
        Ok(())
    }
}
