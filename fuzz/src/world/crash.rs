//! The server dies, comes back with what was durable, and is told what it lost.

use flexfs_meta::engine::memory::Memory;
use flexfs_meta::namespace::Namespace;
use flexfs_wire::errno::Errno;
use flexfs_wire::id::{Ino, SessionId};
use flexfs_wire::message::{Reply, Request};

use super::{BOUNDS, Kept, World};
use crate::model::Claim;

impl World {
    /// A crash that `survive` of the commits not yet durable outlive.
    pub(super) fn crash(&mut self, survive: usize) {
        let store = self.machine.take().expect("it runs").into_store().crash(survive);
        self.restart(store);
        let survived = self.machine().survived();
        let lost: Vec<Kept> = self.kept.drain(..).filter(|kept| kept.answer.commit > survived).collect();
        for (index, Kept { context, request, answer }) in lost.iter().enumerate() {
            let again = self.machine().apply_replay(context, request).answer.expect("replays do not wait");
            let same = (alike(&again.result), again.at) == (alike(&answer.result), answer.at);
            assert!(same, "{request:?}: replayed {again:?}, first {answer:?}");
            assert!(again.commit > answer.commit);
            // Another crash in the middle; the mounts have only the old answers and begin again.
            if index % 7 == 6 {
                let store = self.machine.take().expect("it runs").into_store().crash(index % 5);
                self.restart(store);
                assert_eq!(self.machine().survived(), survived);
                for Kept { context, request, .. } in &lost[..=index] {
                    let again = self.machine().apply_replay(context, request).answer.expect("an answer");
                    assert!(again.result.is_ok(), "{request:?} -> {again:?}");
                }
            }
        }
        self.declare();
        let now = self.now;
        self.machine().finish_recovery(now).expect("the engine works");
        self.machine().store_mut().sync(usize::MAX);
        self.wait_again();
    }

    fn restart(&mut self, store: Memory) {
        let mut machine =
            Namespace::open(store, self.limits, self.now).expect("what was durable can be read");
        machine.set_bounds(BOUNDS);
        let sessions: Vec<SessionId> = machine.sessions().iter().map(|record| record.session).collect();
        for mount in &self.mounts {
            assert!(sessions.contains(&mount.session), "sessions were durable when welcomed");
        }
        assert_eq!(sessions.len(), self.mounts.len(), "ended sessions do not come back");
        self.machine = Some(machine);
    }

    /// Every mount says what it has open and locked.
    fn declare(&mut self) {
        for index in 0..self.mounts.len() {
            let session = self.mounts[index].session;
            let opens = self.model.opens.iter().filter(|((owner, _), _)| *owner == session.0);
            let opens: Vec<(Ino, u32)> = opens.map(|((_, ino), count)| (Ino(*ino), *count)).collect();
            let locks = self.model.locks.of_session(session.0);
            let locks: Vec<_> = locks.into_iter().map(|(ino, lock)| (Ino(ino), lock)).collect();
            let dropped = self.machine().declare(session, &opens, &locks);
            assert_eq!(dropped, 0, "locks that were held beside each other");
        }
    }

    /// Lock requests that had no answer are sent once more.
    fn wait_again(&mut self) {
        // The machine knows of none before it is asked again, so it sees a circle when the last one closes it.
        self.model.locks.waiting.clear();
        for (context, request) in std::mem::take(&mut self.waits) {
            let Request::Lock { node, lock, .. } = &request else { continue };
            let claim = Claim { ino: node.ino.0, session: context.session.0, lock: *lock };
            self.lock(context, request, &claim, true);
        }
    }
}

/// An outcome without what may differ in a replay: the space that the background has not freed yet.
fn alike(result: &Result<Reply, Errno>) -> Result<Reply, Errno> {
    let mut result = result.clone();
    match &mut result {
        Ok(Reply::Attr(attr) | Reply::Copied { attr, .. }) => attr.blocks = 0,
        Ok(Reply::Entry(entry)) => entry.attr.blocks = 0,
        Ok(Reply::Opened { attr, layout }) => {
            attr.blocks = 0;
            *layout = None;
        }
        _ => {}
    }
    result
}
