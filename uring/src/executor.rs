//! Local tasks: futures that never leave their thread, with wakers that may be used from any.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use slab::Slab;

use crate::mailbox::{Letter, Mailbox};
use crate::shard::{Core, current, try_current};
use crate::slot::lower_half;

/// Names the future of `block_on`, which lives on the stack and not in the table.
pub(crate) const MAIN: u64 = u64::MAX;

type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

struct Task {
    generation: u32,
    /// `None` when it has ended or was aborted. Borrowed while it runs.
    future: RefCell<Option<LocalFuture>>,
    flag: Arc<TaskWaker>,
    waker: Waker,
}

/// The tasks of a shard and the order in which they run.
#[derive(Default)]
pub(crate) struct Executor {
    tasks: RefCell<Slab<Rc<Task>>>,
    ready: RefCell<VecDeque<u64>>,
    generation: Cell<u32>,
}

impl Executor {
    /// Adds a task and makes it ready to run.
    pub(crate) fn add(&self, mailbox: &Arc<Mailbox>, future: LocalFuture) -> u64 {
        let mut tasks = self.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        // Half the range keeps every key apart from MAIN.
        let generation = (self.generation.get() + 1) % (1 << 31);
        self.generation.set(generation);
        let key = u64::from(generation) << 32 | (entry.key() as u64 & u64::from(u32::MAX));
        let flag = TaskWaker::new(mailbox, key);
        // Queued below: wakes before the first run need not queue it again.
        flag.queued.store(true, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&flag));
        entry.insert(Rc::new(Task { generation, future: RefCell::new(Some(future)), flag, waker }));
        self.ready.borrow_mut().push_back(key);
        key
    }

    fn task(&self, key: u64) -> Option<Rc<Task>> {
        let tasks = self.tasks.borrow();
        let task = tasks.get(lower_half(key))?;
        (u64::from(task.generation) == key >> 32).then(|| Rc::clone(task))
    }

    /// Puts a task, whose flag says it is queued, into the order.
    pub(crate) fn make_ready(&self, key: u64) {
        self.ready.borrow_mut().push_back(key);
    }

    /// Number of tasks waiting to run.
    pub(crate) fn ready_count(&self) -> usize {
        self.ready.borrow().len()
    }

    /// The next task to run.
    pub(crate) fn pop_ready(&self) -> Option<u64> {
        self.ready.borrow_mut().pop_front()
    }

    /// Runs a task once. Stale keys (the task has ended) do nothing.
    pub(crate) fn run(&self, key: u64) {
        let Some(task) = self.task(key) else { return };
        // Acquire: what the waking thread wrote before waking is seen by the task.
        task.flag.queued.swap(false, Ordering::AcqRel);
        let mut place = task.future.borrow_mut();
        let Some(future) = place.as_mut() else { return };
        if future.as_mut().poll(&mut Context::from_waker(&task.waker)).is_ready() {
            let ended = place.take();
            drop(place);
            self.remove(key);
            drop(ended);
        }
    }

    fn remove(&self, key: u64) {
        let removed = self.tasks.borrow_mut().try_remove(lower_half(key));
        drop(removed);
    }

    /// Drops a task where it stands. A task that is running right now (it aborts itself) goes on.
    fn abort(&self, key: u64) {
        let Some(task) = self.task(key) else { return };
        let Ok(mut place) = task.future.try_borrow_mut() else { return };
        let future = place.take();
        drop(place);
        self.remove(key);
        drop(future);
    }

    /// Drops all tasks; their destructors may wake and even spawn, so it goes on until none is left.
    pub(crate) fn clear(&self) {
        loop {
            let first = self.tasks.borrow().iter().next().map(|(index, _)| index);
            let Some(index) = first else { break };
            let task = self.tasks.borrow_mut().remove(index);
            let future = task.future.borrow_mut().take();
            drop(future);
        }
        self.ready.borrow_mut().clear();
    }
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor").field("tasks", &self.tasks.borrow().len()).finish_non_exhaustive()
    }
}

/// What a task's waker holds: whom to tell, and whether that was done already.
pub(crate) struct TaskWaker {
    mailbox: Arc<Mailbox>,
    key: u64,
    /// Set from the first wake until the task runs, so that a task stands in the order at most once.
    pub(crate) queued: AtomicBool,
}

impl TaskWaker {
    pub(crate) fn new(mailbox: &Arc<Mailbox>, key: u64) -> Arc<Self> {
        Arc::new(Self { mailbox: Arc::clone(mailbox), key, queued: AtomicBool::new(false) })
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        match try_current() {
            Some(core) if Arc::ptr_eq(&core.mailbox, &self.mailbox) => core.executor.make_ready(self.key),
            // When the shard has ended there is nothing to wake.
            _ => drop(self.mailbox.post(Letter::Wake(self.key))),
        }
    }
}

/// The result of a spawned task. Await it for the output; drop it to let the task run on its own.
pub struct JoinHandle<T> {
    shared: Rc<Join<T>>,
    core: Rc<Core>,
    key: u64,
}

struct Join<T> {
    value: RefCell<Option<T>>,
    waker: RefCell<Option<Waker>>,
}

impl<T> JoinHandle<T> {
    /// Drops the task where it stands: its operations are cancelled, its memory freed when the kernel lets go.
    pub fn abort(self) {
        self.core.executor.abort(self.key);
    }

    /// Whether the output is there to be awaited.
    pub fn is_finished(&self) -> bool {
        self.shared.value.borrow().is_some()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        if let Some(value) = self.shared.value.borrow_mut().take() {
            return Poll::Ready(value);
        }
        *self.shared.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<T> std::fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinHandle").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Spawns on `core`.
pub(crate) fn spawn_on<F: Future + 'static>(core: &Rc<Core>, future: F) -> JoinHandle<F::Output> {
    let shared = Rc::new(Join { value: RefCell::new(None), waker: RefCell::new(None) });
    let task_shared = Rc::clone(&shared);
    let task = async move {
        let value = future.await;
        *task_shared.value.borrow_mut() = Some(value);
        let waker = task_shared.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    };
    let key = core.executor.add(&core.mailbox, Box::pin(task));
    JoinHandle { shared, core: Rc::clone(core), key }
}

/// Lets all other ready tasks, and the kernel, have a turn.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        // Behind the tasks that are ready now; a turn of the loop runs only those.
        cx.waker().wake_by_ref();
        let _shard = current();
        Poll::Pending
    })
    .await;
}
