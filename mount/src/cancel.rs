//! A wish to stop, from the kernel's INTERRUPT to whatever a request waits for.
//!
//! One `Cancel` belongs to one place a request can run in (a FUSE entry, a fallback request) and is used again for
//! the next request there: arming costs one store, no allocation. The INTERRUPT arrives on another core, so it is
//! shared; it names the request by the kernel's `unique`, which is never reused and never 0.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use event_listener::Event;
use flexfs_wire::errno::Errno;

/// Tells the request that runs in one place that its caller no longer waits for it.
#[derive(Debug, Default)]
pub struct Cancel {
    /// `unique` of the request that runs here, 0 between requests.
    running: AtomicU64,
    /// `unique` of the last request that was asked to stop here.
    raised: AtomicU64,
    event: Event,
}

impl Cancel {
    /// With nothing running.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A request begins here.
    pub fn arm(&self, unique: u64) {
        self.running.store(unique, Ordering::SeqCst);
    }

    /// The request that ran here was answered.
    pub fn disarm(&self) {
        self.running.store(0, Ordering::SeqCst);
    }

    /// Asks `unique` to stop. False when it does not run here (any more).
    pub fn raise(&self, unique: u64) -> bool {
        if unique == 0 || self.running.load(Ordering::SeqCst) != unique {
            return false;
        }
        self.raised.store(unique, Ordering::SeqCst);
        self.event.notify(usize::MAX);
        true
    }

    /// Asks whatever runs here to stop.
    pub fn raise_running(&self) -> bool {
        self.raise(self.running.load(Ordering::SeqCst))
    }

    /// `unique` of what runs here, 0 for nothing.
    #[must_use]
    pub fn running(&self) -> u64 {
        self.running.load(Ordering::SeqCst)
    }

    /// Whether the request that runs here was asked to stop.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        let running = self.running.load(Ordering::SeqCst);
        running != 0 && self.raised.load(Ordering::SeqCst) == running
    }

    /// Resolves when the request that runs here is asked to stop; at once when it was. Safe to drop and call again.
    pub async fn raised(&self) {
        loop {
            if self.is_raised() {
                return;
            }
            let listener = self.event.listen();
            // A raise between the check and `listen` would be missed otherwise.
            if self.is_raised() {
                return;
            }
            listener.await;
        }
    }
}

/// `future`'s output, or `EINTR` when `cancel` is raised first.
pub(crate) async fn or_cancel<F: Future>(future: F, cancel: Option<&Cancel>) -> Result<F::Output, Errno> {
    let Some(cancel) = cancel else { return Ok(future.await) };
    let mut future = pin!(future);
    let mut raised = pin!(cancel.raised());
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        raised.as_mut().poll(cx).map(|()| Err(Errno::EINTR))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_running_request_can_be_stopped() {
        let cancel = Cancel::new();
        assert!(!cancel.raise(0) && !cancel.raise(4) && !cancel.is_raised());
        cancel.arm(4);
        assert!(!cancel.raise(6) && !cancel.is_raised());
        assert!(cancel.raise(4) && cancel.is_raised());
        cancel.disarm();
        assert!(!cancel.is_raised());
        cancel.arm(6);
        assert!(!cancel.is_raised());
        assert!(cancel.raise_running() && cancel.is_raised());
    }
}
