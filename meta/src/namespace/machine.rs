//! The machine: requests in, answers out, one commit for each mutation.

use std::cell::RefCell;
use std::collections::BTreeSet;

use flexfs_wire::errno::Errno;
use flexfs_wire::id::{Commit, Ino, RequestId, SessionId};
use flexfs_wire::message::{Answer, Reply, Request};
use flexfs_wire::name::Name;
use flexfs_wire::time::Time;

use super::context::{Bounds, Context, Figures, Limits, Outcome, answered};
use super::idle::Idle;
use super::maps::Maps;
use super::record::{Dentry, Inode, Kept, State, decode, encode};
use super::roster::Roster;
use super::txn::{Effect, Txn};
use crate::cache::Cache;
use crate::dedup::{Dedup, Remembered};
use crate::engine::{Durable, Store, key};
use crate::lock::Locks;
use crate::orphan::{Opens, Orphans};

/// Dedup rows removed along with one commit: a few more than one commit adds, so that the queue shrinks.
const PRUNED_PER_COMMIT: usize = 4;

/// One volume. One thread owns it.
#[derive(Debug)]
pub struct Namespace<S> {
    pub(super) store: S,
    pub(super) limits: Limits,
    pub(super) bounds: Bounds,
    /// Counters as they stand in the store.
    pub(super) state: State,
    pub(super) inodes: Cache<Ino, Inode>,
    pub(super) dentries: Cache<(Ino, Name), Dentry>,
    /// Filled by reads too.
    pub(super) maps: RefCell<Maps>,
    pub(super) opens: Opens,
    pub(super) orphans: Orphans,
    /// Inodes with dead ranges.
    pub(super) dying: BTreeSet<Ino>,
    pub(super) dedup: Dedup,
    pub(super) locks: Locks,
    pub(super) roster: Roster,
    /// Blocks that no file refers to.
    pub(super) idle: Idle,
    /// Names under which sessions with a scope (its root) were shown inodes with several names.
    pub(super) shown: Cache<(Ino, Ino), (Ino, Name)>,
    /// No garbage row is below this one: the scan need not cross the graves of those that were.
    pub(super) garbage_from: Vec<u8>,
    /// The orphan that is being reclaimed, and up to which offset it has no extents any more: with each step a scan from its beginning
    /// would cross the graves of all that were removed before, which for a million extents took minutes of the volume's thread.
    pub(super) reclaimed: Option<(Ino, u64)>,
    /// What was found when the store was opened; commits of this life are above it.
    pub(super) survived: Commit,
}

impl<S: Store> Namespace<S> {
    /// Answers any request of the namespace: all but `Heartbeat`, `GrantInodes`, `GrantBlocks`, `Sync`, `PutBlock`,
    /// `ReadBlock`, `CancelWait` and `Leave`, which are the session layer's (`EPROTO`).
    pub fn apply(&mut self, context: &Context, request: &Request) -> Outcome {
        if request.is_once() && self.dedup.is_finished(context.session, context.request) {
            return Outcome::refused(context, Errno::ECANCELED);
        }
        self.apply_replay(context, request)
    }

    /// Repeats a call that was answered and lost. `context` has the time and the request id of the original.
    ///
    /// Order: the session layer gathers the replays of all sessions first and applies them in ascending order of the
    /// commits they were answered with; so every call finds what it found the first time. A call whose effect did survive
    /// is answered from the dedup table, which lies in the same batch as the effect, and changes nothing. Requests of
    /// sessions that are not recovering wait until `finish_recovery`. When a session never comes back, calls of others that
    /// were built on its lost ones are refused with the errno the gap gives (`ENOENT` mostly).
    ///
    /// A replay has the outcome of the original: what is decided never depends on how far the background had come, which
    /// after a crash is less far. Only `Attr::blocks` may differ, and whether a layout comes along with an open.
    pub fn apply_replay(&mut self, context: &Context, request: &Request) -> Outcome {
        if request.is_once() {
            if let Some(outcome) = self.resent(context, request) {
                return outcome;
            }
            if self.dedup.is_full(context.session) {
                return Outcome::refused(context, Errno::EPROTO);
            }
        }
        if context.is_guarded()
            && let Err(errno) = self.guard(context, request)
        {
            return Outcome::refused(context, errno);
        }
        if request.is_mutation() {
            return Outcome::now(self.mutate(context, request));
        }
        match request {
            Request::Open { node, write, .. } => {
                let result = self.open_inode(context, node.ino, *write);
                self.remember(context, result)
            }
            Request::Close { node, count } => {
                self.close_inode(context, node.ino, *count);
                self.remember(context, Ok(Reply::Done))
            }
            Request::Lock { node, lock, wait } => self.take_lock(context, node.ino, lock, *wait),
            Request::Unlock { node, family, owner } => self.drop_locks(context, node.ino, *family, *owner),
            _ => {
                let result = self.read(context, request);
                Outcome::now(answered(context.now, Commit(0), result))
            }
        }
    }

    /// A frame's `mark`: the client is done with every request below it.
    pub fn finished(&mut self, session: SessionId, mark: RequestId) {
        // While a recovery runs answers are kept: should the server die again, clients replay from where it began.
        if !self.is_recovering() {
            self.dedup.finish(session, mark);
        }
    }

    /// The volume's bounds have changed.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The volume's bounds.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Makes it do more or less at once, and empties its caches. For tests.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
        self.inodes = Cache::new(bounds.cached);
        self.dentries = Cache::new(bounds.cached);
        self.maps = RefCell::default();
    }

    /// Figures of the moment.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures {
            inodes: self.state.inodes,
            bytes: self.state.bytes,
            orphans: self.orphans.len() as u64,
            opens: self.opens.sum(),
            locks: self.locks.held(),
            lock_waits: self.locks.waits(),
            sessions: self.roster.len() as u64,
            dedup: self.dedup.len() as u64,
            idle_bytes: self.idle.bytes(),
        }
    }

    /// The watch on what is durable.
    pub fn durable(&self) -> &Durable {
        self.store.durable()
    }

    /// Somebody waits until this commit is durable.
    pub fn want(&self, commit: Commit) {
        self.store.want(commit);
    }

    /// Whether a session other than this one has the inode open.
    pub fn is_open_elsewhere(&self, session: SessionId, ino: Ino) -> bool {
        self.opens.is_open_elsewhere(session, ino)
    }

    /// Whether a call was answered before, and is remembered.
    pub fn has_answered(&self, session: SessionId, request: RequestId) -> bool {
        self.dedup.get(session, request).is_some()
    }

    /// The store, for `verify` and for tests.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The store, to steer it in tests. Changing rows behind the machine's back breaks it.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// Gives the store back; what was only in memory is gone, as in a crash.
    pub fn into_store(self) -> S {
        self.store
    }

    /// Makes everything durable and ends.
    ///
    /// # Errors
    /// `EIO` when that failed.
    pub fn close(self) -> Result<(), Errno> {
        self.store.close()
    }

    fn mutate(&mut self, context: &Context, request: &Request) -> Answer {
        let mut answer = self.try_mutate(context, request);
        // What lingers must not be what a volume is full of.
        if answer.result == Err(Errno::ENOSPC) && self.end_lingering(context.now) {
            answer = self.try_mutate(context, request);
        }
        if let (Request::Write { write, .. }, Err(errno)) = (request, answer.result.as_ref())
            // What a dead engine refuses is brought to the next server.
            && *errno != Errno::EIO
        {
            self.end_refused(context.session, write);
        }
        answer
    }

    fn try_mutate(&mut self, context: &Context, request: &Request) -> Answer {
        let mut txn = Txn::new(context.stamp(), self.state);
        txn.is_told = context.told.is_some();
        let result = self
            .perform(context, request, &mut txn)
            .and_then(|reply| self.check_quota(&txn).map(|()| reply))
            .and_then(|reply| {
                let kept = encode(&Kept { at: context.now, reply: reply.clone() });
                txn.batch.put(key::dedup(context.session, context.request), kept);
                if matches!(request, Request::Remove { .. }) {
                    // One name of several, or of an open file, frees nothing yet.
                    txn.batch.set_vital();
                }
                if context.told.is_some() || is_promised(request) {
                    txn.batch.set_vital();
                }
                let commit = self.commit(&mut txn, Some(context.session))?;
                Ok((commit, reply))
            });
        match result {
            Ok((commit, reply)) => {
                let remembered = Remembered::Stored { commit, fresh: true };
                self.dedup.insert(context.session, context.request, remembered);
                answered(context.now, commit, Ok(reply))
            }
            Err(errno) => answered(context.now, Commit(0), Err(errno)),
        }
    }

    fn perform(&mut self, context: &Context, request: &Request, txn: &mut Txn) -> Result<Reply, Errno> {
        match request {
            Request::Open { node, write, kill_privileges, .. } => {
                self.open_truncated(context, txn, node.ino, *write, *kill_privileges)
            }
            Request::Make { parent, name, make } => self.make(context, txn, parent.ino, name.as_ref(), make),
            Request::Link { node, parent, name } => self.link(context, txn, node.ino, parent.ino, name),
            Request::Remove { parent, name, dir } => self.remove(context, txn, parent.ino, name, *dir),
            Request::Rename { parent, name, new_parent, new_name, flags } => {
                self.rename(context, txn, (parent.ino, name), (new_parent.ino, new_name), *flags)
            }
            Request::SetAttr { node, change } => self.set_attr(context, txn, node.ino, change),
            Request::SetXattr { node, name, value, mode } => {
                self.set_xattr(context, txn, node.ino, (name, value), *mode)
            }
            Request::RemoveXattr { node, name } => self.remove_xattr(context, txn, node.ino, name),
            Request::Write { node, write } => self.write(context, txn, node.ino, write),
            Request::Fallocate { node, mode, offset, length } => {
                self.fallocate(context, txn, node.ino, *mode, *offset, *length)
            }
            Request::CopyRange { source, source_offset, target, target_offset, length } => self.copy_range(
                context,
                txn,
                (source.ino, *source_offset),
                (target.ino, *target_offset),
                *length,
            ),
            _ => Err(Errno::EPROTO),
        }
    }

    /// The answer of a call that was done before.
    fn resent(&mut self, context: &Context, request: &Request) -> Option<Outcome> {
        if self.locks.is_waiting(context.session, context.request) {
            return Some(Outcome::waiting());
        }
        let (commit, fresh) = match self.dedup.get(context.session, context.request)? {
            Remembered::Here(answer) => return Some(Outcome::now((**answer).clone())),
            Remembered::Stored { commit, fresh } => (*commit, *fresh),
        };
        let kept = self
            .store
            .get(&key::dedup(context.session, context.request))
            .and_then(|row| row.map(|row| decode::<Kept>(&row)).transpose());
        let Ok(Some(kept)) = kept else { return Some(Outcome::refused(context, Errno::EIO)) };
        if !fresh {
            self.count_again(context, request, &kept.reply);
            let remembered = Remembered::Stored { commit, fresh: true };
            self.dedup.insert(context.session, context.request, remembered);
        }
        Some(Outcome::now(answered(kept.at, commit, Ok(kept.reply))))
    }

    /// The open that a call of the server's last life had counted.
    fn count_again(&mut self, context: &Context, request: &Request, reply: &Reply) {
        let (opened, write) = match (request, reply) {
            (Request::Open { node, write, .. }, _) => (node.ino, *write),
            (Request::Make { make, name, .. }, Reply::Entry(entry)) if make.open || name.is_none() => {
                (entry.node.ino, true)
            }
            _ => return,
        };
        self.follow(Effect::Opened(opened, write), Some(context.session));
    }

    /// Keeps the answer of a call that changes the session only.
    pub(super) fn remember(&mut self, context: &Context, result: Result<Reply, Errno>) -> Outcome {
        let answer = answered(context.now, Commit(0), result);
        if answer.result.is_ok() {
            let remembered = Remembered::Here(Box::new(answer.clone()));
            self.dedup.insert(context.session, context.request, remembered);
        }
        Outcome::now(answer)
    }

    /// Commits what a request has gathered and lets memory follow. On an error nothing has changed.
    pub(super) fn commit(&mut self, txn: &mut Txn, session: Option<SessionId>) -> Result<Commit, Errno> {
        txn.pruned = self.dedup.take_obsolete(PRUNED_PER_COMMIT);
        for (session, request) in &txn.pruned {
            txn.batch.remove(key::dedup(*session, *request));
        }
        self.roster.save(&mut txn.batch);
        let mut batch = txn.take_batch(&self.state);
        if txn.state.bytes < self.state.bytes || txn.state.inodes < self.state.inodes {
            batch.set_vital();
        }
        let commit = match self.store.commit(batch) {
            Ok(commit) => commit,
            Err(errno) => {
                for (session, request) in txn.pruned.drain(..) {
                    self.dedup.discard(session, request);
                }
                self.forget(txn);
                return Err(errno);
            }
        };
        self.state = txn.state;
        self.roster.handle_saved();
        for (ino, inode) in txn.inodes.iter() {
            match inode {
                Some(inode) => self.inodes.insert(*ino, *inode),
                None => drop(self.inodes.remove(ino)),
            }
        }
        for (place, dentry) in txn.dentries.drain() {
            match dentry {
                Some(dentry) => self.dentries.insert(place, dentry),
                None => drop(self.dentries.remove(&place)),
            }
        }
        self.follow_extents(txn);
        self.watch_garbage(txn);
        for effect in std::mem::take(&mut txn.effects) {
            self.follow(effect, session);
        }
        Ok(commit)
    }

    fn follow_extents(&mut self, txn: &Txn) {
        // Nearly every call changes inodes, few change extents.
        if txn.extents.is_empty() {
            return;
        }
        let maps = self.maps.get_mut();
        for ((ino, end), extent) in &txn.extents {
            maps.apply(*ino, *end, *extent);
        }
        for (ino, inode) in txn.inodes.iter() {
            maps.settle(*ino, inode.as_ref().map(|inode| inode.extents));
        }
    }

    fn follow(&mut self, effect: Effect, session: Option<SessionId>) {
        match effect {
            Effect::Opened(ino, write) => {
                if let Some(session) = session {
                    self.opens.add(session, ino, 1);
                    if write {
                        self.opens.note_writer(session, ino);
                    }
                }
            }
            Effect::Orphaned(ino) => {
                self.orphans.insert(ino, !self.is_recovering() && !self.opens.is_open(ino))
            }
            Effect::Lingers(ino) => self.orphans.linger(ino),
            Effect::Unorphaned(ino) => self.orphans.remove(ino),
            Effect::Dying(ino) => {
                self.dying.insert(ino);
            }
            Effect::Dead(ino) => {
                self.dying.remove(&ino);
            }
            Effect::Used(kind, number) => {
                if let Some(session) = session {
                    self.roster.handle_used(session, kind, number);
                }
            }
            Effect::Named(block, live) => self.idle.handle_named(block, live),
        }
    }

    /// After a failed commit the caches are read anew: they never hold what the store does not.
    fn forget(&mut self, txn: &Txn) {
        for (ino, _) in txn.inodes.iter() {
            self.inodes.remove(ino);
        }
        for (place, _) in txn.dentries.iter() {
            self.dentries.remove(place);
        }
    }

    pub(super) fn begin(&self, now: Time) -> Txn {
        Txn::new(now, self.state)
    }
}

/// Whether these are a few bytes of a file that its program has closed. As with all that programs were told of, there are not many:
/// on a full disk no numbers for more inodes are granted, and a client leaves few bytes of closed files behind.
fn is_promised(request: &Request) -> bool {
    matches!(request, Request::Write { write, .. } if write.promised && write.extents.is_empty())
}

impl Outcome {
    pub(super) fn now(answer: Answer) -> Self {
        Self { answer: Some(answer), wakeups: Vec::new() }
    }

    pub(super) fn waiting() -> Self {
        Self { answer: None, wakeups: Vec::new() }
    }

    pub(super) fn refused(context: &Context, errno: Errno) -> Self {
        Self::now(answered(context.now, Commit(0), Err(errno)))
    }
}
