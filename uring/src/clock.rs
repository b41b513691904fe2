//! The only place that reads time. Protocol and namespace logic takes `now` as an argument.
//!
//! A thread that simulates has a [`Virtual`] clock: time stands still while its shard has something to do, and jumps to
//! the next timer when it has not. No other thread is touched by it.

use std::cell::Cell;
use std::marker::PhantomData;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

thread_local! {
    /// Where the thread's virtual clock began, and how far it is.
    static VIRTUAL: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
}

/// What calendars show where virtual time begins, since 1970.
const VIRTUAL_WALL: Duration = Duration::from_secs(2_000_000_000);

/// Monotonic time, for deadlines and ages.
pub fn now() -> Instant {
    match VIRTUAL.get() {
        Some((began, passed)) => began + passed,
        None => real_now(),
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one function the ban points to")]
fn real_now() -> Instant {
    Instant::now()
}

/// Calendar time, for timestamps that users see. It may jump; never measure with it.
#[expect(clippy::disallowed_methods, reason = "this is the one function the ban points to")]
pub fn wall() -> SystemTime {
    match VIRTUAL.get() {
        Some((_, passed)) => UNIX_EPOCH + VIRTUAL_WALL + passed,
        None => SystemTime::now(),
    }
}

/// The calling thread's time is virtual until this is dropped.
#[derive(Debug)]
pub struct Virtual {
    /// It is the thread's.
    not_send: PhantomData<*const ()>,
}

impl Virtual {
    /// Begins, at the same calendar time always.
    ///
    /// # Panics
    /// When the thread's time is virtual already.
    #[must_use]
    pub fn begin() -> Self {
        assert!(VIRTUAL.get().is_none(), "the thread's time is virtual already");
        VIRTUAL.set(Some((real_now(), Duration::ZERO)));
        Self { not_send: PhantomData }
    }

    /// How much time has passed.
    #[must_use]
    pub fn passed(&self) -> Duration {
        VIRTUAL.get().map(|(_, passed)| passed).unwrap_or_default()
    }
}

impl Drop for Virtual {
    fn drop(&mut self) {
        VIRTUAL.set(None);
    }
}

/// Whether the thread's time is virtual.
pub(crate) fn is_virtual() -> bool {
    VIRTUAL.get().is_some()
}

/// Virtual time goes on to `until`; never back. Real time does as it likes.
pub(crate) fn jump(until: Instant) {
    if let Some((began, passed)) = VIRTUAL.get() {
        VIRTUAL.set(Some((began, passed.max(until.saturating_duration_since(began)))));
    }
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
    fn virtual_time_stands_still_and_jumps() {
        let clock = Virtual::begin();
        let (start, wall) = (now(), wall_parts());
        assert_eq!((now(), wall_parts()), (start, wall));
        jump(start + Duration::from_secs(7));
        jump(start + Duration::from_secs(5));
        assert_eq!((now() - start, clock.passed()), (Duration::from_secs(7), Duration::from_secs(7)));
        assert_eq!(wall_parts(), (wall.0 + 7, wall.1));
        drop(clock);
        assert!(!is_virtual());
    }

    #[test]
    fn monotonic_time_does_not_go_back() {
        let earlier = now();
        assert!(now() >= earlier);
        assert_eq!(until(earlier), Duration::ZERO);
    }
}
