//! Opening a volume: its root when it is new, what memory must know when it is not.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

use flexfs_wire::attr::{S_IFDIR, VERSION_FIRST};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::{Commit, Ino, RequestId, SessionId};
use flexfs_wire::time::Time;

use super::context::{Bounds, Limits};
use super::idle::Idle;
use super::machine::Namespace;
use super::record::{COOKIE_FIRST, FORMAT, FORMAT_OLDEST, Inode, State, decode};
use super::roster::Roster;
use super::txn::Txn;
use crate::cache::Cache;
use crate::dedup::{Dedup, Remembered};
use crate::engine::key::{self, Tag};
use crate::engine::{Batch, Store};
use crate::lock::Locks;
use crate::orphan::{Opens, Orphans};

/// Why a volume cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The engine cannot read or write.
    #[error("the metadata engine fails: {0}; see the log, check the disk")]
    Engine(Errno),
    /// Made by another version.
    #[error(
        "the database has format {found}, this program understands {FORMAT_OLDEST} to {FORMAT}: use the version that made it, or a newer one"
    )]
    Format {
        /// The database's format.
        found: u32,
    },
}

impl From<Errno> for OpenError {
    fn from(errno: Errno) -> Self {
        Self::Engine(errno)
    }
}

/// Names kept of inodes with several, for sessions with a scope (in one generation of the cache). Who names one that was
/// forgotten looks it up again.
const SHOWN_MAX: usize = 32 * 1024;

impl<S: Store> Namespace<S> {
    /// Loads a volume; makes its root in an empty store.
    ///
    /// It stands in recovery until [`Self::finish_recovery`]: orphans are not reclaimed and no answer is forgotten. Call
    /// that at once when [`Self::sessions`] is empty.
    ///
    /// # Errors
    /// `OpenError`.
    pub fn open(store: S, limits: Limits, now: Time) -> Result<Self, OpenError> {
        let state = match store.get(&key::state())? {
            Some(row) => decode::<State>(&row)?,
            None => State::new(),
        };
        if !(FORMAT_OLDEST..=FORMAT).contains(&state.format) {
            return Err(OpenError::Format { found: state.format });
        }
        let survived = store.durable().current();
        let mut namespace = Self {
            store,
            limits,
            bounds: Bounds::default(),
            state,
            inodes: Cache::new(Bounds::default().cached),
            dentries: Cache::new(Bounds::default().cached),
            maps: RefCell::default(),
            opens: Opens::default(),
            orphans: Orphans::default(),
            dying: BTreeSet::new(),
            dedup: Dedup::default(),
            locks: Locks::default(),
            roster: Roster::default(),
            idle: Idle::default(),
            shown: Cache::new(SHOWN_MAX),
            garbage_from: key::table(Tag::Garbage).0,
            reclaimed: None,
            survived,
        };
        if namespace.committed_inode(Ino::ROOT)?.is_none() {
            namespace.make_root(now)?;
        }
        namespace.load()?;
        // Should this life end before its recovery does, the next one must ask the clients from the same point on.
        let mut txn = namespace.begin(now);
        txn.state.recovering_from.get_or_insert(survived.0);
        txn.state.format = FORMAT;
        txn.batch.set_vital();
        namespace.commit(&mut txn, None)?;
        Ok(namespace)
    }

    fn make_root(&mut self, now: Time) -> Result<(), Errno> {
        let mut txn = self.begin(now);
        txn.set_inode(Inode {
            nlink: 2,
            next_cookie: COOKIE_FIRST,
            ..Inode::new(Ino::ROOT, S_IFDIR | 0o755, now)
        });
        txn.state.inodes += 1;
        // The counters' row must be there even if they were all at their first values.
        let mut batch: Batch = txn.take_batch(&State { format: 0, ..self.state });
        batch.set_vital();
        self.store.commit(batch)?;
        self.state = txn.state;
        Ok(())
    }

    /// Reads what memory must know: sessions, grants, blocks without a file, orphans, dead ranges, answers.
    fn load(&mut self) -> Result<(), Errno> {
        self.roster = Roster::load(&self.store)?;
        self.idle = Idle::load(&self.store, &self.roster)?;
        let orphans = self.numbers(Tag::Orphan)?;
        for (ino, _) in orphans {
            self.orphans.insert(Ino(ino), false);
        }
        self.dying = self.numbers(Tag::Dead)?.into_iter().map(|(ino, _)| Ino(ino)).collect();
        for (session, request) in self.numbers(Tag::Dedup)? {
            let (session, request) = (SessionId(session), RequestId(request));
            if self.roster.contains(session) {
                let remembered = Remembered::Stored { commit: self.survived, fresh: false };
                self.dedup.insert(session, request, remembered);
            } else {
                self.dedup.discard(session, request);
            }
        }
        Ok(())
    }

    /// First and second number of every key of a table.
    fn numbers(&self, tag: Tag) -> Result<Vec<(u64, u64)>, Errno> {
        let (from, to) = key::table(tag);
        let mut numbers = Vec::new();
        self.store.scan(&from, &to, &mut |key, _| {
            numbers.push((key::number(key, 1).unwrap_or(0), key::number(key, 9).unwrap_or(0)));
            ControlFlow::Continue(())
        })?;
        Ok(numbers)
    }

    /// Commits up to here survived the last crash: what `Welcome::Recovering` tells a client, which replays the rest.
    ///
    /// Not the store's durable sequence: when a recovery was itself cut short by a crash, this is still where it began.
    /// Calls that were replayed already are then replayed again and answered from the dedup table.
    #[must_use]
    pub fn survived(&self) -> Commit {
        Commit(self.state.recovering_from.unwrap_or(self.survived.0))
    }

    /// Whether the sessions of the last life are still waited for.
    #[must_use]
    pub fn is_recovering(&self) -> bool {
        self.state.recovering_from.is_some()
    }

    /// All sessions have come back or were ended: orphans that nobody claims are reclaimed from now on.
    ///
    /// # Errors
    /// `ENOSPC`, `EIO`: the engine refuses; call again.
    pub fn finish_recovery(&mut self, now: Time) -> Result<(), Errno> {
        let mut txn: Txn = self.begin(now);
        txn.state.recovering_from = None;
        txn.batch.set_vital();
        self.commit(&mut txn, None)?;
        self.orphans.settle(&self.opens);
        Ok(())
    }
}

impl State {
    fn new() -> Self {
        Self {
            format: FORMAT,
            next_ino: Ino::ROOT.0 + 1,
            next_block: 1,
            next_session: 1,
            inodes: 0,
            bytes: 0,
            recovering_from: None,
        }
    }
}

impl Inode {
    /// Something new, without a name.
    pub(super) fn new(ino: Ino, mode: u32, now: Time) -> Self {
        Self {
            ino,
            mode,
            nlink: 0,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            version: VERSION_FIRST,
            parent: Ino(0),
            next_cookie: 0,
            extents: 0,
            extent_bytes: 0,
            inline_bytes: 0,
            xattr_bytes: 0,
            linkable: false,
            dead: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::super::record::encode;
    use super::*;
    use crate::engine::memory::Memory;

    /// A database whose last program wrote this format.
    fn of_format(format: u32) -> Memory {
        let t = Fixture::new();
        let state = State { format, ..t.ns.state };
        let mut store = t.ns.into_store();
        let mut batch = Batch::default();
        batch.put(key::state(), encode(&state));
        store.commit(batch).unwrap();
        store
    }

    #[test]
    fn an_older_database_is_taken_over_and_a_newer_one_refused() {
        let (limits, now) = (Limits::new(1 << 20, 0, 0), Time::default());
        let ns = Namespace::open(of_format(FORMAT_OLDEST), limits, now).unwrap();
        let row = ns.into_store().get(&key::state()).unwrap().unwrap();
        assert_eq!(decode::<State>(&row).unwrap().format, FORMAT, "programs of before refuse it from now on");
        for found in [FORMAT_OLDEST - 1, FORMAT + 1] {
            let refused = Namespace::open(of_format(found), limits, now).err();
            assert_eq!(refused, Some(OpenError::Format { found }));
        }
    }
}
