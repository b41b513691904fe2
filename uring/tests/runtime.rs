//! The executor, timers, wakers across threads, and leaving with everything in flight.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking; its patterns are cut to bytes")]

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};
use std::time::Duration;

use flexfs_uring::file::EventFd;
use flexfs_uring::timer::{self, sleep, timeout};
use flexfs_uring::{Shard, ShardConfig, ShardHandle, clock, handle, spawn, yield_now};

fn shard() -> Shard {
    Shard::new(&ShardConfig { sq_entries: 16, recv_buffers: 4, ..ShardConfig::default() }).unwrap()
}

/// A flag that any thread may set and one task waits for.
#[derive(Default)]
struct Flag {
    set: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Flag {
    fn set(&self) {
        self.set.store(true, Ordering::Release);
        if let Some(waker) = self.waker.lock().unwrap().take() {
            waker.wake();
        }
    }

    async fn wait(&self) {
        poll_fn(|cx| {
            *self.waker.lock().unwrap() = Some(cx.waker().clone());
            if self.set.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

#[test]
fn tasks_run_in_turn_and_give_their_output() {
    let order = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&order);
    let sum = shard().block_on(async move {
        let tasks: Vec<_> = (0..3)
            .map(|id| {
                let log = Rc::clone(&log);
                spawn(async move {
                    for round in 0..2 {
                        log.borrow_mut().push((round, id));
                        yield_now().await;
                    }
                    id
                })
            })
            .collect();
        let mut sum = 0;
        for task in tasks {
            sum += task.await;
        }
        sum
    });
    assert_eq!(sum, 3);
    assert_eq!(*order.borrow(), [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
}

#[test]
fn timers_fire_in_order_and_not_early() {
    shard().block_on(async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let start = clock::now();
        let tasks: Vec<_> = [30_u64, 10, 20, 10]
            .into_iter()
            .map(|ms| {
                let order = Rc::clone(&order);
                spawn(async move {
                    sleep(Duration::from_millis(ms)).await;
                    assert!(clock::now() - start >= Duration::from_millis(ms));
                    order.borrow_mut().push(ms);
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
        assert_eq!(*order.borrow(), [10, 10, 20, 30]);
        timer::sleep_until(start).await;
    });
}

#[test]
fn a_timeout_drops_what_was_too_slow_and_keeps_what_was_not() {
    shard().block_on(async {
        assert!(timeout(Duration::from_millis(5), sleep(Duration::from_secs(60))).await.is_err());
        assert_eq!(timeout(Duration::from_secs(60), async { 7 }).await, Ok(7));
        assert!(timeout(Duration::MAX, sleep(Duration::from_millis(1))).await.is_ok());
        // An operation of the ring, cancelled by the timeout; then the descriptor still works.
        let event = EventFd::new().unwrap();
        assert!(timeout(Duration::from_millis(5), event.wait()).await.is_err());
        // The cancelled read is gone from the kernel after a turn or two and cannot steal the count.
        sleep(Duration::from_millis(5)).await;
        event.notify().unwrap();
        event.notify().unwrap();
        assert_eq!(timeout(Duration::from_secs(5), event.wait()).await.unwrap().unwrap(), 2);
    });
}

#[test]
fn an_aborted_task_is_dropped_at_once() {
    shard().block_on(async {
        let alive = Rc::new(());
        let inside = Rc::clone(&alive);
        let task = spawn(async move {
            let _inside = inside;
            sleep(Duration::from_secs(60)).await;
        });
        yield_now().await;
        assert!(!task.is_finished());
        task.abort();
        assert_eq!(Rc::strong_count(&alive), 1);
    });
}

#[test]
fn a_plain_thread_wakes_a_sleeping_shard() {
    let flag = Arc::new(Flag::default());
    let setter = Arc::clone(&flag);
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        setter.set();
    });
    shard().block_on(async move {
        timeout(Duration::from_secs(10), flag.wait()).await.unwrap();
    });
    thread.join().unwrap();
}

#[test]
fn handles_send_tasks_that_are_not_send() {
    let (sender, receiver) = mpsc::channel::<ShardHandle>();
    let flag = Arc::new(Flag::default());
    let done = Arc::clone(&flag);
    let thread = std::thread::spawn(move || {
        let handle = receiver.recv().unwrap();
        assert!(!handle.is_current());
        let sent = handle.spawn_with(move || {
            let local = Rc::new(Cell::new(1));
            async move {
                yield_now().await;
                local.set(2);
                done.set();
            }
        });
        assert!(sent);
        handle
    });
    let shard = shard();
    sender.send(shard.handle()).unwrap();
    shard.block_on(async move {
        assert!(handle().is_current());
        timeout(Duration::from_secs(10), flag.wait()).await.unwrap();
    });
    let handle = thread.join().unwrap();
    assert!(!handle.spawn_with(|| async {}), "a shard that has ended takes no tasks");
}

/// Two shards hand a ball to and fro: every pass is a wake-up by MSG_RING of a sleeping ring.
#[test]
fn shards_wake_each_other() {
    const PASSES: u64 = 2000;
    struct Court {
        ball: AtomicU64,
        wakers: [Mutex<Option<Waker>>; 2],
    }
    async fn play(court: Arc<Court>, side: usize) {
        loop {
            let ball = poll_fn(|cx| {
                *court.wakers[side].lock().unwrap() = Some(cx.waker().clone());
                let ball = court.ball.load(Ordering::SeqCst);
                if ball >= PASSES || ball % 2 == side as u64 { Poll::Ready(ball) } else { Poll::Pending }
            })
            .await;
            if ball < PASSES {
                court.ball.store(ball + 1, Ordering::SeqCst);
            }
            let waker = court.wakers[1 - side].lock().unwrap().take();
            if let Some(waker) = waker {
                waker.wake();
            }
            if ball >= PASSES {
                return;
            }
        }
    }
    let court = Arc::new(Court { ball: AtomicU64::new(0), wakers: Default::default() });
    let threads: Vec<_> = (0..2)
        .map(|side| {
            let court = Arc::clone(&court);
            std::thread::spawn(move || {
                shard().block_on(async move {
                    timeout(Duration::from_secs(60), play(court, side)).await.unwrap();
                    // The last wake-up for the other side leaves with the end of this turn.
                    yield_now().await;
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn many_threads_wake_many_tasks() {
    let flags: Vec<_> = (0..200).map(|_| Arc::new(Flag::default())).collect();
    let threads: Vec<_> = flags
        .chunks(50)
        .map(|part| {
            let part = part.to_vec();
            std::thread::spawn(move || part.iter().for_each(|flag| flag.set()))
        })
        .collect();
    shard().block_on(async move {
        let tasks: Vec<_> = flags.into_iter().map(|flag| spawn(async move { flag.wait().await })).collect();
        for task in tasks {
            timeout(Duration::from_secs(10), task).await.unwrap();
        }
    });
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn leaving_drops_tasks_and_cancels_what_is_in_flight() {
    struct Watched(Rc<Cell<u32>>);
    impl Drop for Watched {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
            // A destructor that spawns must not keep the shard from ending.
            let _task = spawn(async {});
        }
    }
    let dropped = Rc::new(Cell::new(0));
    let count = Rc::clone(&dropped);
    let event = EventFd::new().unwrap();
    let events = event.clone();
    let start = clock::now();
    shard().block_on(async move {
        for index in 0..100 {
            let watched = Watched(Rc::clone(&count));
            let event = events.clone();
            let _task = spawn(async move {
                let _watched = watched;
                if index % 2 == 0 {
                    let _ = event.wait().await;
                } else {
                    sleep(Duration::from_secs(60)).await;
                }
            });
        }
        yield_now().await;
    });
    assert_eq!(dropped.get(), 100);
    assert!(clock::now() - start < Duration::from_secs(2), "cancelled operations must not hold the shard");
    // Every reference of the cancelled reads is gone: one handle is left, and it works on the next shard.
    event.notify().unwrap();
    assert_eq!(shard().block_on(async move { event.wait().await }).unwrap(), 1);
}

#[test]
fn a_shard_may_be_pinned_and_says_what_is_wrong() {
    std::thread::spawn(|| {
        let cpu = flexfs_uring::cpu::allowed().unwrap()[0];
        let config = ShardConfig { cpu: Some(cpu), recv_buffers: 0, ..ShardConfig::default() };
        let seen = Shard::new(&config).unwrap().block_on(async { flexfs_uring::cpu::current() });
        assert_eq!(seen, cpu);
        let refused = Shard::new(&ShardConfig { cpu: Some(1023), ..config }).unwrap_err();
        assert!(refused.to_string().contains("CPU 1023"), "{refused}");
    })
    .join()
    .unwrap();
}
