//! Calls and their outcomes.

use flexfs_meta::namespace::{Context, Rights};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::RequestId;
use flexfs_wire::message::{Caller, Reply, Request};

use super::{Kept, World};
use crate::model::{Faults, Model, Verdict, Who};
use crate::source::Source;

impl World {
    /// Who calls next: a mount, and a user of it. Most users were checked by their kernel; the others are a squashed
    /// root, which only the server checks.
    pub(super) fn caller(&mut self, source: &mut Source<'_>) -> (usize, Context, Who) {
        let who = source.byte();
        let mount = usize::from(who & 3) % self.mounts.len();
        let is_plain = who & 0b1100 == 0b1100;
        let uid = u32::from(who >> 4 & 1) + 10;
        let gid = u32::from(who >> 5 & 1) + 10;
        let umask = if who >> 6 == 3 { 0o027 } else { 0 };
        let now = self.tick();
        let state = &mut self.mounts[mount];
        state.request += 1;
        let session = state.session;
        let context = Context {
            told: None,
            now,
            session,
            request: RequestId(state.request),
            caller: Caller { uid, gid },
            rights: if is_plain { Rights::Nobody } else { Rights::Client },
            umask,
        };
        (mount, context, Who { session: session.0, uid, gid, is_plain })
    }

    /// Makes a call and compares its outcome with the model's.
    pub(super) fn expect(
        &mut self,
        context: Context,
        request: Request,
        said: impl FnOnce(&mut Model) -> Verdict,
    ) -> Option<Reply> {
        let growth = growth(&request);
        let figures = self.machine().figures();
        let before = figures.bytes;
        let result = self.call(context, &request);
        let after = self.machine().figures().bytes;
        let max = self.limits.bytes_max;
        assert!(after <= before.max(max), "{request:?}: {after} bytes of {max}");
        if result == Err(Errno::ENOSPC) && before.saturating_add(growth) > max {
            // The volume's bytes are the machine's to count; that it may be full was seen from outside.
            return None;
        }
        let is_crowded = figures.inodes >= self.limits.inodes_max;
        if result == Err(Errno::ENOSPC) && is_crowded && matches!(request, Request::Make { .. }) {
            // What was removed counts until the background has cleared it away.
            return None;
        }
        settle(&request, result, said(&mut self.model))
    }

    /// Makes a call; what changed something is kept for a replay, and is sometimes sent twice.
    pub(super) fn call(&mut self, context: Context, request: &Request) -> Result<Reply, Errno> {
        let outcome = self.machine().apply(&context, request);
        assert_eq!(outcome.wakeups, [], "{request:?} wakes nobody");
        let answer = outcome.answer.expect("only locks wait");
        let result = answer.result.clone();
        assert_eq!(request.is_mutation() && result.is_ok(), answer.commit.0 > 0);
        assert_eq!(answer.at, context.now);
        if result.is_ok() && request.is_once() {
            if answer.commit.0 > 0 {
                self.kept.push(Kept { context, request: request.clone(), answer: answer.clone() });
            }
            if context.request.0.is_multiple_of(3) {
                assert_eq!(self.machine().apply(&context, request).answer, Some(answer), "{request:?} again");
            }
        }
        result
    }
}

/// Outcome and verdict agree: the reply, when both say that it was done.
pub(super) fn settle(request: &Request, result: Result<Reply, Errno>, said: Verdict) -> Option<Reply> {
    match (result, said) {
        (Ok(reply), Ok(())) => Some(reply),
        (Err(errno), Err(faults)) => {
            assert!(faults.has(errno), "{request:?} failed with {errno:?}, but what applies is {faults:?}");
            None
        }
        (result, said) => panic!("{request:?}: the machine says {result:?}, the model {said:?}"),
    }
}

/// As [`settle`], for questions.
pub(super) fn settle_value<T: std::fmt::Debug + PartialEq>(
    request: &Request,
    result: Result<T, Errno>,
    said: Result<T, Faults>,
) {
    match (result, said) {
        (Ok(found), Ok(said)) => assert_eq!(found, said, "{request:?}"),
        (Err(errno), Err(faults)) => {
            assert!(faults.has(errno), "{request:?} failed with {errno:?}, but what applies is {faults:?}");
        }
        (result, said) => panic!("{request:?}: the machine says {result:?}, the model {said:?}"),
    }
}

/// Most bytes a request can add to a volume.
fn growth(request: &Request) -> u64 {
    match request {
        Request::Write { write, .. } => {
            let inline = write.inline.as_ref();
            let inline = inline.map_or(0, |inline| u64::from(inline.offset) + inline.bytes.len() as u64);
            inline + write.extents.iter().map(|extent| u64::from(extent.length)).sum::<u64>()
        }
        Request::Fallocate { length, offset, .. } => offset.saturating_add(*length),
        Request::CopyRange { target_offset, length, .. } => target_offset.saturating_add(*length),
        _ => 0,
    }
}
