//! Waiting for the first of several futures, on one task.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

/// The output of whichever is ready first; the others are dropped. All are polled whenever one wakes, in this order.
pub(crate) async fn race<T>(
    a: impl Future<Output = T>,
    b: impl Future<Output = T>,
    c: impl Future<Output = T>,
    d: impl Future<Output = T>,
) -> T {
    let (mut a, mut b, mut c, mut d) = (pin!(a), pin!(b), pin!(c), pin!(d));
    poll_fn(|cx| {
        if let Poll::Ready(value) = a.as_mut().poll(cx) {
            return Poll::Ready(value);
        }
        if let Poll::Ready(value) = b.as_mut().poll(cx) {
            return Poll::Ready(value);
        }
        if let Poll::Ready(value) = c.as_mut().poll(cx) {
            return Poll::Ready(value);
        }
        d.as_mut().poll(cx)
    })
    .await
}
