//! Positive answers of admin, kept for some seconds: a thousand nodes that mount at once ask once.
//! Negative answers are never kept: a token that was just made must work.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use flexfs_wire::settings::Access;

/// How long a positive answer holds.
const LIFE: Duration = Duration::from_secs(5);
/// Revoked tokens are remembered this long; no question to admin takes longer.
const REVOKED_KEPT: Duration = Duration::from_secs(60);
/// Most answers kept. Beyond it the cache starts anew: it only saves work.
const ENTRIES_MAX: usize = 10_000;

/// Key: SHA-256 over token and volume name; the token itself is not kept.
pub(crate) type Key = [u8; 32];

/// The answers.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    entries: HashMap<Key, (Instant, Access)>,
    /// Tokens that ended a moment ago: an answer of admin may still be on its way.
    revoked: HashMap<String, Instant>,
}

impl Cache {
    /// A fresh answer, if there is one.
    pub(crate) fn get(&self, key: &Key, now: Instant) -> Option<&Access> {
        let (at, access) = self.entries.get(key)?;
        (now.saturating_duration_since(*at) < LIFE).then_some(access)
    }

    /// Keeps the answer to a question of `asked`.
    pub(crate) fn put(&mut self, key: Key, access: Access, asked: Instant, now: Instant) {
        if self.is_revoked(&access.token_id, asked) {
            return;
        }
        if self.entries.len() >= ENTRIES_MAX {
            self.entries.retain(|_, (at, _)| now.saturating_duration_since(*at) < LIFE);
            if self.entries.len() >= ENTRIES_MAX {
                self.entries.clear();
            }
        }
        self.entries.insert(key, (now, access));
    }

    /// Forgets what a token was allowed: it was revoked.
    pub(crate) fn forget_token(&mut self, token_id: &str, now: Instant) {
        self.entries.retain(|_, (_, access)| access.token_id != token_id);
        self.revoked.retain(|_, at| now.saturating_duration_since(*at) < REVOKED_KEPT);
        self.revoked.insert(token_id.to_owned(), now);
    }

    /// Whether a token was revoked since it was asked about. It may be good again: a change of what it permits ends its
    /// sessions in the same way.
    pub(crate) fn is_revoked(&self, token_id: &str, asked: Instant) -> bool {
        self.revoked.get(token_id).is_some_and(|at| *at >= asked)
    }

    /// Forgets everything: settings changed, or events may have been missed.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flexfs_wire::settings::{Compression, Flags, VolumeSettings};

    fn access(token_id: &str) -> Access {
        Access {
            token_id: token_id.to_owned(),
            settings: VolumeSettings {
                id: "v".to_owned(),
                name: "v".to_owned(),
                block_size: 4 << 20,
                compression: Compression::None,
                max_blocks: 0,
                max_inodes: 0,
                retention: 0,
                flags: Flags::default(),
                encrypted: false,
            },
            scope: "/".to_owned(),
            flags: Flags::default(),
            expires_at: None,
            networks: flexfs_wire::network::Networks::default(),
            limits: flexfs_wire::settings::TokenLimits::default(),
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    fn answers_age_and_are_revoked() {
        let start = Instant::now();
        let mut cache = Cache::default();
        let later = start + Duration::from_secs(1);
        cache.put([1; 32], access("a"), start, start);
        cache.put([2; 32], access("b"), start, start);
        assert!(cache.get(&[1; 32], start + Duration::from_secs(4)).is_some());
        assert!(cache.get(&[1; 32], start + Duration::from_secs(5)).is_none());
        cache.forget_token("a", start);
        assert!(cache.get(&[1; 32], start).is_none());
        assert!(cache.get(&[2; 32], start).is_some());
        cache.put([1; 32], access("a"), start, later);
        assert!(
            cache.is_revoked("a", start) && cache.get(&[1; 32], later).is_none(),
            "an answer that came too late"
        );
        // It was only changed.
        cache.put([1; 32], access("a"), later, later);
        assert!(!cache.is_revoked("a", later) && cache.get(&[1; 32], later).is_some());
        cache.clear();
        assert!(cache.get(&[2; 32], start).is_none());
    }
}
