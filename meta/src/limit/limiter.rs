//! The limits of one token, shared by all its sessions on all cores.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use flexfs_wire::settings::TokenLimits;

use super::bucket::TokenBucket;

/// A rate that may be bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Requests.
    Ops,
    /// Bytes of files: of blocks, and of inline parts.
    Bytes,
}

/// When something may pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// From then on.
    pub(crate) at: Instant,
    /// Limits of then.
    generation: u64,
}

/// See the module. Only requests of limited tokens take the lock, for some arithmetic.
#[derive(Debug)]
pub(crate) struct Limiter {
    /// Whether there is any rate: all that a request of an unlimited token looks at.
    on: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limits: TokenLimits,
    /// Raised when a rate changes: turns of before are void.
    generation: u64,
    ops: Option<TokenBucket>,
    bytes: Option<TokenBucket>,
}

impl State {
    fn bucket(&mut self, limit: Limit) -> Option<&mut TokenBucket> {
        match limit {
            Limit::Ops => self.ops.as_mut(),
            Limit::Bytes => self.bytes.as_mut(),
        }
    }
}

impl Limiter {
    /// One that bounds nothing.
    pub(crate) fn new() -> Self {
        let limits = TokenLimits::default();
        let state = State { limits, generation: 0, ops: None, bytes: None };
        Self { on: AtomicBool::new(false), state: Mutex::new(state) }
    }

    /// Puts limits in force. Whether a rate changed: what waits has to look again. A rate that stays keeps its debts.
    pub(crate) fn set(&self, limits: TokenLimits, now: Instant) -> bool {
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.limits, limits);
        let bucket = |rate| NonZeroU64::new(rate).map(|rate| TokenBucket::new(rate, now));
        let (ops, bytes) = (
            before.ops_per_second != limits.ops_per_second,
            before.bytes_per_second != limits.bytes_per_second,
        );
        if ops {
            state.ops = bucket(limits.ops_per_second.into());
        }
        if bytes {
            state.bytes = bucket(limits.bytes_per_second);
        }
        if ops || bytes {
            state.generation += 1;
            self.on.store(state.ops.is_some() || state.bytes.is_some(), Ordering::Relaxed);
        }
        ops || bytes
    }

    /// The limits in force.
    pub(crate) fn limits(&self) -> TokenLimits {
        self.lock().limits
    }

    /// Whether there is any rate.
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Takes `amount`; `None` when that rate is not bounded.
    pub(crate) fn reserve(&self, limit: Limit, amount: u64, now: Instant) -> Option<Turn> {
        let mut state = self.lock();
        let generation = state.generation;
        let at = state.bucket(limit)?.reserve(amount, now);
        Some(Turn { at, generation })
    }

    /// Whether a turn was given under the limits of now.
    pub(crate) fn is_current(&self, turn: Turn) -> bool {
        self.lock().generation == turn.generation
    }

    /// Some of what was taken did not pass.
    pub(crate) fn give_back(&self, limit: Limit, amount: u64) {
        if let Some(bucket) = self.lock().bucket(limit) {
            bucket.give_back(amount);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need some instant to count from")]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn changes_hold_at_once_and_what_stays_keeps_its_debts() {
        let now = Instant::now();
        let limiter = Limiter::new();
        assert!(!limiter.is_on() && limiter.reserve(Limit::Ops, 1, now).is_none());
        let slow = TokenLimits { max_sessions: 0, ops_per_second: 1, bytes_per_second: 0 };
        assert!(limiter.set(slow, now) && limiter.is_on());
        let turn = (0..10).filter_map(|_| limiter.reserve(Limit::Ops, 1, now)).last().unwrap();
        assert!(turn.at >= now + Duration::from_secs(8), "{:?}", turn.at - now);
        assert!(limiter.reserve(Limit::Bytes, 1, now).is_none());

        // Sessions may be more now; the debts are the same.
        assert!(!limiter.set(TokenLimits { max_sessions: 5, ..slow }, now) && limiter.is_current(turn));
        assert_eq!(limiter.limits().max_sessions, 5);
        let fast = TokenLimits { ops_per_second: 1000, ..slow };
        assert!(limiter.set(fast, now) && !limiter.is_current(turn));
        assert_eq!(limiter.reserve(Limit::Ops, 1, now).unwrap().at, now);
        assert!(limiter.set(TokenLimits::default(), now) && !limiter.is_on());
    }
}
