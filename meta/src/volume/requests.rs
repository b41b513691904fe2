//! Requests of running sessions.

use std::collections::hash_map::Entry;

use flexfs_wire::block::HEAD_BYTES_MAX;
use flexfs_wire::errno::Errno;
use flexfs_wire::id::{BlockId, Ino, SessionId};
use flexfs_wire::lease::{LEASE_BATCH_MAX, Leases};
use flexfs_wire::limits::{BLOCK_GRANT, INODE_GRANT};
use flexfs_wire::message::{Reply, Request};

use super::host::{BlocksAnswer, GRANTS_KEPT, GrantKept, Host, Later, Now, PutAnswer};
use super::message::{Item, Job, LinkKey, Place, PutRight, ToVolume};
use crate::engine::Store;
use crate::namespace::{BlockState, Context, Wakeup};

/// Most numbers given at once, whatever a client asks for.
const INODE_GRANT_MAX: u64 = 16 * INODE_GRANT;
/// Most block ids given at once.
const BLOCK_GRANT_MAX: u64 = 16 * BLOCK_GRANT;

impl Job {
    /// As the volume's machine takes it.
    pub(super) fn context(&self, now: Now) -> Context {
        Context {
            now: now.wall,
            told: self.call.told,
            session: self.session,
            request: self.request,
            caller: self.call.caller,
            rights: self.rights,
            umask: u32::from(self.umask),
        }
    }
}

impl<S: Store> Host<S> {
    /// Requests of one link, in the order they were sent in.
    pub(super) fn handle_jobs(&mut self, jobs: Vec<Job>, now: Now) -> Result<(), Errno> {
        if self.is_open() {
            for job in jobs {
                self.handle_job(job, now)?;
            }
            return Ok(());
        }
        // During recovery only a sign of life is answered; everything else keeps its order and waits.
        let (beats, rest): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|job| matches!(job.call.request, Request::Heartbeat));
        for job in beats {
            self.answer(job.from, job.request, job.stamp, Ok(Reply::Done));
        }
        if !rest.is_empty() {
            self.held.push(ToVolume::Jobs(rest));
        }
        Ok(())
    }

    fn handle_job(&mut self, job: Job, now: Now) -> Result<(), Errno> {
        let Job { from, session, request, stamp, .. } = job;
        let Some(found) = self.sessions.get_mut(&session) else {
            self.answer(from, request, stamp, Err(Errno::EACCES));
            return Ok(());
        };
        if found.finished < job.finished {
            found.finished = job.finished;
            self.namespace.finished(session, job.finished);
        }
        match job.call.request {
            Request::Heartbeat => self.answer(from, request, stamp, Ok(Reply::Done)),
            Request::GrantInodes { count } => self.grant_numbers(&job, count, true),
            Request::GrantBlocks { count } => self.grant_numbers(&job, count, false),
            Request::Sync { up_to } => {
                if up_to > self.last_commit {
                    self.answer(from, request, stamp, Err(Errno::EINVAL));
                } else if up_to <= self.namespace.durable().current() {
                    self.answer(from, request, stamp, Ok(Reply::Done));
                } else {
                    self.defer(up_to, Later::Answer { link: from, request, stamp, reply: Reply::Done });
                }
            }
            Request::CancelWait { request: waiting } => {
                let wakeups = self.namespace.cancel_wait(now.wall, session, waiting);
                self.wake(wakeups);
                self.answer(from, request, stamp, Ok(Reply::Done));
            }
            Request::Leave => {
                self.answer(from, request, stamp, Ok(Reply::Done));
                tracing::info!(volume = %self.volume.id, %session, "session left");
                self.end(session, now, None)?;
            }
            Request::Recalled { ref ids } => {
                let done = ids.len() <= LEASE_BATCH_MAX;
                let ids = if done { ids.clone() } else { Vec::new() };
                self.answer(from, request, stamp, if done { Ok(Reply::Done) } else { Err(Errno::EINVAL) });
                self.handle_recalled(session, &ids, now);
            }
            Request::GiveBack { ref inos } => {
                let done = inos.len() <= LEASE_BATCH_MAX;
                let mut recalled = Vec::new();
                for ino in inos.iter().filter(|_| done) {
                    self.leases.give_back(session, *ino);
                    recalled.extend_from_slice(self.leases.asked_of(session, *ino));
                }
                self.answer(from, request, stamp, if done { Ok(Reply::Done) } else { Err(Errno::EINVAL) });
                self.handle_recalled(session, &recalled, now);
            }
            Request::DropLeases { epoch } => {
                let waited_for = if epoch == self.epoch { self.leases.set_tame(session) } else { Vec::new() };
                self.answer(from, request, stamp, Ok(Reply::Done));
                self.handle_recalled(session, &waited_for, now);
            }
            _ => self.admit_job(job, now),
        }
        Ok(())
    }

    /// Grants numbers of inodes, or else of blocks; to a request that was served before the same ones.
    fn grant_numbers(&mut self, job: &Job, count: u64, inodes: bool) {
        let (session, request) = (job.session, job.request);
        let kept = self.sessions.get(&session).and_then(|found| {
            found.grants.iter().find(|kept| kept.request == request && kept.inodes == inodes).copied()
        });
        let made = match kept {
            Some(kept) => Ok((kept.range, kept.commit)),
            None if inodes => self.namespace.grant_inodes(session, count.clamp(1, INODE_GRANT_MAX)),
            None => self.namespace.grant_blocks(session, count.clamp(1, BLOCK_GRANT_MAX)),
        };
        let (range, commit) = match made {
            Ok(made) => made,
            Err(errno) => return self.answer(job.from, request, job.stamp, Err(errno)),
        };
        if kept.is_none()
            && let Some(found) = self.sessions.get_mut(&session)
        {
            found.grants.truncate(GRANTS_KEPT - 1);
            found.grants.push_front(GrantKept { request, inodes, range, commit });
        }
        self.last_commit = self.last_commit.max(commit);
        // Handles are sealed at the border.
        let reply = if inodes { Reply::Inodes { range, seals: Vec::new() } } else { Reply::Granted(range) };
        if commit <= self.namespace.durable().current() {
            self.answer(job.from, request, job.stamp, Ok(reply));
        } else {
            let (link, stamp) = (job.from, job.stamp);
            self.defer(commit, Later::Answer { link, request, stamp, reply });
        }
    }

    pub(super) fn apply(&mut self, job: Job, now: Now) {
        let context = job.context(now);
        // An answer from memory tells what was so then: nothing may be cached of it.
        let again = self.namespace.has_answered(job.session, job.request);
        let outcome = self.namespace.apply(&context, &job.call.request);
        match outcome.answer {
            Some(mut answer) => {
                self.note_shown(job.session, &job.call.request, &answer.result);
                if answer.commit.0 != 0 {
                    self.committed(job.session, answer.commit);
                    if matches!(&job.call.request, Request::Write { write, .. } if write.awaited)
                        && answer.commit > self.namespace.durable().current()
                    {
                        let notice = Later::Notice { session: job.session, link: job.from };
                        self.defer(answer.commit, notice);
                    }
                }
                let leases = if again {
                    Leases::NONE
                } else {
                    self.grant(job.session, &job.call.request, &mut answer.result, now)
                };
                let (request, stamp) = (job.request, job.stamp);
                self.outs.push(job.from, Item::Answer { request, stamp, answer, leases });
            }
            None => {
                if let Some(session) = self.sessions.get_mut(&job.session) {
                    // The same wait from a new link takes the place of the old one.
                    session.waits.insert(job.request, (job.from, job.stamp));
                }
            }
        }
        self.wake(outcome.wakeups);
    }

    /// Sends the late answers of lock requests.
    pub(super) fn wake(&mut self, wakeups: Vec<Wakeup>) {
        for Wakeup { session, request, answer } in wakeups {
            let waiting = self.sessions.get_mut(&session).and_then(|found| found.waits.remove(&request));
            // A wait whose link is gone has no address; the client asks again.
            if let Some((link, stamp)) = waiting {
                self.outs.push(link, Item::Answer { request, stamp, answer, leases: Leases::NONE });
            }
        }
    }

    pub(super) fn handle_link_gone(&mut self, session: SessionId, link: LinkKey, now: Now) {
        let Some(found) = self.sessions.get_mut(&session) else { return };
        found.links.retain(|other| *other != link);
        let orphaned: Vec<_> =
            found.waits.iter().filter(|(_, (at, _))| *at == link).map(|(request, _)| *request).collect();
        for request in &orphaned {
            found.waits.remove(request);
        }
        for request in orphaned {
            let wakeups = self.namespace.cancel_wait(now.wall, session, request);
            self.wake(wakeups);
        }
        // A recall may have been lost with the link; to hear of it twice does no harm.
        self.resend_recalls(session);
    }

    pub(super) fn handle_put_right(
        &mut self,
        session: SessionId,
        block: BlockId,
        bytes: u64,
        answer: PutAnswer,
    ) {
        let right = if self.room.is_short() {
            // Blocks would eat what the engine needs to let go of others.
            Err(Errno::ENOSPC)
        } else if self.sessions.contains_key(&session) {
            self.namespace.put_block(session, block, bytes)
        } else {
            Err(Errno::EACCES)
        };
        // One that came with its write has no file, and gets none.
        let is_row = right.and_then(|()| self.namespace.carried_block(block)).map(|row| row.is_some());
        if is_row != Ok(false) {
            // A core that lost interest needs no answer.
            let _ = answer.send(is_row.map(|_| PutRight::Stored));
            return;
        }
        match self.puts.entry(block) {
            Entry::Occupied(mut waiting) => waiting.get_mut().push(answer),
            Entry::Vacant(free) => {
                if answer.send(Ok(PutRight::Write)).is_ok() {
                    free.insert(Vec::new());
                }
            }
        }
    }

    pub(super) fn handle_put_done(&mut self, block: BlockId, stored: bool) -> Result<(), Errno> {
        let Some(waiting) = self.puts.remove(&block) else { return Ok(()) };
        let mut waiting = waiting.into_iter();
        if stored {
            for answer in waiting {
                let _ = answer.send(Ok(PutRight::Stored));
            }
            return Ok(());
        }
        // The first of those who wait tries next; one that is gone passes the turn on.
        while let Some(answer) = waiting.next() {
            if answer.send(Ok(PutRight::Write)).is_ok() {
                self.puts.insert(block, waiting.collect());
                return Ok(());
            }
        }
        match self.namespace.unput_block(block) {
            // It counts until its session ends.
            Err(Errno::ENOSPC) => Ok(()),
            other => other,
        }
    }

    pub(super) fn read_right(
        &mut self,
        session: SessionId,
        ino: Ino,
        block: BlockId,
        now: Now,
    ) -> Result<Place, Errno> {
        self.check_read(session, ino, block, now)?;
        Ok(match self.namespace.carried_block(block)? {
            Some(mut row) => {
                row.truncate(HEAD_BYTES_MAX);
                Place::Row(row)
            }
            None => Place::File,
        })
    }

    fn check_read(&mut self, session: SessionId, ino: Ino, block: BlockId, now: Now) -> Result<(), Errno> {
        let Some(found) = self.sessions.get(&session) else { return Err(Errno::EACCES) };
        let is_guarded = found.shared.rules().root_squash;
        if self.namespace.check_put_block(session, block).is_ok() {
            return Ok(()); // Its own, perhaps written a moment ago.
        }
        if !self.may_read(session, ino) {
            return Err(Errno::ESTALE);
        }
        if is_guarded {
            self.namespace.guard_read(session, ino)?;
        }
        self.namespace.check_read_block(now.wall, ino, block)
    }

    pub(super) fn handle_garbage(&mut self, count: usize, answer: BlocksAnswer, now: Now) {
        let made =
            self.namespace.collect(now.wall, self.settings.retention, count).map(|(mut blocks, commit)| {
                // A file that is being written would be there again.
                blocks.retain(|block| !self.puts.contains_key(block));
                (blocks, commit)
            });
        match made {
            Ok((blocks, commit)) if !blocks.is_empty() && commit > self.namespace.durable().current() => {
                self.last_commit = self.last_commit.max(commit);
                self.defer(commit, Later::Garbage { blocks, answer });
            }
            made => {
                let _ = answer.send(made.map(|(blocks, _)| blocks));
            }
        }
    }

    pub(super) fn strays(&mut self, blocks: Vec<BlockId>) -> Result<Vec<BlockId>, Errno> {
        if !self.is_open() {
            return Ok(Vec::new()); // A session may come back that still wants them.
        }
        let mut strays = Vec::new();
        for block in blocks {
            if !self.puts.contains_key(&block) && self.namespace.block_state(block)? == BlockState::Stray {
                strays.push(block);
            }
        }
        Ok(strays)
    }
}
