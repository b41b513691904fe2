//! The limiters of a volume's tokens, without I/O and without a clock.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flexfs_wire::settings::TokenLimits;

use crate::limit::Limiter;

/// What admin said of a token is remembered this long: an older verdict may be on its way. Debts of a token without
/// sessions are, too: a new mount is not a fresh start.
const KEPT: Duration = Duration::from_secs(60);

/// Limiters by the id of the token.
#[derive(Debug, Default)]
pub(super) struct Limiters(HashMap<String, Entry>);

#[derive(Debug)]
struct Entry {
    limiter: Arc<Limiter>,
    /// When admin last said that they changed.
    told: Option<Instant>,
    /// When it was last asked for.
    used: Instant,
}

impl Entry {
    fn new(now: Instant) -> Self {
        Self { limiter: Arc::new(Limiter::new()), told: None, used: now }
    }
}

impl Limiters {
    /// The limiter of a token that opens a session. `limits` are those of its verdict.
    pub(super) fn of(&mut self, token: &str, limits: TokenLimits, now: Instant) -> Arc<Limiter> {
        let entry = self.0.entry(token.to_owned()).or_insert_with(|| Entry::new(now));
        entry.used = now;
        if entry.told.is_none_or(|at| now.saturating_duration_since(at) >= KEPT) {
            entry.limiter.set(limits, now);
        }
        entry.limiter.clone()
    }

    /// Admin says that limits changed. Whether a rate did.
    pub(super) fn handle_change(&mut self, token: &str, limits: TokenLimits, now: Instant) -> bool {
        let entry = self.0.entry(token.to_owned()).or_insert_with(|| Entry::new(now));
        (entry.told, entry.used) = (Some(now), now);
        entry.limiter.set(limits, now)
    }

    /// Admin says what limits there are: of all others there are none.
    pub(super) fn handle_all(&mut self, limits: &BTreeMap<String, TokenLimits>, now: Instant) {
        for (token, entry) in &mut self.0 {
            entry.limiter.set(limits.get(token).copied().unwrap_or_default(), now);
            entry.told = Some(now);
        }
    }

    /// Forgets those that nobody needs.
    pub(super) fn rest(&mut self, now: Instant) {
        self.0.retain(|_, entry| {
            Arc::strong_count(&entry.limiter) > 1 || now.saturating_duration_since(entry.used) < KEPT
        });
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need some instant to count from")]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts() {
        let (now, limit) = (Instant::now(), |ops| TokenLimits { ops_per_second: ops, ..Default::default() });
        let mut limiters = Limiters::default();
        let first = limiters.of("a", limit(1), now);
        assert!(Arc::ptr_eq(&first, &limiters.of("a", limit(2), now)));
        assert_eq!(first.limits(), limit(2), "a newer verdict");
        assert!(limiters.handle_change("a", limit(3), now) && !limiters.handle_change("a", limit(3), now));
        limiters.of("a", limit(2), now + Duration::from_secs(1));
        assert_eq!(first.limits(), limit(3), "a verdict of before the change came late");
        limiters.of("a", limit(4), now + KEPT);
        assert_eq!(first.limits(), limit(4));
        // Heard before any session.
        limiters.handle_change("b", limit(9), now);
        assert_eq!(limiters.of("b", limit(0), now).limits(), limit(9));

        limiters.handle_all(&BTreeMap::from([("b".to_owned(), limit(7))]), now + KEPT);
        assert_eq!((first.limits(), limiters.of("b", limit(0), now + KEPT).limits()), (limit(0), limit(7)));
        limiters.rest(now + 3 * KEPT);
        assert!(limiters.0.contains_key("a") && !limiters.0.contains_key("b"), "a has a session");
        drop(first);
        limiters.rest(now + 3 * KEPT);
        assert!(limiters.0.is_empty());
    }
}
