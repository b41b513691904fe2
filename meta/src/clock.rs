//! The one place of meta that reads a clock; everything below takes `now`.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use flexfs_wire::time::Time;

/// Monotonic time.
#[expect(clippy::disallowed_methods, reason = "meta's own clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Wall time, as files carry it.
#[expect(clippy::disallowed_methods, reason = "meta's own clock")]
pub(crate) fn wall() -> Time {
    let (secs, nanos) = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => (since.as_secs(), since.subsec_nanos()),
        // A clock before 1970 is a clock that is not set.
        Err(_) => (0, 0),
    };
    Time { secs: i64::try_from(secs).unwrap_or(i64::MAX), nanos }
}
