//! Points in time as files carry them.

use serde::{Deserialize, Serialize};

/// Wall time: seconds since 1970 (may be negative) and nanoseconds below one thousand million.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
pub struct Time {
    /// Seconds since the epoch.
    pub secs: i64,
    /// Nanoseconds, `0 .. 1_000_000_000`.
    pub nanos: u32,
}

/// Changes reported out of order are not further apart, seconds.
const REORDERED_MAX: i64 = 60;

impl Time {
    /// A time stamp after a change at `time`, whatever order several such changes come in: the latest of them. Only one
    /// that somebody has set to the future becomes `time`.
    #[must_use]
    pub fn touched(self, time: Self) -> Self {
        if self.secs > time.secs.saturating_add(REORDERED_MAX) { time } else { self.max(time) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_commute_and_the_future_ends() {
        let at = |secs, nanos| Time { secs, nanos };
        assert_eq!(at(5, 1).touched(at(5, 2)), at(5, 2));
        assert_eq!(at(5, 2).touched(at(5, 1)), at(5, 2));
        assert_eq!(at(65, 0).touched(at(5, 1)), at(65, 0));
        assert_eq!(at(4_000_000_000, 0).touched(at(5, 1)), at(5, 1));
    }
}
