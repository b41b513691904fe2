//! A volume from its start to the moment it serves: sessions found in its table, their recovery, the doors.

use std::collections::HashSet;

use flexfs_wire::errno::Errno;
use flexfs_wire::id::{Commit, Ino};
use flexfs_wire::message::{Notice, Reply};
use flexfs_wire::time::Time;
use zeroize::Zeroizing;

use super::host::{Host, Later, Now, Phase};
use super::message::{EndOfReplay, Item, LinkKey};
use super::record::Record;
use super::recovery::{Recovery, Replayed};
use super::shared::SessionInfo;
use super::trust;
use crate::engine::Store;
use crate::namespace::Context;

/// How far from now the time of a replayed call may be, seconds: longer than any outage, and any clock that was put right.
const REPLAY_SECS_MAX: u64 = 86_400;

impl<S: Store> Host<S> {
    /// Finds the sessions of the last run and waits for them; serves at once when there are none.
    pub(super) fn restart(&mut self, now: Now) -> Result<(), Errno> {
        self.trusting = trust::kept(&self.namespace)?;
        for found in self.namespace.sessions() {
            let id = found.session;
            let Some(record) = Record::decode(&found.bytes) else {
                tracing::warn!(volume = %self.volume.id, session = %id, "session of an unknown version is ended");
                let _ = self.namespace.end_session(now.wall, id)?;
                continue;
            };
            let info = SessionInfo {
                id,
                token_id: record.token_id.clone(),
                client: record.client.clone(),
                networks: record.networks.clone(),
                encrypted: self.settings.encrypted,
                limiter: self.limiters.of(&record.token_id, record.limits, now.mono),
                resume_key: Zeroizing::new(record.resume_key),
            };
            self.admit(info, &record, now);
            self.leases.set_wild(id, record.root != Ino::ROOT);
        }
        let sessions = &self.sessions;
        self.trusting.retain(|id| sessions.contains_key(id));
        self.tighten_all();
        self.volume.set_durable(self.namespace.durable().clone(), self.namespace.survived());
        self.measure_space();
        // There is nobody to ask yet.
        self.leases.keep_together(self.settings.max_inodes != 0);
        if self.sessions.is_empty() {
            self.namespace.finish_recovery(now.wall)?;
            self.volume.go_live();
        } else {
            tracing::info!(
                volume = %self.volume.id, sessions = self.sessions.len(),
                "waiting for the sessions of the last run to come back"
            );
            self.phase = Phase::Recovering(Recovery::new(self.sessions.keys().copied(), now.mono));
        }
        Ok(())
    }

    pub(super) fn handle_replay(&mut self, link: LinkKey, replayed: Replayed, now: Now) {
        let session = replayed.session;
        let accepted = match &mut self.phase {
            Phase::Recovering(recovery) if recovery.is_present(session) => {
                recovery.handle_replay(replayed, now.mono).map_err(|_| "too much is replayed")
            }
            Phase::Recovering(_) | Phase::Fencing { .. } | Phase::Open => {
                Err("nothing is to be replayed now")
            }
        };
        if let Err(cause) = accepted {
            tracing::warn!(volume = %self.volume.id, %session, cause, "replay refused, link closed");
            self.outs.push(link, Item::Close);
        }
    }

    pub(super) fn handle_end_of_replay(&mut self, end: EndOfReplay, now: Now) -> Result<(), Errno> {
        match &mut self.phase {
            Phase::Recovering(recovery) if recovery.is_present(end.session) => recovery.handle_end(end),
            Phase::Fencing { present, ends } if present.contains(&end.session) => {
                // The last word counts.
                ends.retain(|other| other.session != end.session);
                ends.push(end);
            }
            // It was over when the client's link broke; the client asks again and is told.
            Phase::Open => self.answer(end.link, end.request, end.stamp, Ok(Reply::Done)),
            Phase::Recovering(_) | Phase::Fencing { .. } => self.outs.push(end.link, Item::Close),
        }
        self.tick_recovery(now)
    }

    /// Ends the recovery when all have come or the time is over.
    pub(super) fn tick_recovery(&mut self, now: Now) -> Result<(), Errno> {
        match &self.phase {
            // With the disk too full for that it waits: what was replayed is kept in memory and by the clients.
            Phase::Recovering(recovery) if recovery.is_over(now.mono) && self.room.takes(true) => {}
            Phase::Recovering(_) | Phase::Fencing { .. } | Phase::Open => return Ok(()),
        }
        let nobody = Phase::Fencing { present: HashSet::new(), ends: Vec::new() };
        let Phase::Recovering(recovery) = std::mem::replace(&mut self.phase, nobody) else { return Ok(()) };
        let recovered = recovery.finish();
        let replayed = recovered.replays.len();
        let mut fence = Commit(0);
        for replay in recovered.replays {
            fence = fence.max(self.apply_replay(&replay, now));
        }
        for end in &recovered.ends {
            self.declare(end);
        }
        let text = "the session did not come back in time after a restart of the server; mount again";
        for id in &recovered.lost {
            tracing::warn!(
                volume = %self.volume.id, session = %id,
                "session ended: it did not come back after the restart; its opens and locks are released"
            );
            self.end(*id, now, Some(Notice::Revoked { text: text.to_owned() }))?;
        }
        self.namespace.finish_recovery(now.wall)?;
        // A commit after all others: when it is durable, so is everything that was replayed.
        fence = fence.max(self.namespace.keep("recovered", self.epoch.0.to_le_bytes().to_vec())?);
        self.last_commit = self.last_commit.max(fence);
        tracing::info!(
            volume = %self.volume.id, replayed, back = recovered.ends.len(), lost = recovered.lost.len(),
            "recovery applied"
        );
        let present = recovered.ends.iter().map(|end| end.session).collect();
        self.phase = Phase::Fencing { present, ends: recovered.ends };
        if fence <= self.namespace.durable().current() {
            return self.open_doors(now);
        }
        self.defer(fence, Later::Doors);
        Ok(())
    }

    /// What a session has open, locked and unwritten, but what is not in its scope (any more), or only root's to look into.
    fn declare(&mut self, end: &EndOfReplay) {
        let id = end.session;
        let (mut opens, mut locks) = (end.opens.clone(), end.locks.clone());
        opens.retain(|(ino, _)| !self.is_outside(id, *ino));
        locks.retain(|(ino, _)| !self.is_outside(id, *ino));
        if self.sessions.get(&id).is_some_and(|session| session.shared.rules().root_squash) {
            opens.retain(|(ino, _)| self.namespace.guard_use(id, *ino).is_ok());
            locks.retain(|(ino, _)| self.namespace.guard_use(id, *ino).is_ok());
        }
        self.namespace.declare(id, &opens, &locks);
        for ino in &end.exclusive {
            if !self.is_outside(id, *ino) {
                let is_dir = self.namespace.attr(*ino).is_ok_and(|attr| attr.is_dir());
                self.leases.declare(id, *ino, is_dir);
            }
        }
    }

    fn apply_replay(&mut self, replayed: &Replayed, now: Now) -> Commit {
        let Replayed { session, request, rights, umask, bytes: _, replay } = replayed;
        let nodes = replay.call.request.nodes();
        let strays = nodes.iter().flatten().any(|node| self.is_outside(*session, node.ino));
        if strays && !self.namespace.has_answered(*session, *request) {
            tracing::warn!(
                volume = %self.volume.id, session = %session, %request,
                "a replayed call names what is not in the session's scope (any more); it was left out"
            );
            return Commit(0);
        }
        let context = Context {
            now: believable(replay.at, now.wall),
            told: replay.call.told,
            session: *session,
            request: *request,
            caller: replay.call.caller,
            rights: *rights,
            umask: u32::from(*umask),
        };
        let outcome = self.namespace.apply_replay(&context, &replay.call.request);
        // Nobody waits for a lock yet: locks are declared after the replay.
        drop(outcome.wakeups);
        match outcome.answer {
            Some(answer) => {
                if let Err(errno) = answer.result {
                    tracing::warn!(
                        volume = %self.volume.id, session = %session, %request, %errno,
                        "a replayed call did not succeed this time"
                    );
                }
                answer.commit
            }
            None => Commit(0),
        }
    }

    /// Everything replayed is durable: answers those who recovered, and serves what was held back.
    pub(super) fn open_doors(&mut self, now: Now) -> Result<(), Errno> {
        let Phase::Fencing { ends, .. } = std::mem::replace(&mut self.phase, Phase::Open) else {
            return Ok(());
        };
        self.volume.go_live();
        for session in self.sessions.values() {
            session.shared.touch(now.mono);
        }
        for end in ends {
            self.answer(end.link, end.request, end.stamp, Ok(Reply::Done));
        }
        tracing::info!(volume = %self.volume.id, sessions = self.sessions.len(), "recovery is over");
        for message in std::mem::take(&mut self.held) {
            self.handle(message, now)?;
        }
        Ok(())
    }
}

/// When a replayed call was first answered, as its client tells. The client may not know, or lie: a time stamp far from now would
/// hide what the call freed from the collector of garbage.
fn believable(at: Time, now: Time) -> Time {
    if at.secs.abs_diff(now.secs) <= REPLAY_SECS_MAX { at } else { now }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replays_of_another_age_are_of_now() {
        let now = Time { secs: 1_000_000_000, nanos: 5 };
        for secs in [now.secs, now.secs - 3_600, now.secs + 3_600] {
            assert_eq!(believable(Time { secs, nanos: 7 }, now), Time { secs, nanos: 7 });
        }
        for secs in [0, i64::MIN, i64::MAX, now.secs + 2 * 86_400] {
            assert_eq!(believable(Time { secs, nanos: 7 }, now), now);
        }
    }
}
