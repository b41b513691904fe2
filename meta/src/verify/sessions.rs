//! Sessions, their grants and answers.

use std::collections::BTreeSet;

use flexfs_wire::errno::Errno;

use super::facts::{Facts, each};
use super::report::Report;
use crate::engine::Store;
use crate::engine::key::{self, Granted, Tag};
use crate::namespace::record::{Grant, Kept, decode};

pub(super) fn check(store: &impl Store, facts: &Facts, report: &mut Report) -> Result<(), Errno> {
    let mut sessions = BTreeSet::new();
    each(store, Tag::Session, &mut |row, _| {
        sessions.insert(key::number(row, 1).unwrap_or(0));
    })?;
    report.sessions = sessions.len() as u64;
    for session in &sessions {
        report.check((1..facts.state.next_session).contains(session), || {
            format!("session {session} was never opened")
        });
    }
    let mut granted: Vec<(u8, u64, u64)> = Vec::new();
    each(store, Tag::Grant, &mut |row, value| {
        let session = key::number(row, 1).unwrap_or(0);
        let start = key::number(row, 10).unwrap_or(0);
        let kind = row.get(9).copied().unwrap_or(u8::MAX);
        report.check(sessions.contains(&session), || {
            format!("a grant of session {session}, which is not there")
        });
        match Grant::decode(value) {
            Ok(grant) => granted.push((kind, start, start.saturating_add(grant.count))),
            Err(_) => report.problem(|| format!("session {session}: a grant cannot be read")),
        }
    })?;
    granted.sort_unstable();
    for pair in granted.windows(2) {
        let overlap = pair[0].0 == pair[1].0 && pair[1].1 < pair[0].2;
        report.check(!overlap, || format!("numbers from {} on were granted twice", pair[1].1));
    }
    for (kind, start, end) in granted {
        let next = if kind == Granted::Blocks as u8 { facts.state.next_block } else { facts.state.next_ino };
        report
            .check(end <= next, || format!("numbers {start}..{end} were granted, the counter is at {next}"));
    }
    each(store, Tag::Dedup, &mut |row, value| {
        // Rows of sessions that have ended are removed in the background.
        report.check(row.len() == 17 && decode::<Kept>(value).is_ok(), || {
            format!("session {}: a kept answer cannot be read", key::number(row, 1).unwrap_or(0))
        });
    })
}
