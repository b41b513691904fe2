//! Time, read in one place.

use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

/// Now.
#[expect(clippy::disallowed_methods, reason = "tests measure real processes; no protocol logic here")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Calendar time, nanoseconds since 1970, as files carry it.
#[expect(clippy::disallowed_methods, reason = "tests compare it with what files carry")]
pub(crate) fn wall() -> i128 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i128::try_from(since.as_nanos()).unwrap()
}

/// Asks `probe` again and again until it says yes; whether it did within `limit`.
pub(crate) fn soon(limit: Duration, mut probe: impl FnMut() -> bool) -> bool {
    let start = now();
    loop {
        if probe() {
            return true;
        }
        if start.elapsed() >= limit {
            return false;
        }
        sleep(Duration::from_millis(10));
    }
}

/// Runs `work` on a thread of its own and gives its result, or panics after `limit`: for system calls that might
/// not come back. The thread is left behind then; the watchdog of its cluster frees it.
pub(crate) fn within<T: Send + 'static>(
    limit: Duration,
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (send, receive) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let result = work();
        // The receiver is gone when the limit has passed: nobody is interested any more.
        let _ = send.send(());
        result
    });
    match receive.recv_timeout(limit) {
        Ok(()) | Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        },
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("{what}: still running after {limit:?}"),
    }
}
