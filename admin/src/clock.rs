//! The one place of admin that reads the time.

use std::time::SystemTime;

/// Wall time.
#[expect(clippy::disallowed_methods, reason = "admin's clock; logic below takes `now`")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// Wall time in whole seconds since 1970; 0 on a machine whose clock is before that.
pub(crate) fn now() -> i64 {
    let since = wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
