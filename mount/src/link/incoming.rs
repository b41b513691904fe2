//! A payload on its way in, read by whoever asked for it.
//!
//! Only the reading task of a link receives; but a payload belongs into memory that another task has borrowed (a FUSE
//! request's buffer), and no task can lend such memory to another. So the receiving half itself is lent: the link's task
//! decodes the frame, hands an [`Incoming`] to the caller and waits until it comes back; the caller opens the payload's
//! records straight to their place. Nobody else's answer on this link moves meanwhile, so the holder must wait for
//! nothing but these bytes. Dropping it early is fine: the link's task throws the rest away.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use super::error::LinkError;
use super::rx::Rx;

/// The link ended before the payload did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

/// Whether the receiving half is lent, and what was left unread.
#[derive(Debug, Default)]
pub(crate) struct Loan {
    lent: Cell<bool>,
    unread: Cell<usize>,
    failed: RefCell<Option<LinkError>>,
    waker: RefCell<Option<Waker>>,
}

impl Loan {
    /// Lends `rx` for the `bytes` of a payload.
    pub(crate) fn lend(self: &Rc<Self>, rx: &Rc<RefCell<Rx>>, bytes: usize) -> Incoming {
        self.lent.set(true);
        self.unread.set(bytes);
        Incoming { loan: Rc::clone(self), rx: Rc::clone(rx) }
    }

    /// Waits for the receiving half; gives the number of payload bytes to throw away.
    pub(crate) fn poll_back(&self, cx: &Context<'_>) -> Poll<Result<usize, LinkError>> {
        if self.lent.get() {
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(match self.failed.borrow_mut().take() {
            Some(error) => Err(error),
            None => Ok(self.unread.take()),
        })
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Incoming {
    loan: Rc<Loan>,
    rx: Rc<RefCell<Rx>>,
}

impl Incoming {
    /// Bytes not read yet.
    pub(crate) fn left(&self) -> usize {
        self.loan.unread.get()
    }

    /// Fills `out`, which must not be longer than what is left.
    pub(crate) async fn read(&mut self, out: &mut [u8]) -> Result<(), Broken> {
        let mut done = 0;
        poll_fn(|cx| self.poll_fill(out, &mut done, cx)).await
    }

    fn poll_fill(&self, out: &mut [u8], done: &mut usize, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if out.len() - *done > self.left() {
            return Poll::Ready(Err(Broken));
        }
        let mut rx = self.rx.borrow_mut();
        while *done < out.len() {
            match ready!(rx.poll_read(&mut out[*done..], cx)) {
                Ok(bytes) => {
                    *done += bytes;
                    self.loan.unread.set(self.loan.unread.get() - bytes);
                }
                Err(error) => {
                    *self.loan.failed.borrow_mut() = Some(error);
                    return Poll::Ready(Err(Broken));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.loan.lent.set(false);
        let waker = self.loan.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
