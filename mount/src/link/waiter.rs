//! Where the answer to one call is left for its caller.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use flexfs_wire::errno::Errno;
use flexfs_wire::lease::Leases;
use flexfs_wire::message::Reply;

use super::incoming::Incoming;

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The answer's result, or the errno that ended it.
    pub(crate) result: Result<Reply, Errno>,
    /// The payload behind the answer.
    pub(crate) payload: Option<Incoming>,
    /// What the answer grants.
    pub(crate) leases: Leases,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Waiter {
    outcome: RefCell<Option<Outcome>>,
    waker: RefCell<Option<Waker>>,
    /// Whether the caller takes a payload.
    pub(crate) takes_payload: bool,
    /// When the call was made, for a part of the calls: the measured ones.
    pub(crate) began: Cell<Option<Instant>>,
}

impl Waiter {
    /// Nothing has come yet.
    pub(crate) fn new(takes_payload: bool) -> Rc<Self> {
        Rc::new(Self {
            outcome: RefCell::new(None),
            waker: RefCell::new(None),
            takes_payload,
            began: Cell::new(None),
        })
    }

    /// Leaves the outcome and wakes the caller.
    pub(crate) fn finish(&self, outcome: Outcome) {
        *self.outcome.borrow_mut() = Some(outcome);
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes the outcome.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<Outcome> {
        if let Some(outcome) = self.outcome.borrow_mut().take() {
            return Poll::Ready(outcome);
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}
