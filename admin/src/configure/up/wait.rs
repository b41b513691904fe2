//! Waiting with a limit.

use std::thread::sleep;
use std::time::Duration;

/// Time between two looks.
const STEP: Duration = Duration::from_millis(50);

/// Looks until there is an answer; `None` when `limit` has passed without one.
///
/// # Errors
/// What `look` says.
pub(crate) fn until<T>(
    limit: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<Option<T>> {
    let steps = limit.as_millis().div_ceil(STEP.as_millis());
    for _ in 0..steps {
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        sleep(STEP);
    }
    look()
}
