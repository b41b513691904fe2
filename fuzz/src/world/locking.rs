//! Steps on locks, and who is woken.

use flexfs_wire::errno::Errno;
use flexfs_wire::message::{Lock, LockFamily, LockKind, Reply, Request};

use super::{World, node};
use crate::model::Claim;
use crate::source::Source;

impl World {
    pub(super) fn step_lock(&mut self, source: &mut Source<'_>) {
        let (_, context, who) = self.caller(source);
        let (ino, what, range) = (self.file(source), source.byte(), source.byte());
        let family = if what & 1 == 1 { LockFamily::Flock } else { LockFamily::Posix };
        let kind =
            [LockKind::Read, LockKind::Write, LockKind::Write, LockKind::Unlock][usize::from(what >> 1 & 3)];
        let (mut start, mut end) = (u64::from(range & 7), u64::from(range >> 4) + 1);
        if range >> 4 == 15 {
            end = u64::MAX;
        }
        if family == LockFamily::Flock {
            (start, end) = (0, u64::MAX);
        }
        let lock = Lock { family, kind, owner: u64::from(what >> 3 & 1), pid: 1, start, end };
        let claim = Claim { ino, session: who.session, lock };
        if what >> 5 == 7 {
            let request = Request::TestLock { node: node(ino), lock };
            let result = self.call(context, &request);
            self.compare_test(&request, result, &claim);
            return;
        }
        let wait = what >> 4 & 1 == 1;
        self.lock(context, Request::Lock { node: node(ino), lock, wait }, &claim, wait);
    }

    /// Also for a wait that is asked for again after a restart.
    pub(super) fn lock(
        &mut self,
        context: flexfs_meta::namespace::Context,
        request: Request,
        claim: &Claim,
        wait: bool,
    ) {
        let key = (context.session.0, context.request.0);
        let outcome = self.machine().apply(&context, &request);
        let refusal = self.refusal(claim);
        if let Some(errno) = refusal {
            assert_eq!(outcome.answer.map(|answer| answer.result), Some(Err(errno)), "{request:?}");
            return;
        }
        if self.model.locks.is_conversion(claim) && claim.lock.kind != LockKind::Unlock {
            self.model.locks.unlock_owner(claim.ino, claim.session, claim.lock.family, claim.lock.owner);
        }
        let result = outcome.answer.map(|answer| answer.result);
        if result == Some(Ok(Reply::Done)) {
            self.model.locks.lay(claim);
        }
        self.take_wakeups(&outcome.wakeups);
        match result {
            Some(Ok(Reply::Done)) => {}
            Some(Err(Errno::EAGAIN)) => assert!(!wait && !self.model.locks.is_free(claim), "{request:?}"),
            Some(Err(Errno::EDEADLK)) => {
                let is_record = claim.lock.family == LockFamily::Posix;
                assert!(wait && is_record && self.model.locks.would_deadlock(claim), "{request:?}");
            }
            None => {
                assert!(wait && !self.model.locks.is_free(claim), "{request:?} waits for nothing");
                let is_record = claim.lock.family == LockFamily::Posix;
                assert!(!is_record || !self.model.locks.would_deadlock(claim), "{request:?} waits for ever");
                self.model.locks.waiting.insert(key, *claim);
                self.waits.push((context, request));
            }
            other => panic!("{request:?}: {other:?}"),
        }
        self.model.locks.check();
    }

    pub(super) fn step_unlock_or_cancel(&mut self, source: &mut Source<'_>) {
        let (_, context, who) = self.caller(source);
        if source.one_in(2) {
            let Some((waiting, _)) = self.waits.get(source.below(self.waits.len())).cloned() else { return };
            let wakeups = self.machine().cancel_wait(context.now, waiting.session, waiting.request);
            let [cancelled, rest @ ..] = &*wakeups else { panic!("a wait that is there was not ended") };
            assert_eq!(cancelled.answer.result, Err(Errno::EINTR));
            let key = (waiting.session.0, waiting.request.0);
            assert_eq!((cancelled.session.0, cancelled.request.0), key);
            self.model.locks.waiting.remove(&key);
            self.waits.retain(|(context, _)| (context.session.0, context.request.0) != key);
            self.take_wakeups(rest);
        } else {
            let (ino, flags) = (self.file(source), source.byte());
            let family = if flags & 1 == 1 { LockFamily::Flock } else { LockFamily::Posix };
            let owner = u64::from(flags >> 1 & 1);
            let request = Request::Unlock { node: node(ino), family, owner };
            let outcome = self.machine().apply(&context, &request);
            assert_eq!(outcome.answer.map(|answer| answer.result), Some(Ok(Reply::Done)));
            self.model.locks.unlock_owner(ino, who.session, family, owner);
            self.take_wakeups(&outcome.wakeups);
        }
        self.model.locks.check();
    }

    fn compare_test(&self, request: &Request, result: Result<Reply, Errno>, claim: &Claim) {
        match result {
            Err(errno) => assert_eq!(self.refusal(claim), Some(errno), "{request:?}"),
            Ok(Reply::Locked(lock)) => {
                let is_free = claim.lock.kind == LockKind::Unlock || self.model.locks.is_free(claim);
                // For a release `F_GETLK` is not defined; what it names then must still be held by somebody.
                if claim.lock.kind != LockKind::Unlock {
                    assert_eq!(lock.kind == LockKind::Unlock, is_free, "{request:?} -> {lock:?}");
                }
            }
            Ok(other) => panic!("{request:?}: {other:?}"),
        }
    }

    fn refusal(&self, claim: &Claim) -> Option<Errno> {
        if !self.model.files.contains_key(&claim.ino) {
            return Some(Errno::ESTALE);
        }
        (claim.lock.start > claim.lock.end).then_some(Errno::EINVAL)
    }
}
