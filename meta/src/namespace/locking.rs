//! Lock requests, and the answers that come later.

use flexfs_wire::errno::Errno;
use flexfs_wire::id::{Commit, Ino, RequestId, SessionId};
use flexfs_wire::message::{Lock, LockFamily, Reply};
use flexfs_wire::time::Time;

use super::context::{Context, Outcome, Wakeup, answered};
use super::machine::Namespace;
use crate::dedup::Remembered;
use crate::engine::Store;
use crate::lock::{Grant, Taken};

impl<S: Store> Namespace<S> {
    pub(super) fn take_lock(&mut self, context: &Context, ino: Ino, lock: &Lock, wait: bool) -> Outcome {
        if let Err(errno) = self.check_lock(context, ino, lock) {
            return Outcome::refused(context, errno);
        }
        let (taken, grants) = self.locks.lock(ino, context.session, context.request, lock, wait);
        let wakeups = self.wakeups(context.now, grants);
        let outcome = match taken {
            Taken::Granted => self.remember(context, Ok(Reply::Done)),
            Taken::Waiting => Outcome::waiting(),
            Taken::Blocked => Outcome::refused(context, Errno::EAGAIN),
            Taken::Deadlock => Outcome::refused(context, Errno::EDEADLK),
            Taken::Full => Outcome::refused(context, Errno::ENOLCK),
        };
        Outcome { wakeups, ..outcome }
    }

    pub(super) fn drop_locks(
        &mut self,
        context: &Context,
        ino: Ino,
        family: LockFamily,
        owner: u64,
    ) -> Outcome {
        let grants = self.locks.unlock_owner(ino, context.session, family, owner);
        let wakeups = self.wakeups(context.now, grants);
        let outcome = self.remember(context, Ok(Reply::Done));
        Outcome { wakeups, ..outcome }
    }

    pub(super) fn test_lock(&mut self, context: &Context, ino: Ino, lock: &Lock) -> Result<Reply, Errno> {
        self.check_lock(context, ino, lock)?;
        Ok(Reply::Locked(self.locks.test(ino, context.session, lock)))
    }

    /// Ends a lock wait: it is answered `EINTR`. Nothing when the request does not wait (any more).
    pub fn cancel_wait(&mut self, now: Time, session: SessionId, request: RequestId) -> Vec<Wakeup> {
        let Some(grants) = self.locks.cancel(session, request) else { return Vec::new() };
        let answer = answered(now, Commit(0), Err(Errno::EINTR));
        let mut wakeups = vec![Wakeup { session, request, answer }];
        wakeups.extend(self.wakeups(now, grants));
        wakeups
    }

    /// The answers of waits that ended with the lock; remembered as if they had been given at once.
    pub(super) fn wakeups(&mut self, now: Time, grants: Vec<Grant>) -> Vec<Wakeup> {
        let mut wakeups = Vec::with_capacity(grants.len());
        for Grant { session, request } in grants {
            let answer = answered(now, Commit(0), Ok(Reply::Done));
            self.dedup.insert(session, request, Remembered::Here(Box::new(answer.clone())));
            wakeups.push(Wakeup { session, request, answer });
        }
        wakeups
    }

    fn check_lock(&mut self, context: &Context, ino: Ino, lock: &Lock) -> Result<(), Errno> {
        let txn = self.begin(context.now);
        self.inode(&txn, ino)?;
        if lock.start > lock.end { Err(Errno::EINVAL) } else { Ok(()) }
    }
}
