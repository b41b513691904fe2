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
use super::record::{decode, encode};
use crate::engine::key::{self, Granted, Tag};
use crate::engine::{Batch, Store};

/// Most numbers granted at once, as a multiple of what clients ask for.
const GRANT_FACTOR_MAX: u64 = 16;

/// Sessions by number.
#[derive(Debug, Default)]
pub(super) struct Roster(BTreeMap<SessionId, Member>);

#[derive(Debug, Default)]
struct Member {
    bytes: Vec<u8>,
    inodes: Runs,
    blocks: Runs,
}

/// Runs of numbers by their start: start -> count. Runs that touch are one, so a lone client has one run for life.
#[derive(Debug, Default)]
struct Runs(BTreeMap<u64, u64>);

impl Roster {
    pub(super) fn load(store: &impl Store) -> Result<Self, Errno> {
        let mut roster = Self::default();
        let (from, to) = key::table(Tag::Session);
        store.scan(&from, &to, &mut |key, bytes| {
            let session = SessionId(key::number(key, 1).unwrap_or(0));
            roster.0.insert(session, Member { bytes: bytes.to_vec(), ..Member::default() });
            ControlFlow::Continue(())
        })?;
        let (from, to) = key::table(Tag::Grant);
        let mut result = Ok(());
        store.scan(&from, &to, &mut |key, value| {
            let member = key::number(key, 1).and_then(|session| roster.0.get_mut(&SessionId(session)));
            match (member, key.get(9), key::number(key, 10), decode::<u64>(value)) {
                (Some(member), Some(kind), Some(start), Ok(count)) => {
                    let runs =
                        if *kind == Granted::Blocks as u8 { &mut member.blocks } else { &mut member.inodes };
                    runs.0.insert(start, count);
                }
                (_, _, _, Err(errno)) => result = Err(errno),
                _ => {}
            }
            ControlFlow::Continue(())
        })?;
        result.map(|()| roster)
    }

    pub(super) fn contains(&self, session: SessionId) -> bool {
        self.0.contains_key(&session)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn has_inode(&self, session: SessionId, ino: Ino) -> bool {
        self.0.get(&session).is_some_and(|member| member.inodes.contains(ino.0))
    }

    pub(super) fn has_block(&self, session: SessionId, block: u64) -> bool {
        self.0.get(&session).is_some_and(|member| member.blocks.contains(block))
    }

    pub(super) fn is_block_granted(&self, block: u64) -> bool {
        self.0.values().any(|member| member.blocks.contains(block))
    }

    fn runs(&mut self, session: SessionId, kind: Granted) -> Option<&mut Runs> {
        let member = self.0.get_mut(&session)?;
        Some(match kind {
            Granted::Inodes => &mut member.inodes,
            Granted::Blocks => &mut member.blocks,
        })
    }
}

impl Runs {
    fn contains(&self, number: u64) -> bool {
        self.0.range(..=number).next_back().is_some_and(|(start, count)| number - start < *count)
    }

    /// Start of the run that ends just before `start`.
    fn before(&self, start: u64) -> Option<(u64, u64)> {
        let (first, count) = self.0.range(..start).next_back()?;
        (first + count == start).then_some((*first, *count))
    }
}

impl<S: Store> Namespace<S> {
    /// Gives inode numbers to a session. Durable with the commit: answer the client then.
    ///
    /// # Errors
    /// `ESTALE` without such a session; `EINVAL` for an unreasonable count; `ENOSPC`, `EIO`.
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
        let (start, before) = runs.before(range.start).unwrap_or((range.start, 0));
        let count = before + range.count;
        let mut txn = self.begin(Time::default());
        match kind {
            Granted::Inodes => txn.state.next_ino += range.count,
            Granted::Blocks => txn.state.next_block += range.count,
        }
        txn.batch.put(key::grant(session, kind, start), encode(&count));
        let commit = self.commit(&mut txn, None)?;
        if let Some(runs) = self.roster.runs(session, kind) {
            runs.0.insert(start, count);
        }
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
        let commit = self.commit(&mut txn, None)?;
        self.roster.0.insert(session, Member { bytes, ..Member::default() });
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
        if let Some(member) = self.roster.0.get_mut(&session) {
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
        self.roster.0.iter().map(record).collect()
    }

    /// Ends a session: its opens, locks, waits, answers and grants are gone. The wake-ups are for others.
    ///
    /// # Errors
    /// `ENOSPC`, `EIO`: nothing has changed; call again.
    pub fn end_session(&mut self, now: Time, session: SessionId) -> Result<Vec<Wakeup>, Errno> {
        let Some(member) = self.roster.0.get(&session) else { return Ok(Vec::new()) };
        let mut batch = Batch::default();
        batch.set_frees();
        batch.remove(key::session(session));
        for (kind, runs) in [(Granted::Inodes, &member.inodes), (Granted::Blocks, &member.blocks)] {
            for start in runs.0.keys() {
                batch.remove(key::grant(session, kind, *start));
            }
        }
        self.store.commit(batch)?;
        self.roster.0.remove(&session);
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
        self.store.commit(batch)
    }
}
