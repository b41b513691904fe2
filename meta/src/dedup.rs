//! Which requests were done, so that a resend is answered and not done again.
//!
//! Answers of mutations lie in the store, in the same batch as their effect; here is only that they exist. Answers of
//! calls that change nothing durable (opens, locks) live here: after a restart opens and locks are declared anew.

use std::collections::{BTreeMap, VecDeque};

use flexfs_wire::id::{Commit, RequestId, SessionId};
use flexfs_wire::message::Answer;

/// Most answers kept for one session: it has this many calls unfinished, or holds back its mark. Some 64 MiB.
pub const ANSWERS_PER_SESSION_MAX: usize = 1 << 20;

/// What is remembered of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// The answer is in the store.
    Stored {
        /// With this commit.
        commit: Commit,
        /// It was made in this life of the server, so the open it may have counted is still counted.
        fresh: bool,
    },
    /// The answer is here.
    Here(Box<Answer>),
}

/// Calls done, by session.
#[derive(Debug, Default)]
pub struct Dedup {
    sessions: BTreeMap<SessionId, Answers>,
    /// Rows of the store that nobody will ask for.
    obsolete: VecDeque<(SessionId, RequestId)>,
}

#[derive(Debug, Default)]
struct Answers {
    kept: BTreeMap<RequestId, Remembered>,
    mark: RequestId,
}

impl Dedup {
    /// What is remembered of a call; `None`: it was never done, or is finished.
    pub fn get(&self, session: SessionId, request: RequestId) -> Option<&Remembered> {
        self.sessions.get(&session)?.kept.get(&request)
    }

    /// The call was done.
    pub fn insert(&mut self, session: SessionId, request: RequestId, remembered: Remembered) {
        self.sessions.entry(session).or_default().kept.insert(request, remembered);
    }

    /// Whether the session may not have one more.
    pub fn is_full(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|answers| answers.kept.len() >= ANSWERS_PER_SESSION_MAX)
    }

    /// Whether the client said that it is done with this call: a copy that comes now was overtaken by its resend.
    pub fn is_finished(&self, session: SessionId, request: RequestId) -> bool {
        self.sessions.get(&session).is_some_and(|answers| request < answers.mark)
    }

    /// Every call below `mark` is finished at the client.
    pub fn finish(&mut self, session: SessionId, mark: RequestId) {
        let Some(answers) = self.sessions.get_mut(&session) else { return };
        if mark <= answers.mark {
            return;
        }
        answers.mark = mark;
        while let Some(first) = answers.kept.first_entry()
            && *first.key() < mark
        {
            let (request, remembered) = first.remove_entry();
            if matches!(remembered, Remembered::Stored { .. }) {
                self.obsolete.push_back((session, request));
            }
        }
    }

    /// The session has ended.
    pub fn end(&mut self, session: SessionId) {
        let Some(answers) = self.sessions.remove(&session) else { return };
        for (request, remembered) in answers.kept {
            if matches!(remembered, Remembered::Stored { .. }) {
                self.obsolete.push_back((session, request));
            }
        }
    }

    /// A row without a session was found.
    pub fn discard(&mut self, session: SessionId, request: RequestId) {
        self.obsolete.push_back((session, request));
    }

    /// Takes rows to be removed from the store, at most `count`.
    pub fn take_obsolete(&mut self, count: usize) -> Vec<(SessionId, RequestId)> {
        let count = count.min(self.obsolete.len());
        self.obsolete.drain(..count).collect()
    }

    pub(crate) fn obsolete(&self) -> usize {
        self.obsolete.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.sessions.values().map(|answers| answers.kept.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_forgets_and_lists_rows() {
        let mut dedup = Dedup::default();
        let session = SessionId(1);
        for number in 1..=4 {
            dedup.insert(
                session,
                RequestId(number),
                Remembered::Stored { commit: Commit(number), fresh: true },
            );
        }
        dedup.finish(session, RequestId(3));
        dedup.finish(session, RequestId(2));
        assert_eq!(dedup.get(session, RequestId(2)), None);
        assert!(dedup.get(session, RequestId(3)).is_some());
        assert!(dedup.is_finished(session, RequestId(2)) && !dedup.is_finished(session, RequestId(3)));
        assert_eq!(dedup.take_obsolete(1), [(session, RequestId(1))]);
        dedup.end(session);
        assert_eq!(dedup.take_obsolete(9).len(), 3);
        assert_eq!((dedup.len(), dedup.obsolete()), (0, 0));
    }
}
