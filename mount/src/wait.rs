//! Waiting: for several futures, for work that goes on when its caller leaves.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use flexfs_wire::errno::Errno;

use crate::cancel::{Cancel, or_cancel};

/// Runs `work` to its end on this shard, whether or not the caller stays. Changes of the server's state are made
/// in here: dropped half-way, nobody would know what the server did.
pub(crate) async fn to_the_end<T: 'static>(
    work: impl Future<Output = T> + 'static,
    cancel: Option<&Cancel>,
) -> Result<T, Errno> {
    or_cancel(flexfs_uring::spawn(work), cancel).await
}

/// Runs all futures at once; the outputs in their order. For a handful: each wake-up polls all that are not done.
pub(crate) async fn all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    if futures.len() == 1
        && let Some(only) = futures.pop()
    {
        return vec![only.await];
    }
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut done = true;
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none() {
                match future.as_mut().poll(cx) {
                    Poll::Ready(value) => *output = Some(value),
                    Poll::Pending => done = false,
                }
            }
        }
        if done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use flexfs_uring::{Shard, ShardConfig, yield_now};

    use super::*;

    #[test]
    fn outputs_keep_their_order() {
        let shard = Shard::new(&ShardConfig { recv_buffers: 0, ..ShardConfig::default() }).unwrap();
        let outputs = shard.block_on(all([3_u32, 1, 0, 2].map(|turns| async move {
            for _ in 0..turns {
                yield_now().await;
            }
            turns
        })));
        assert_eq!(outputs, [3, 1, 0, 2]);
    }

    #[test]
    fn work_goes_on_when_the_caller_leaves() {
        let shard = Shard::new(&ShardConfig { recv_buffers: 0, ..ShardConfig::default() }).unwrap();
        let done = std::rc::Rc::new(std::cell::Cell::new(false));
        shard.block_on(async {
            let cancel = Cancel::new();
            cancel.arm(1);
            cancel.raise_running();
            let inside = std::rc::Rc::clone(&done);
            let work = async move {
                yield_now().await;
                inside.set(true);
            };
            assert_eq!(to_the_end(work, Some(&cancel)).await, Err(Errno::EINTR));
            for _ in 0..4 {
                yield_now().await;
            }
        });
        assert!(done.get());
    }
}
