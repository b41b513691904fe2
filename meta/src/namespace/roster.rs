//! Sessions, and the numbers that were granted to them. Both persisted, so that a restarted server knows whom to wait for.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use flexfs_wire::errno::Errno;
use flexfs_wire::id::{Commit, Ino, Range, SessionId};
use flexfs_wire::limits::{BLOCK_GRANT, INODE_GRANT};
use flexfs_wire::message::Lock;
use flexfs_wire::time::Time;

use super::context::{SessionRecord, Wakeup};
use super::machine::Namespace;
use super::record::Grant;
use super::runs::{Run, Runs};
use crate::engine::key::{self, Granted, Tag};
use crate::engine::{Batch, Store};

/// Most numbers granted at once, as a multiple of what clients ask for.
const GRANT_FACTOR_MAX: u64 = 16;

/// Sessions by number.
#[derive(Debug, Default)]
pub(super) struct Roster {
    members: BTreeMap<SessionId, Member>,
    /// Runs whose rows are to be written anew, or removed, along with the next commit.
    unsaved: Vec<(SessionId, Granted, u64)>,
}

#[derive(Debug, Default)]
struct Member {
    bytes: Vec<u8>,
    inodes: Runs,
    blocks: Runs,
}

impl Roster {
    pub(super) fn load(store: &impl Store) -> Result<Self, Errno> {
        let mut roster = Self::default();
        let (from, to) = key::table(Tag::Session);
        store.scan(&from, &to, &mut |key, bytes| {
            let session = SessionId(key::number(key, 1).unwrap_or(0));
            roster.members.insert(session, Member { bytes: bytes.to_vec(), ..Member::default() });
            ControlFlow::Continue(())
        })?;
        let (from, to) = key::table(Tag::Grant);
        let mut result = Ok(());
        store.scan(&from, &to, &mut |key, value| {
            let member = key::number(key, 1).and_then(|session| roster.members.get_mut(&SessionId(session)));
            match (member, key.get(9), key::number(key, 10), Grant::decode(value)) {
                (Some(member), Some(kind), Some(start), Ok(grant)) => {
                    let runs =
                        if *kind == Granted::Blocks as u8 { &mut member.blocks } else { &mut member.inodes };
                    runs.insert(start, Run::from(grant));
                }
                (_, _, _, Err(errno)) => result = Err(errno),
                _ => {}
            }
            ControlFlow::Continue(())
        })?;
        result.map(|()| roster)
    }

    pub(super) fn contains(&self, session: SessionId) -> bool {
        self.members.contains_key(&session)
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn has_inode(&self, session: SessionId, ino: Ino) -> bool {
        self.members.get(&session).is_some_and(|member| member.inodes.contains(ino.0))
    }

    pub(super) fn has_block(&self, session: SessionId, block: u64) -> bool {
        self.members.get(&session).is_some_and(|member| member.blocks.contains(block))
    }

    pub(super) fn is_block_granted(&self, block: u64) -> bool {
        self.members.values().any(|member| member.blocks.contains(block))
    }

    /// Sessions by the first numbers of their runs of block numbers.
    pub(super) fn block_owners(&self) -> BTreeMap<u64, SessionId> {
        let runs = |(session, member): (&SessionId, &Member)| {
            let session = *session;
            member.blocks.starts().map(move |start| (start, session)).collect::<Vec<_>>()
        };
        self.members.iter().flat_map(runs).collect()
    }

    /// A block's number is used up: its session may not write another block under it. What this changes, and the rows that say
    /// so; nothing when the session has ended.
    pub(super) fn spend_block(&mut self, block: u64, batch: &mut Batch) {
        let owner = self.members.iter_mut().find(|(_, member)| member.blocks.contains(block));
        let Some((session, member)) = owner else { return };
        let Some((start, parts)) = member.blocks.spend(block) else { return };
        batch.remove(key::grant(*session, Granted::Blocks, start));
        for start in parts {
            put_run(batch, *session, Granted::Blocks, start, &member.blocks);
        }
    }

    /// A session has used a number that was granted to it.
    pub(super) fn handle_used(&mut self, session: SessionId, kind: Granted, number: u64) {
        let changed = self.runs(session, kind).and_then(|runs| runs.handle_used(number));
        self.unsaved.extend(changed.map(|start| (session, kind, start)));
    }

    /// Puts what is to be written anew into a batch; [`Self::handle_saved`] when that was committed.
    pub(super) fn save(&self, batch: &mut Batch) {
        for (session, kind, start) in &self.unsaved {
            match self.members.get(session).map(|member| member.runs(*kind)) {
                Some(runs) if runs.get(*start).is_some() => put_run(batch, *session, *kind, *start, runs),
                _ => batch.remove(key::grant(*session, *kind, *start)),
            }
        }
    }

    /// It was committed.
    pub(super) fn handle_saved(&mut self) {
        self.unsaved.clear();
    }

    fn runs(&mut self, session: SessionId, kind: Granted) -> Option<&mut Runs> {
        let member = self.members.get_mut(&session)?;
        Some(match kind {
            Granted::Inodes => &mut member.inodes,
            Granted::Blocks => &mut member.blocks,
        })
    }
}

impl Member {
    fn runs(&self, kind: Granted) -> &Runs {
        match kind {
            Granted::Inodes => &self.inodes,
            Granted::Blocks => &self.blocks,
        }
    }
}

/// Writes the row of a run.
fn put_run(batch: &mut Batch, session: SessionId, kind: Granted, start: u64, runs: &Runs) {
    if let Some(run) = runs.get(start) {
        batch.put(key::grant(session, kind, start), run.grant().encode());
    }
}

impl<S: Store> Namespace<S> {
    /// Gives inode numbers to a session. Durable with the commit: answer the client then.
    ///
    /// # Errors
    /// `ESTALE` without such a session; `EINVAL` for an unreasonable count; `EPROTO` when it has hardly used what it has, which is more
    /// than any client needs; `ENOSPC`, `EIO`.
    pub fn grant_inodes(&mut self, session: SessionId, count: u64) -> Result<(Range, Commit), Errno> {
        let range = Range { start: self.state.next_ino, count };
        let commit = self.grant(session, Granted::Inodes, range, INODE_GRANT)?;
        Ok((range, commit))
    }

    /// Gives block ids to a session. Durable with the commit: answer the client then.
    ///
    /// # Errors
    /// As [`Self::grant_inodes`].
    pub fn grant_blocks(&mut self, session: SessionId, count: u64) -> Result<(Range, Commit), Errno> {
        let range = Range { start: self.state.next_block, count };
        let commit = self.grant(session, Granted::Blocks, range, BLOCK_GRANT)?;
        Ok((range, commit))
    }

    fn grant(
        &mut self,
        session: SessionId,
        kind: Granted,
        range: Range,
        usual: u64,
    ) -> Result<Commit, Errno> {
        if range.count == 0 || range.count > usual * GRANT_FACTOR_MAX {
            return Err(Errno::EINVAL);
        }
        let runs = self.roster.runs(session, kind).ok_or(Errno::ESTALE)?;
        let given_up = runs.room().map_err(|()| Errno::EPROTO)?;
        let run = Run::new(range.count);
        let mut txn = self.begin(Time::default());
        match kind {
            Granted::Inodes => txn.state.next_ino += range.count,
            Granted::Blocks => txn.state.next_block += range.count,
        }
        txn.batch.put(key::grant(session, kind, range.start), run.grant().encode());
        let commit = self.commit(&mut txn, None)?;
        if let Some(runs) = self.roster.runs(session, kind) {
            given_up.into_iter().for_each(|start| runs.remove(start));
            runs.insert(range.start, run);
        }
        // Its row goes along with the next commit.
        self.roster.unsaved.extend(given_up.map(|start| (session, kind, start)));
        Ok(commit)
    }

    /// Begins a session; `bytes` makes the row of its number. Durable with the commit: welcome the client then.
    ///
    /// # Errors
    /// `ENOSPC`, `EIO`.
    pub fn open_session(
        &mut self,
        bytes: impl FnOnce(SessionId) -> Vec<u8>,
    ) -> Result<(SessionId, Commit), Errno> {
        let session = SessionId(self.state.next_session);
        let bytes = bytes(session);
        let mut txn = self.begin(Time::default());
        txn.state.next_session += 1;
        txn.batch.put(key::session(session), bytes.clone());
        // On a full disk somebody must be able to mount and delete.
        txn.batch.set_vital();
        let commit = self.commit(&mut txn, None)?;
        self.roster.members.insert(session, Member { bytes, ..Member::default() });
        Ok((session, commit))
    }

    /// Changes a session's row.
    ///
    /// # Errors
    /// `ESTALE` without such a session; `ENOSPC`, `EIO`.
    pub fn update_session(&mut self, session: SessionId, bytes: Vec<u8>) -> Result<Commit, Errno> {
        if !self.roster.contains(session) {
            return Err(Errno::ESTALE);
        }
        let mut txn = self.begin(Time::default());
        txn.batch.put(key::session(session), bytes.clone());
        let commit = self.commit(&mut txn, None)?;
        if let Some(member) = self.roster.members.get_mut(&session) {
            member.bytes = bytes;
        }
        Ok(commit)
    }

    /// The sessions, as they were persisted.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionRecord> {
        let record = |(session, member): (&SessionId, &Member)| SessionRecord {
            session: *session,
            bytes: member.bytes.clone(),
        };
        self.roster.members.iter().map(record).collect()
    }

    /// Ends a session: its opens, locks, waits, answers and grants are gone. The wake-ups are for others.
    ///
    /// # Errors
    /// `ENOSPC`, `EIO`: nothing has changed; call again.
    pub fn end_session(&mut self, now: Time, session: SessionId) -> Result<Vec<Wakeup>, Errno> {
        let Some(member) = self.roster.members.get(&session) else { return Ok(Vec::new()) };
        let mut batch = Batch::default();
        batch.set_vital();
        batch.remove(key::session(session));
        for (kind, runs) in [(Granted::Inodes, &member.inodes), (Granted::Blocks, &member.blocks)] {
            for start in runs.starts() {
                batch.remove(key::grant(session, kind, start));
            }
        }
        self.store.commit(batch)?;
        self.roster.members.remove(&session);
        self.idle.end(session);
        self.dedup.end(session);
        for ino in self.opens.end(session) {
            self.closed(now, ino);
        }
        let grants = self.locks.end(session);
        Ok(self.wakeups(now, grants))
    }

    /// What a session says it has open and locked, after a restart: replaces what is known of it.
    /// Locks that conflict with another session's claim are dropped; their number is given back.
    pub fn declare(&mut self, session: SessionId, opens: &[(Ino, u32)], locks: &[(Ino, Lock)]) -> usize {
        let forgotten = self.opens.end(session);
        for (ino, count) in opens {
            if !self.opens.is_full(session) {
                self.opens.add(session, *ino, *count);
            }
        }
        if !self.is_recovering() {
            // Late: whom it does not claim again may go.
            for ino in forgotten {
                if !self.opens.is_open(ino) {
                    self.orphans.set_unused(ino);
                }
            }
        }
        locks.iter().filter(|(ino, lock)| !self.locks.declare(*ino, session, lock)).count()
    }

    /// What the server keeps with the volume under a name (seal key, epoch, ...). Never shown.
    ///
    /// # Errors
    /// `EIO`.
    pub fn kept(&self, name: &str) -> Result<Option<Vec<u8>>, Errno> {
        self.store.get(&key::kept(name))
    }

    /// Keeps something with the volume.
    ///
    /// # Errors
    /// `ENOSPC`, `EIO`.
    pub fn keep(&mut self, name: &str, bytes: Vec<u8>) -> Result<Commit, Errno> {
        let mut batch = Batch::default();
        batch.put(key::kept(name), bytes);
        batch.set_vital();
        self.store.commit(batch)
    }
}

#[cfg(test)]
mod tests {
    use flexfs_wire::attr::S_IFREG;
    use flexfs_wire::id::RequestId;
    use flexfs_wire::message::{LockFamily, LockKind, Reply, Request};

    use super::super::context::Context;
    use super::super::fixture::{Fixture, ROOT};
    use super::super::runs::RUNS_MAX;
    use super::*;
    use crate::engine::memory::Memory;

    #[test]
    fn grants_are_exclusive_and_survive() {
        let mut t = Fixture::new();
        let one = t.context.session;
        let two = t.join();
        let (a, _) = t.ns.grant_inodes(two, 10).unwrap();
        let (b, _) = t.ns.grant_inodes(two, 10).unwrap();
        let (c, _) = t.ns.grant_inodes(one, 10).unwrap();
        assert_eq!((b.start, c.start), (a.start + 10, b.start + 10));
        assert_eq!(t.ns.grant_inodes(one, 0), Err(Errno::EINVAL));
        assert_eq!(t.ns.grant_inodes(one, u64::MAX), Err(Errno::EINVAL));
        assert_eq!(t.ns.grant_blocks(SessionId(99), 1), Err(Errno::ESTALE));
        t.verify();
        let t = t.crash(0);
        assert!(t.ns.roster.has_inode(two, Ino(a.start)) && t.ns.roster.has_inode(two, Ino(b.start + 9)));
        assert!(!t.ns.roster.has_inode(two, Ino(c.start)));
        t.verify();
    }

    /// Rows of what was granted do not pile up, whoever else is granted numbers meanwhile; nor does what is not used.
    #[test]
    fn grants_that_are_used_up_are_forgotten() {
        let mut t = Fixture::new();
        let (one, two) = (t.context.session, t.join());
        let file = t.file(ROOT, "file");
        let rows = |t: &Fixture, session| {
            let member = &t.ns.roster.members[&session];
            (member.inodes.len(), member.blocks.len())
        };
        assert_eq!(rows(&t, one), (1, 1));
        for round in 0..2 * RUNS_MAX as u64 {
            let (inos, _) = t.ns.grant_inodes(one, 1).unwrap();
            let (blocks, _) = t.ns.grant_blocks(one, 2).unwrap();
            let _ = (t.ns.grant_inodes(two, 1), t.ns.grant_blocks(two, 1));
            (t.next_ino, t.next_block) = (inos.start, blocks.start);
            t.make(ROOT, &format!("{round}"), S_IFREG);
            for _ in 0..2 {
                t.write_ranges(file, &[(0, 10)]);
            }
        }
        assert_eq!((rows(&t, one), rows(&t, two)), ((1, 1), (RUNS_MAX, RUNS_MAX)));
        assert_eq!(t.ns.grant_inodes(two, 1), Err(Errno::EPROTO));
        assert_eq!(t.ns.grant_blocks(two, 1), Err(Errno::EPROTO));
        t.verify();
        let mut t = t.crash(0);
        t.ns.finish_recovery(t.context.now).unwrap();
        // The last use was noted nowhere but in memory.
        assert_eq!((rows(&t, one), rows(&t, two)), ((1, 2), (RUNS_MAX, RUNS_MAX)));
        assert_eq!(t.ns.grant_blocks(two, 1), Err(Errno::EPROTO));
        assert!(t.ns.grant_blocks(one, 1).is_ok());
        t.verify();
    }

    /// A client loses a number now and then; the runs they were in are given up in the end.
    #[test]
    fn lost_numbers_do_not_add_up() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let two = t.join();
        for _ in 0..RUNS_MAX + 100 {
            let (blocks, _) = t.ns.grant_blocks(t.context.session, 3).unwrap();
            let _ = t.ns.grant_blocks(two, 1);
            t.next_block = blocks.start + 1;
            for _ in 0..2 {
                t.write_ranges(file, &[(0, 10)]);
            }
        }
        assert_eq!(t.ns.roster.members[&t.context.session].blocks.len(), RUNS_MAX);
        t.verify();
    }

    #[test]
    fn sessions_are_found_again_until_they_end() {
        let mut t = Fixture::new();
        let session = t.context.session;
        t.ns.update_session(session, b"changed".to_vec()).unwrap();
        t.ns.keep("seal", b"secret".to_vec()).unwrap();
        let mut t = t.crash(0);
        assert_eq!(t.ns.sessions(), [SessionRecord { session, bytes: b"changed".to_vec() }]);
        assert_eq!(t.ns.kept("seal"), Ok(Some(b"secret".to_vec())));
        assert_eq!(t.ns.kept("other"), Ok(None));
        t.file(ROOT, "file");
        assert!(t.ns.end_session(t.context.now, session).unwrap().is_empty());
        assert_eq!(t.ns.update_session(session, Vec::new()), Err(Errno::ESTALE));
        assert_eq!((t.ns.sessions(), t.ns.figures().dedup), (vec![], 0));
        t.settle();
        t.verify();
        let mut t = t.crash(0);
        assert_eq!(t.ns.sessions(), []);
        assert_ne!(t.ns.open_session(|_| Vec::new()).unwrap().0, session, "numbers are not used twice");
        t.verify();
    }

    #[test]
    fn a_resend_is_answered_and_not_done_again() {
        let mut t = Fixture::new();
        let request = t.request_make(ROOT, Some("file"), S_IFREG);
        let first = t.outcome(&request);
        let context = Context { now: Time { secs: 9_999, nanos: 0 }, ..t.context };
        assert_eq!(t.ns.apply(&context, &request), first);
        // Also by the next life of the server.
        let mut t = t.crash(0);
        let again = t.ns.apply(&context, &request);
        assert_eq!(again.answer.unwrap().result, first.answer.unwrap().result);
        t.ns.finish_recovery(t.context.now).unwrap();
        // Until the client says that it is done with it: then a late copy is refused.
        let mark = RequestId(t.context.request.0 + 1);
        t.ns.finished(context.session, mark);
        t.settle();
        assert_eq!(t.ns.apply(&context, &request).answer.unwrap().result, Err(Errno::ECANCELED));
        assert_eq!(t.ns.figures().dedup, 0);
        t.verify();
    }

    #[test]
    fn opens_and_locks_are_done_once() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let node = Fixture::node(file);
        let open = Request::Open { node, write: true, truncate: false, kill_privileges: false };
        let lock =
            Lock { family: LockFamily::Posix, kind: LockKind::Write, owner: 1, pid: 1, start: 0, end: 9 };
        let wait = Request::Lock { node, lock, wait: true };
        for request in [open, wait.clone()] {
            let first = t.outcome(&request);
            let context = t.context;
            assert_eq!(t.ns.apply(&context, &request), first);
        }
        assert_eq!((t.ns.figures().opens, t.ns.figures().locks), (1, 1));
        let holder = t.context.session;
        t.context.session = t.join();
        assert_eq!(t.outcome(&wait).answer, None);
        let waiting = t.context;
        assert_eq!(t.ns.apply(&waiting, &wait).answer, None, "it waits on");
        let test = Request::TestLock { node, lock };
        assert_eq!(t.call(test), Ok(Reply::Locked(lock)));
        let woken = t.ns.end_session(t.context.now, holder).unwrap();
        assert_eq!((woken.len(), woken[0].request), (1, waiting.request));
        assert_eq!(t.ns.apply(&waiting, &wait).answer, Some(woken[0].answer.clone()));
        assert!(t.ns.cancel_wait(t.context.now, waiting.session, waiting.request).is_empty());
        t.settle();
        t.verify();
    }

    #[test]
    fn an_open_whose_answer_was_lost_counts_in_the_next_life_too() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let node = Fixture::node(file);
        let open = Request::Open { node, write: true, truncate: true, kill_privileges: false };
        let make = t.request_make(ROOT, None, S_IFREG);
        let calls: Vec<(Context, Request)> = [open, make]
            .into_iter()
            .map(|request| {
                assert!(t.call(request.clone()).is_ok());
                (t.context, request)
            })
            .collect();
        let mut t = t.crash(0);
        assert_eq!(t.ns.declare(t.context.session, &[], &[]), 0);
        for _ in 0..2 {
            for (context, request) in &calls {
                assert!(t.ns.apply(context, request).answer.unwrap().result.is_ok());
            }
        }
        t.ns.finish_recovery(t.context.now).unwrap();
        assert_eq!((t.ns.figures().opens, t.ns.figures().orphans), (2, 1));
        t.remove(ROOT, "file", false).unwrap();
        assert!(t.ns.attr(file).is_ok());
        t.verify();
    }

    #[test]
    fn a_cancelled_wait_is_interrupted() {
        let mut t = Fixture::new();
        let node = Fixture::node(t.file(ROOT, "file"));
        let lock = |owner| Lock {
            family: LockFamily::Flock,
            kind: LockKind::Write,
            owner,
            pid: 1,
            start: 0,
            end: 0,
        };
        t.call(Request::Lock { node, lock: lock(1), wait: false }).unwrap();
        assert_eq!(t.fails(Request::Lock { node, lock: lock(2), wait: false }), Errno::EAGAIN);
        assert_eq!(t.outcome(&Request::Lock { node, lock: lock(2), wait: true }).answer, None);
        let context = t.context;
        let ended = t.ns.cancel_wait(context.now, context.session, context.request);
        assert_eq!(ended[0].answer.result, Err(Errno::EINTR));
        let released = t.outcome(&Request::Unlock { node, family: LockFamily::Flock, owner: 1 });
        assert_eq!(released.wakeups, []);
        assert_eq!(t.ns.figures().locks, 0);
    }

    #[test]
    fn orphans_wait_for_their_openers_after_a_restart() {
        let mut t = Fixture::new();
        let (one, two) = (t.file(ROOT, "one"), t.file(ROOT, "two"));
        for (ino, name) in [(one, "one"), (two, "two")] {
            t.open(ino).unwrap();
            t.remove(ROOT, name, false).unwrap();
        }
        let mut t = t.crash(0);
        t.settle();
        assert_eq!(t.ns.figures().orphans, 2, "nobody has come back yet");
        assert_eq!(t.ns.declare(t.context.session, &[(one, 2)], &[]), 0);
        t.ns.finish_recovery(t.context.now).unwrap();
        t.settle();
        assert!(t.ns.attr(one).is_ok());
        assert_eq!(t.ns.attr(two), Err(Errno::ESTALE));
        t.close(one);
        assert!(t.ns.attr(one).is_ok());
        t.close(one);
        assert_eq!(t.ns.attr(one), Err(Errno::ESTALE));
        t.verify();
    }

    #[test]
    fn what_was_lost_is_replayed_also_when_the_recovery_dies() {
        let mut t = Fixture::on(Memory::lazy());
        t.ns.store_mut().sync(usize::MAX);
        let base = t.ns.durable().current();
        let mut calls = Vec::new();
        for name in ["a", "b", "c", "d"] {
            let request = t.request_make(ROOT, Some(name), S_IFREG | 0o600);
            let outcome = t.outcome(&request);
            calls.push((t.context, request, outcome.answer.unwrap()));
        }
        let mut t = t.crash(1);
        assert_eq!(t.ns.survived().0, base.0 + 1);
        assert_eq!(calls[0].2.commit, t.ns.survived());
        assert_eq!(t.lookup(ROOT, "b"), Err(Errno::ENOENT));
        let replay = |t: &mut Fixture, index: usize| {
            let (context, request, answer) = &calls[index];
            let again = t.ns.apply_replay(context, request).answer.unwrap();
            assert_eq!((&again.result, again.at), (&answer.result, answer.at));
            assert!(again.commit > calls[3].2.commit, "numbers of lost commits are not used again");
        };
        replay(&mut t, 1);
        // It dies again, after this became durable: clients are still asked for everything behind the first crash.
        let survived = t.ns.survived();
        let mut t = t.crash(usize::MAX);
        assert_eq!(t.ns.survived(), survived);
        for index in 1..4 {
            replay(&mut t, index);
        }
        t.ns.finish_recovery(t.context.now).unwrap();
        assert_eq!(t.attr(ROOT).size, 4);
        t.verify();
        t.ns.store_mut().sync(usize::MAX);
        let t = t.crash(0);
        assert!(t.ns.survived() > survived);
        t.verify();
    }
}
