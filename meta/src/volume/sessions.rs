//! How sessions of a volume begin, get links and end.

use std::sync::Arc;

use flexfs_wire::errno::Errno;
use flexfs_wire::hello::{Granted, Reason, Refused};
use flexfs_wire::id::{Commit, RequestId, SessionId};
use flexfs_wire::limits::{LEASE_MS, LINKS_PER_SESSION_MAX};
use flexfs_wire::message::Notice;
use flexfs_wire::seal::Sealer;
use flexfs_wire::settings::TokenLimits;
use zeroize::Zeroizing;

use super::host::{Host, Later, Now, Phase, Session};
use super::message::{Claim, Claimed, Item, OpenAnswer, OpenSession, ValidTokens};
use super::record::Record;
use super::shared::{SessionInfo, Shared};
use crate::engine::Store;
use crate::session::handshake::Admitted;

impl<S: Store> Host<S> {
    /// Makes a session; its answer goes out when its record is durable.
    pub(super) fn handle_open(&mut self, open: OpenSession, now: Now) -> Result<(), Errno> {
        let OpenSession { admitted, link, answer } = open;
        match self.make_session(admitted, now) {
            Ok((session, commit, granted)) => {
                if let Some(found) = self.sessions.get_mut(&session) {
                    found.links.push(link);
                }
                self.last_commit = self.last_commit.max(commit);
                if commit <= self.namespace.durable().current() {
                    self.finish_open(session, answer, granted, now)?;
                } else {
                    self.defer(commit, Later::Open { session, answer, granted });
                }
            }
            Err(refused) => {
                // A client that is gone needs no answer.
                let _ = answer.send(Err(refused));
            }
        }
        Ok(())
    }

    fn make_session(
        &mut self,
        admitted: Admitted,
        now: Now,
    ) -> Result<(SessionId, Commit, Box<Granted>), Refused> {
        let Admitted { version, access, flags, client } = admitted;
        if let Some((_, cause)) = self.revoked.get(&access.token_id) {
            return Err(refuse(Reason::TokenUnknown, format!("the token has ended ({cause})")));
        }
        if access.settings != self.settings {
            self.take_settings(access.settings.clone(), now);
        }
        let limiter = self.limiters.of(&access.token_id, access.limits, now.mono);
        let limits = limiter.limits();
        self.check_sessions(&access.token_id, limits)?;
        let attr =
            self.namespace.resolve(access.scope.as_bytes()).map_err(|errno| scope(&access.scope, errno))?;
        if !attr.is_dir() {
            return Err(scope(&access.scope, Errno::ENOTDIR));
        }
        let mut resume_key = Zeroizing::new([0; 32]);
        getrandom::fill(resume_key.as_mut_slice())
            .map_err(|error| refuse(Reason::Server, format!("the server has no randomness: {error}")))?;
        let record = Record {
            token_id: access.token_id.clone(),
            client: client.clone(),
            flags,
            root: attr.ino,
            resume_key: *resume_key,
            networks: access.networks.clone(),
            limits,
        };
        let settings = self.told_settings();
        let flags = flags.and(self.flags_in_force());
        let (id, commit) =
            self.namespace.open_session(|_| record.encode()).map_err(|errno| self.not_stored(errno))?;
        let commit = if settings.flags.ro {
            let kept = self.note_trusting(id).map_err(|errno| self.not_stored(errno))?;
            commit.max(kept)
        } else {
            commit
        };
        let info = SessionInfo {
            id,
            token_id: access.token_id,
            client,
            networks: access.networks,
            encrypted: access.settings.encrypted,
            limiter,
            resume_key: resume_key.clone(),
        };
        let root = self.admit(info, &record, now).sealer.seal(attr.ino);
        let granted = Box::new(Granted {
            version,
            session: id,
            resume_key: *resume_key,
            epoch: self.epoch,
            root,
            attr,
            settings,
            flags,
            lease_ms: LEASE_MS,
            durable: self.volume.durable(),
        });
        Ok((id, commit, granted))
    }

    /// Whether one more session of that token may stand. Those of before a restart count until they are given up.
    fn check_sessions(&self, token: &str, limits: TokenLimits) -> Result<(), Refused> {
        let most = limits.max_sessions as usize;
        if most == 0 || self.sessions_of(token).count() < most {
            return Ok(());
        }
        let text = format!(
            "token {token} is for {most} sessions at once, and so many stand (one whose client died ends after {} s): \
             unmount one, or let the operator raise it: \
             configure.flexfs update volume-token {token} --maxSessions {}",
            LEASE_MS / 1000,
            most + 1
        );
        Err(refuse(Reason::Busy, text))
    }

    /// The sessions that a token opened.
    fn sessions_of(&self, token: &str) -> impl Iterator<Item = (SessionId, &Session)> {
        let all = self.sessions.iter().map(|(id, session)| (*id, session));
        all.filter(move |(_, session)| session.shared.info.token_id == token)
    }

    /// Limits of a token changed. More sessions than there may be now go on; what their links hold back is looked at again.
    pub(super) fn handle_limits(&mut self, token: &str, limits: TokenLimits, now: Now) {
        if self.limiters.handle_change(token, limits, now.mono) {
            self.sessions_of(token).for_each(|(_, session)| session.shared.hurried.notify_waiters());
        }
    }

    /// Puts a session into the tables.
    pub(super) fn admit(&mut self, info: SessionInfo, record: &Record, now: Now) -> Arc<Shared> {
        let id = info.id;
        let sealer = Sealer::new(self.seal_key, record.root);
        let shared = Arc::new(Shared::new(info, self.volume.clone(), sealer, record.flags, now.mono));
        shared.tighten(self.flags_in_force());
        self.registry.add(&shared);
        let session = Session {
            shared: shared.clone(),
            links: Vec::new(),
            waits: std::collections::HashMap::new(),
            last_commit: Commit(0),
            told: Commit(0),
            finished: RequestId(0),
            grants: std::collections::VecDeque::new(),
        };
        self.sessions.insert(id, session);
        shared
    }

    /// The session's record is durable: the client may know of it.
    pub(super) fn finish_open(
        &mut self,
        session: SessionId,
        answer: OpenAnswer,
        granted: Box<Granted>,
        now: Now,
    ) -> Result<(), Errno> {
        let Some(found) = self.sessions.get(&session) else {
            let text = "the token ended while the session was made";
            let _ = answer.send(Err(refuse(Reason::TokenUnknown, text.to_owned())));
            return Ok(());
        };
        found.shared.touch(now.mono);
        let info = &found.shared.info;
        tracing::info!(
            volume = %self.volume.id, %session, token = info.token_id, client = info.client, "session opened"
        );
        if answer.send(Ok((granted, found.shared.clone()))).is_err() {
            // The client went away before it knew of the session: nobody can ever claim it.
            self.end(session, now, None)?;
        }
        Ok(())
    }

    /// Adds a link to a session whose claim was proven.
    pub(super) fn handle_claim(&mut self, claim: Claim, now: Now) {
        let Claim { session, link, resume, answer } = claim;
        let outcome = self.claim(session, resume, now);
        if outcome.is_ok()
            && let Some(found) = self.sessions.get_mut(&session)
        {
            found.links.push(link);
            self.resend_recalls(session);
        }
        let accepted = outcome.is_ok();
        if answer.send(outcome).is_err() && accepted {
            self.handle_link_gone(session, link, now);
        }
    }

    fn claim(&mut self, session: SessionId, resume: bool, now: Now) -> Result<Claimed, Refused> {
        let Some(found) = self.sessions.get(&session) else {
            let text =
                "the session has ended (no sign of life for a whole lease, or its token ended); mount again";
            return Err(refuse(Reason::SessionUnknown, text.to_owned()));
        };
        if found.links.len() >= LINKS_PER_SESSION_MAX {
            let text = format!("a session has at most {LINKS_PER_SESSION_MAX} links");
            return Err(refuse(Reason::Busy, text));
        }
        found.shared.touch(now.mono);
        let (epoch, durable) = (self.epoch, self.volume.durable());
        let must_recover = || {
            let text = "the server was restarted; come with Resume and replay";
            refuse(Reason::MustRecover, text.to_owned())
        };
        match &mut self.phase {
            Phase::Open => Ok(Claimed::Attached { epoch, durable }),
            Phase::Recovering(recovery) if resume => {
                recovery.handle_resume(session);
                tracing::info!(volume = %self.volume.id, %session, "session came back");
                Ok(Claimed::Recovering { epoch, durable })
            }
            Phase::Recovering(recovery) if recovery.is_present(session) => {
                Ok(Claimed::Attached { epoch, durable })
            }
            Phase::Fencing { present, .. } if present.contains(&session) => {
                Ok(Claimed::Attached { epoch, durable })
            }
            Phase::Recovering(_) | Phase::Fencing { .. } => Err(must_recover()),
        }
    }

    /// Ends a session: opens, locks, waits and unused grants go; links close after `notice`.
    pub(super) fn end(&mut self, id: SessionId, now: Now, notice: Option<Notice>) -> Result<(), Errno> {
        let Some(session) = self.sessions.remove(&id) else { return Ok(()) };
        session.shared.end();
        self.registry.remove(&session.shared);
        self.undurable.remove(&id);
        self.handle_trusting_gone(id);
        if let Phase::Recovering(recovery) = &mut self.phase {
            recovery.handle_gone(id);
        }
        self.end_rows(id, now)?;
        self.end_leases(id, now);
        for link in session.links {
            if let Some(notice) = &notice {
                self.outs.push(link, Item::Notice(notice.clone()));
            }
            self.outs.push(link, Item::Close);
        }
        Ok(())
    }

    /// Takes a session out of the namespace, now or when the disk lets it go.
    fn end_rows(&mut self, id: SessionId, now: Now) -> Result<(), Errno> {
        match self.namespace.end_session(now.wall, id) {
            Ok(wakeups) => self.wake(wakeups),
            Err(Errno::ENOSPC) => self.unended.push(id),
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    /// Tries again what a full disk refused.
    pub(super) fn end_unended(&mut self, now: Now) -> Result<(), Errno> {
        for id in std::mem::take(&mut self.unended) {
            self.end_rows(id, now)?;
        }
        Ok(())
    }

    fn not_stored(&self, errno: Errno) -> Refused {
        let cause = match errno {
            Errno::ENOSPC => self.room.shortage(),
            errno => format!("the metadata server could not store the session ({errno}); its log says why"),
        };
        refuse(Reason::Server, cause)
    }

    /// Ends sessions that gave no sign of life for a lease.
    pub(super) fn end_silent(&mut self, now: Now) -> Result<(), Errno> {
        let silent: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.shared.silent_ms(now.mono) > LEASE_MS)
            .map(|(id, _)| *id)
            .collect();
        for id in silent {
            let info = self.sessions.get(&id).map(|session| session.shared.info.clone());
            let client = info.map(|info| info.client).unwrap_or_default();
            tracing::warn!(
                volume = %self.volume.id, session = %id, client,
                "session ended: no sign of life for {LEASE_MS} ms; its opens and locks are released"
            );
            self.end(id, now, None)?;
        }
        Ok(())
    }

    /// Ends the sessions whose token is not in the list, and puts the limits of the others in force.
    pub(super) fn handle_tokens(&mut self, valid: &ValidTokens, now: Now) -> Result<(), Errno> {
        self.limiters.handle_all(&valid.limits, now.mono);
        self.sessions.values().for_each(|session| session.shared.hurried.notify_waiters());
        let valid: std::collections::HashSet<&str> = valid.ids.iter().map(String::as_str).collect();
        let ended: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| !valid.contains(session.shared.info.token_id.as_str()))
            .map(|(id, _)| *id)
            .collect();
        for id in ended {
            self.revoke(id, "it is not valid any more", now)?;
        }
        Ok(())
    }

    /// A token ended.
    pub(super) fn handle_revoked(&mut self, token: &str, cause: &str, now: Now) -> Result<(), Errno> {
        self.revoked.insert(token.to_owned(), (now.mono, cause.to_owned()));
        let ended: Vec<SessionId> = self.sessions_of(token).map(|(id, _)| id).collect();
        for id in ended {
            self.revoke(id, cause, now)?;
        }
        Ok(())
    }

    /// The volume is no more.
    pub(super) fn handle_retired(&mut self, now: Now) -> Result<(), Errno> {
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            self.revoke(id, "the volume was retired", now)?;
        }
        Ok(())
    }

    fn revoke(&mut self, id: SessionId, cause: &str, now: Now) -> Result<(), Errno> {
        let Some(session) = self.sessions.get(&id) else { return Ok(()) };
        let info = &session.shared.info;
        tracing::warn!(
            volume = %self.volume.id, session = %id, token = info.token_id, client = info.client, cause,
            "session ended: its token has ended"
        );
        let text = format!("token {} has ended: {cause}", info.token_id);
        self.end(id, now, Some(Notice::Revoked { text }))
    }
}

fn refuse(reason: Reason, text: String) -> Refused {
    Refused { reason, text }
}

fn scope(path: &str, errno: Errno) -> Refused {
    refuse(
        Reason::Scope,
        format!(
            "the token's scope {path:?} cannot be the root of a mount: {}; make that directory first",
            errno.text()
        ),
    )
}
