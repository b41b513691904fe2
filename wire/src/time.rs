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
