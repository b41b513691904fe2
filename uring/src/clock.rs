//! The only place that reads time. Protocol and namespace logic takes `now` as an argument.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time, for deadlines and ages.
#[expect(clippy::disallowed_methods, reason = "this is the one function the ban points to")]
pub fn now() -> Instant {
    Instant::now()
}

/// Calendar time, for timestamps that users see. It may jump; never measure with it.
#[expect(clippy::disallowed_methods, reason = "this is the one function the ban points to")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Calendar time as seconds since 1970 (negative before) and nanoseconds within the second, as `struct timespec`.
pub fn wall_parts() -> (i64, u32) {
    parts(wall())
}

/// Splits a time as `struct timespec` does: nanoseconds always count upwards, also before 1970.
pub fn parts(time: SystemTime) -> (i64, u32) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos()),
        Err(error) => {
            let before = error.duration();
            let whole = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => (-whole, 0),
                nanos => (-whole - 1, 1_000_000_000 - nanos),
            }
        }
    }
}

/// What is left until `deadline`; zero when it has passed.
pub fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_count_upwards_on_both_sides_of_1970() {
        assert_eq!(parts(UNIX_EPOCH), (0, 0));
        assert_eq!(parts(UNIX_EPOCH + Duration::new(5, 7)), (5, 7));
        assert_eq!(parts(UNIX_EPOCH - Duration::new(1, 0)), (-1, 0));
        assert_eq!(parts(UNIX_EPOCH - Duration::new(1, 1)), (-2, 999_999_999));
    }

    #[test]
    fn monotonic_time_does_not_go_back() {
        let earlier = now();
        assert!(now() >= earlier);
        assert_eq!(until(earlier), Duration::ZERO);
    }
}
