//! Timers of a shard. Waiting for them is the timeout of the ring's wait, no operation of their own.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::clock;
use crate::shard::{Core, current};

/// Names a timer: its deadline, then the order of setting.
type TimerKey = (Instant, u64);

/// The timers that are set.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    set: BTreeMap<TimerKey, Waker>,
    next: u64,
}

impl Timers {
    fn insert(&mut self, deadline: Instant, waker: Waker) -> TimerKey {
        let key = (deadline, self.next);
        self.next += 1;
        self.set.insert(key, waker);
        key
    }

    /// When the earliest timer is due.
    pub(crate) fn earliest(&self) -> Option<Instant> {
        self.set.first_key_value().map(|(key, _)| key.0)
    }

    /// Takes the earliest timer that is due at `now`.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Waker> {
        let entry = self.set.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }
}

/// The time given to [`timeout`] passed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the deadline has passed")]
pub struct Elapsed;

/// A wait for a point in time; made by [`sleep`] and [`sleep_until`].
pub struct Sleep {
    deadline: Instant,
    set: Option<(Rc<Core>, TimerKey)>,
}

impl Sleep {
    /// When it is due.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }
}

/// Waits for `duration`. Durations beyond the clock's range wait for ever.
pub fn sleep(duration: Duration) -> Sleep {
    // A century stands for ever: Instant has no maximum to name.
    let now = clock::now();
    sleep_until(now.checked_add(duration).unwrap_or_else(|| now + Duration::from_secs(3_155_760_000)))
}

/// Waits until `deadline`; ready at once when it has passed.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, set: None }
}

/// Waits for `future`, at most for `duration`. When the time passes first, the future is dropped.
///
/// # Errors
/// [`Elapsed`] when the time passed first. A future that is ready at the same moment wins.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut sleep = sleep(duration);
    poll_fn(move |cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Ok(value)),
        Poll::Pending => Pin::new(&mut sleep).poll(cx).map(|()| Err(Elapsed)),
    })
    .await
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if clock::now() >= self.deadline {
            return Poll::Ready(());
        }
        match &self.set {
            Some((core, key)) => {
                let mut timers = core.timers.borrow_mut();
                match timers.set.get_mut(key) {
                    Some(waker) if waker.will_wake(cx.waker()) => {}
                    _ => {
                        timers.set.insert(*key, cx.waker().clone());
                    }
                }
            }
            None => {
                let core = current();
                let key = core.timers.borrow_mut().insert(self.deadline, cx.waker().clone());
                self.set = Some((core, key));
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some((core, key)) = self.set.take() {
            // Taken out before it is dropped: a waker's drop may be anybody's code.
            let waker = core.timers.borrow_mut().set.remove(&key);
            drop(waker);
        }
    }
}

impl std::fmt::Debug for Sleep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sleep").field("deadline", &self.deadline).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_in_order_of_deadline_then_of_setting() {
        let mut timers = Timers::default();
        let start = clock::now();
        let at = |ms| start + Duration::from_millis(ms);
        let late = timers.insert(at(20), Waker::noop().clone());
        let early = timers.insert(at(10), Waker::noop().clone());
        let second = timers.insert(at(10), Waker::noop().clone());
        assert!(early < second && second < late);
        assert_eq!(timers.earliest(), Some(at(10)));
        assert!(timers.take_due(at(9)).is_none());
        assert!(timers.take_due(at(10)).is_some());
        assert!(timers.take_due(at(10)).is_some());
        assert!(timers.take_due(at(10)).is_none());
        assert_eq!(timers.earliest(), Some(at(20)));
    }
}
