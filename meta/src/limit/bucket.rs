//! A token bucket: pure, takes `now`.
//!
//! It is kept as the point of time up to which everything that passed is paid for by the rate. Behind `now` that is credit,
//! at most [`BURST`] of it; ahead of `now` it is debt, and whoever comes waits for it. What passes may cost more than there is
//! credit: it passes when there is no debt, and leaves some. So any amount passes some time, and within any interval no more
//! than the rate allows for the interval and the burst, and one amount more.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// After a rest so much of the rate may pass at once: enough for the stir of a program that starts.
pub(super) const BURST: Duration = Duration::from_secs(1);
const NANOS: u128 = 1_000_000_000;

/// See the module.
#[derive(Debug)]
pub(super) struct TokenBucket {
    /// Per second.
    rate: NonZeroU64,
    born: Instant,
    /// Paid up to here: nanoseconds since one burst before `born`.
    paid: u64,
}

impl TokenBucket {
    /// A full one. `rate` is per second.
    pub(super) fn new(rate: NonZeroU64, now: Instant) -> Self {
        Self { rate, born: now, paid: 0 }
    }

    /// Takes `amount`; when it may pass. Turns go up: who asks later is not let in before.
    pub(super) fn reserve(&mut self, amount: u64, now: Instant) -> Instant {
        let at = self.at(now);
        let begin = self.paid.max(at.saturating_sub(nanos(BURST)));
        self.paid = begin.saturating_add(self.cost(amount));
        now.checked_add(Duration::from_nanos(begin.saturating_sub(at))).unwrap_or(now)
    }

    /// Some of what was taken did not pass.
    pub(super) fn give_back(&mut self, amount: u64) {
        self.paid = self.paid.saturating_sub(self.cost(amount));
    }

    fn at(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.born)).saturating_add(nanos(BURST))
    }

    /// Time in which the rate gives `amount`, nanoseconds, rounded up.
    fn cost(&self, amount: u64) -> u64 {
        let cost = (u128::from(amount) * NANOS).div_ceil(u128::from(self.rate.get()));
        u64::try_from(cost).unwrap_or(u64::MAX)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need some instant to count from")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bucket(rate: u64, now: Instant) -> TokenBucket {
        TokenBucket::new(NonZeroU64::new(rate).unwrap(), now)
    }

    #[test]
    fn a_burst_then_the_rate() {
        let start = Instant::now();
        let mut bucket = bucket(50, start);
        let waits: Vec<u128> =
            (0..60).map(|_| bucket.reserve(1, start).duration_since(start).as_millis()).collect();
        assert!(waits[..51].iter().all(|wait| *wait == 0), "{waits:?}");
        assert_eq!(waits[51..54], [20, 40, 60]);
        // A rest longer than the burst gives no more than the burst.
        let later = start + Duration::from_secs(100);
        let at_once = (0..).take_while(|_| bucket.reserve(1, later) == later).count();
        assert_eq!(at_once, 51);
    }

    #[test]
    fn what_is_larger_than_the_bucket_passes_and_leaves_a_debt() {
        let start = Instant::now();
        let mut bucket = bucket(65_536, start);
        assert_eq!(bucket.reserve(8 << 20, start), start);
        let next = bucket.reserve(1, start).duration_since(start);
        assert_eq!(next, Duration::from_secs(128) - BURST);
        bucket.give_back(4 << 20);
        assert!(bucket.reserve(1, start).duration_since(start) <= Duration::from_secs(64));
    }

    #[test]
    fn no_amount_is_too_large() {
        let start = Instant::now();
        let mut bucket = bucket(1, start);
        for amount in [0, u64::MAX, u64::MAX, 1] {
            assert!(bucket.reserve(amount, start) >= start);
        }
    }

    /// Rate, and requests: milliseconds since the one before, amount.
    fn traffic() -> impl Strategy<Value = (u64, Vec<(u64, u64)>)> {
        let amount = prop_oneof![Just(1), 0u64..100, 0u64..20_000];
        (1u64..5_000, prop::collection::vec((prop_oneof![Just(0), 0u64..3_000], amount), 1..80))
    }

    proptest! {
        #[test]
        fn over_any_interval_no_more_than_the_rate_and_the_burst((rate, requests) in traffic()) {
            let start = Instant::now();
            let (mut now, mut bucket) = (start, bucket(rate, start));
            let passes: Vec<(Instant, u64)> = requests.iter().map(|(pause, amount)| {
                now += Duration::from_millis(*pause);
                (bucket.reserve(*amount, now), *amount)
            }).collect();
            for (first, (from, _)) in passes.iter().enumerate() {
                let mut sum = 0u128;
                for (to, amount) in &passes[first..] {
                    prop_assert!(to >= from, "turns go up");
                    // The last one may be larger than what is left.
                    let allowed = u128::from(rate) * (to.duration_since(*from) + BURST).as_nanos();
                    prop_assert!(sum * NANOS <= allowed, "{sum} within {:?} at {rate}/s", to.duration_since(*from));
                    sum += u128::from(*amount);
                }
            }
        }

        #[test]
        fn nobody_waits_longer_than_those_before_take((rate, requests) in traffic()) {
            let start = Instant::now();
            let (mut now, mut bucket, mut before) = (start, bucket(rate, start), 0u128);
            for (pause, amount) in &requests {
                now += Duration::from_millis(*pause);
                let wait = bucket.reserve(*amount, now).duration_since(now);
                // Each cost is rounded up to a nanosecond.
                let most = before * NANOS / u128::from(rate) + requests.len() as u128;
                prop_assert!(wait.as_nanos() <= most, "{wait:?} behind {before} at {rate}/s");
                before += u128::from(*amount);
            }
        }
    }
}
