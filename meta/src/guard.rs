//! Bounds on what strangers may cost before they are known: handshakes at once, per address and in all, and log lines.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Handshakes at once from one address: a large node opens one link per core, all at once.
const PER_ADDRESS_MAX: u32 = 256;
/// Handshakes at once in all; each holds some 20 KiB.
const TOTAL_MAX: u32 = 4096;
/// Lines about failed handshakes per second; the rest is only counted.
const LINES_PER_SECOND: u32 = 20;

/// Shared by all cores; asked once per connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Guard(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    total: u32,
    addresses: HashMap<IpAddr, u32>,
    second: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

/// A handshake in progress; its place is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    guard: Guard,
    address: IpAddr,
}

/// Whether a line may be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Write it, and that so many were left out before it.
    Write { left_out: u64 },
    /// Leave it out.
    Skip,
}

impl Guard {
    /// A place for one handshake, if there is one.
    pub(crate) fn enter(&self, address: IpAddr) -> Option<Permit> {
        let mut state = self.lock();
        if state.total >= TOTAL_MAX {
            return None;
        }
        let count = state.addresses.entry(address).or_insert(0);
        if *count >= PER_ADDRESS_MAX {
            return None;
        }
        *count += 1;
        state.total += 1;
        Some(Permit { guard: self.clone(), address })
    }

    /// Whether a log line about a stranger may be written now.
    pub(crate) fn line(&self, now: Instant) -> Line {
        let mut state = self.lock();
        let fresh = match state.second {
            Some(start) => now.saturating_duration_since(start) >= Duration::from_secs(1),
            None => true,
        };
        if fresh {
            state.second = Some(now);
            state.lines = 0;
        }
        if state.lines >= LINES_PER_SECOND {
            state.suppressed += 1;
            return Line::Skip;
        }
        state.lines += 1;
        Line::Write { left_out: std::mem::take(&mut state.suppressed) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Counters only; a panic elsewhere cannot leave them half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.guard.lock();
        state.total = state.total.saturating_sub(1);
        if let Some(count) = state.addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                state.addresses.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let guard = Guard::default();
        let one = IpAddr::from([1, 1, 1, 1]);
        let mut permits: Vec<_> = (0..PER_ADDRESS_MAX).map(|_| guard.enter(one).unwrap()).collect();
        assert!(guard.enter(one).is_none());
        assert!(guard.enter(IpAddr::from([2, 2, 2, 2])).is_some());
        permits.pop();
        assert!(guard.enter(one).is_some());
        permits.clear();
        assert!(guard.lock().addresses.is_empty());
        assert_eq!(guard.lock().total, 0);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    fn lines_are_bounded() {
        let guard = Guard::default();
        let start = Instant::now();
        for _ in 0..LINES_PER_SECOND {
            assert_eq!(guard.line(start), Line::Write { left_out: 0 });
        }
        assert_eq!(guard.line(start), Line::Skip);
        assert_eq!(guard.line(start + Duration::from_secs(1)), Line::Write { left_out: 1 });
    }
}
