//! What the server's clock shows, as its answers tell it: for time stamps that are given here and that the server takes over.
//!
//! An answer tells when it was made, and comes a little later: what is concluded from it is behind the server's clock by that
//! time. The least of late answers counts, for a while. Where this machine's own clock shows about the same it is taken, for
//! programs compare with it.

use std::time::Duration;

use flexfs_wire::time::Time;

const NANOS_PER_SEC: i64 = 1_000_000_000;
/// An answer counts for this long; the server's clock may have been set since.
const KEPT: Duration = Duration::from_secs(10);
/// This machine's clock is taken when it is ahead by no more, nanoseconds.
const AHEAD_MAX: i64 = 100_000_000;

/// See the module. `elapsed` is time since the session began, which no setting of clocks changes.
#[derive(Debug, Default)]
pub(crate) struct ServerClock {
    /// Nanoseconds since 1970 when nothing had elapsed, and when that was told.
    best: Option<(i64, Duration)>,
}

impl ServerClock {
    /// The server answered a change that it made at `at`.
    pub(crate) fn handle_answer(&mut self, at: Time, elapsed: Duration) {
        let zero = nanos(at).saturating_sub(whole(elapsed));
        if self.best.is_none_or(|(best, told)| zero >= best || elapsed.saturating_sub(told) > KEPT) {
            self.best = Some((zero, elapsed));
        }
    }

    /// Now. `wall`: this machine's clock.
    pub(crate) fn now(&self, elapsed: Duration, wall: Time) -> Option<Time> {
        let (zero, _) = self.best?;
        let now = zero.saturating_add(whole(elapsed));
        if (0..=AHEAD_MAX).contains(&nanos(wall).saturating_sub(now)) {
            return Some(wall);
        }
        let part = u32::try_from(now.rem_euclid(NANOS_PER_SEC)).unwrap_or(0);
        Some(Time { secs: now.div_euclid(NANOS_PER_SEC), nanos: part })
    }
}

/// Nanoseconds since 1970; the ends of what an `i64` holds are in 1677 and 2262.
fn nanos(time: Time) -> i64 {
    time.secs.saturating_mul(NANOS_PER_SEC).saturating_add(time.nanos.into())
}

fn whole(elapsed: Duration) -> i64 {
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_late_answer_counts_and_the_own_clock_if_it_agrees() {
        let millis = Duration::from_millis;
        let at = |secs, millis: u32| Time { secs, nanos: millis * 1_000_000 };
        let mut clock = ServerClock::default();
        assert_eq!(clock.now(millis(0), at(5, 0)), None);
        clock.handle_answer(at(100, 0), millis(50));
        clock.handle_answer(at(100, 40), millis(60));
        clock.handle_answer(at(100, 41), millis(95));
        // At 60 ms it was 100.040.
        assert_eq!(clock.now(millis(80), at(7, 0)), Some(at(100, 60)), "another clock");
        assert_eq!(clock.now(millis(80), at(100, 61)), Some(at(100, 61)), "this one's");
        assert_eq!(clock.now(millis(80), at(100, 59)), Some(at(100, 60)), "never before the server's");
        // It was set back: a while later that is believed.
        clock.handle_answer(at(50, 0), millis(5_000));
        assert_eq!(clock.now(millis(5_000), at(7, 0)), Some(at(104, 980)));
        clock.handle_answer(at(60, 0), millis(15_000));
        assert_eq!(clock.now(millis(15_500), at(7, 0)), Some(at(60, 500)));
        let before = Time { secs: -1, nanos: 999_999_999 };
        let mut clock = ServerClock::default();
        clock.handle_answer(before, Duration::ZERO);
        assert_eq!(clock.now(Duration::ZERO, at(7, 0)), Some(before));
    }
}
