//! Work that no request waits for: orphans, dead extents, obsolete answers.

use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::time::Time;

use super::machine::Namespace;
use super::txn::{Effect, Txn};
use crate::engine::{Batch, Store, key};

/// Rows in one batch: some 100 KiB, and a few milliseconds of the volume's thread.
const BATCH_ROWS: usize = 1_024;
/// Rows of lingering files that a request without space takes away itself: some 50 ms.
const LINGERING_ROWS: usize = 8_192;

impl<S: Store> Namespace<S> {
    /// Does about `budget` rows of work. True when more is left: call again soon. Nothing while a recovery runs.
    ///
    /// # Errors
    /// `ENOSPC`, `EIO`: the engine refuses; nothing is lost, call again later.
    pub fn background(&mut self, now: Time, budget: usize) -> Result<bool, Errno> {
        if self.is_recovering() {
            return Ok(false);
        }
        let mut left = budget.max(1);
        while left > 0 && self.dedup.obsolete() > 0 {
            left = left.saturating_sub(self.drop_obsolete(left.min(BATCH_ROWS))?);
        }
        while left > 0
            && let Some(ino) = self.orphans.first_unused()
        {
            left = left.saturating_sub(self.reclaim(now, ino, left)?);
        }
        while left > 0
            && let Some(ino) = self.dying.first().copied()
        {
            left = left.saturating_sub(self.bury(now, ino, left)?);
        }
        Ok(self.dedup.obsolete() > 0 || self.orphans.first_unused().is_some() || !self.dying.is_empty())
    }

    /// Lets go of files that were replaced before the last call. Call it every half second or so.
    pub fn age(&mut self) {
        self.orphans.age(&self.opens);
    }

    /// Reclaims what lingers, now, as far as a request can wait. True when there was something.
    pub(super) fn end_lingering(&mut self, now: Time) -> bool {
        if self.orphans.lingering() == 0 {
            return false;
        }
        while self.orphans.age(&self.opens) {}
        let mut left = LINGERING_ROWS;
        while left > 0
            && let Some(ino) = self.orphans.first_unused()
        {
            match self.reclaim(now, ino, left) {
                Ok(spent) => left = left.saturating_sub(spent),
                // The background goes on with it.
                Err(_) => break,
            }
        }
        true
    }

    /// Removes an orphan that nobody has open, as far as the budget goes. Gives the rows it took.
    pub(super) fn reclaim(&mut self, now: Time, ino: Ino, budget: usize) -> Result<usize, Errno> {
        let mut spent = 0;
        while spent < budget.max(1) && self.orphans.is_unused(ino) {
            let mut txn: Txn = self.begin(now);
            let rows = (budget - spent).clamp(1, BATCH_ROWS);
            let mut next = None;
            match self.any_inode(&txn, ino)? {
                None => txn.unset_orphan(ino),
                Some(mut inode) => {
                    let from = self.reclaimed.filter(|(of, _)| *of == ino).map_or(0, |(_, to)| to);
                    let mut extents = self.stored_extents(&txn, ino, from, u64::MAX, rows)?;
                    if extents.is_empty() && from > 0 {
                        extents = self.stored_extents(&txn, ino, 0, u64::MAX, rows)?;
                    }
                    for extent in &extents {
                        self.remove_extent(&mut txn, &mut inode, extent)?;
                    }
                    spent += extents.len();
                    if inode.extents == 0 {
                        self.erase(&mut txn, &inode)?;
                        txn.unset_orphan(ino);
                    } else {
                        next = extents.last().map(|extent| (ino, extent.end));
                        txn.set_inode(inode);
                    }
                }
            }
            txn.batch.set_vital();
            self.commit(&mut txn, None)?;
            self.reclaimed = next;
            spent += 1;
        }
        Ok(spent)
    }

    /// Removes dead extents of a file, as far as the budget goes.
    fn bury(&mut self, now: Time, ino: Ino, budget: usize) -> Result<usize, Errno> {
        let mut txn: Txn = self.begin(now);
        let Some(mut inode) = self.any_inode(&txn, ino)? else {
            self.dying.remove(&ino);
            return Ok(1);
        };
        let rows = budget.clamp(1, BATCH_ROWS);
        let mut dead = self.dead_ranges(&txn, &inode)?;
        let Some(range) = dead.first().copied() else {
            self.dying.remove(&ino);
            return Ok(1);
        };
        match self.remove_dead(&mut txn, &mut inode, &[range], range.from, rows)? {
            // Behind this point it is still dead; before it nothing is left that was.
            Some(next) if next < range.to => dead[0].from = next,
            _ => {
                dead.remove(0);
            }
        }
        if dead.is_empty() {
            inode.dead = false;
            txn.effects.push(Effect::Dead(ino));
        }
        txn.dead.insert(ino, dead);
        txn.set_inode(inode);
        txn.batch.set_vital();
        self.commit(&mut txn, None)?;
        Ok(rows)
    }

    fn drop_obsolete(&mut self, count: usize) -> Result<usize, Errno> {
        let rows = self.dedup.take_obsolete(count);
        let mut batch = Batch::default();
        batch.set_vital();
        for (session, request) in &rows {
            batch.remove(key::dedup(*session, *request));
        }
        if let Err(errno) = self.store.commit(batch) {
            for (session, request) in rows {
                self.dedup.discard(session, request);
            }
            return Err(errno);
        }
        Ok(rows.len())
    }
}
