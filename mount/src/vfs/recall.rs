//! Giving leases back: what the kernel caches is taken from it, what is unwritten goes to the server, then the recall is
//! answered.
//!
//! # Order, and why nothing waits for itself
//!
//! A recall may wait for the kernel; the kernel may wait for answers to requests that are under way. So:
//!
//! 1. Nothing here runs on a shard but what never waits: requests are always served.
//! 2. Attributes are dropped without a lock the kernel holds while it waits for an answer (`INVAL_INODE` without pages).
//! 3. Pages are locked while the kernel waits for a READ or a WRITE of them. Those never wait for a recall of their own
//!    file (`data::lease`), nor does the server make them: so `INVAL_INODE` with pages ends. The last READs are held back; an
//!    `INVAL_INODE` that meets their pages is left behind, because these pages are not filled yet.
//! 4. A name cannot be dropped (`INVAL_ENTRY`) while a process waits for an answer in that directory, and that answer may
//!    wait for another client's, which waits for ours. So after [`PATIENCE`], less where we know of one that waits, all names of
//!    this mount are declared old instead (`INC_EPOCH`, Linux 6.16), which takes no lock; the kernel then looks each up again
//!    when it is used.
//!    Without `INC_EPOCH` it is given no name to keep.
//! 5. What is on its way to the kernel when a recall comes: the kernel drops attributes that were asked for before an
//!    `INVAL_INODE`; a lookup holds its directory until the name is in place. Only an inode that the kernel does not know
//!    yet is asked for again until it does.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use event_listener::Event;
use flexfs_uring::ShardHandle;
use flexfs_wire::id::{Epoch, Ino};
use flexfs_wire::lease::{Keep, LEASE_BATCH_MAX, Recall};
use flexfs_wire::limits::LEASE_TRUST_MS;
use flexfs_wire::message::{Caller, Request};
use flexfs_wire::name::Name;
use flexfs_wire::seal::Node;

use super::dropping::Dropping;
use super::inode::Inode;
use super::known;
use super::state::Vfs;
use super::watched::Watched;
use crate::data::Recalled;
use crate::link::Listener;
use crate::link::behind::Hurry;

/// The client itself.
pub(super) const NOBODY: Caller = Caller { uid: 0, gid: 0 };
/// How long the kernel may take to drop one name, or the pages of one inode.
pub(super) const PATIENCE: Duration = Duration::from_millis(20);
/// The same for a name in a directory in which the server is changing names for a program here: that holds the lock, and may wait for
/// another client that waits for us.
const CHANGING_PATIENCE: Duration = Duration::from_millis(2);
/// How long it may take to drop pages of ranges whose readers are held back.
const PAGES_PATIENCE: Duration = Duration::from_millis(2);
/// How long a write waits for its pages to be dropped.
const FORGET_MAX: Duration = Duration::from_millis(20);
/// How long reads under way may take to end.
const READS_MAX: Duration = Duration::from_secs(10);
/// How often pages are dropped once more because reads came in between.
const ROUNDS_MAX: u32 = 20;
/// How long the kernel may take to know an inode that it was told of.
const KNOWN_MAX: Duration = Duration::from_secs(1);
/// Pause between two looks at that.
const KNOWN_PAUSE: Duration = Duration::from_micros(200);
/// Threads that process recalls at once.
const THREADS_MAX: usize = 64;
/// A thread without work ends after this.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Recalls remembered, to know them when they come again.
const HEARD_MAX: usize = 65_536;
/// How often is looked at what was forgotten, and at the server's silence.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What the kernel made of being told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It knows.
    Yes,
    /// It does not know the inode or name.
    Unknown,
    /// The mount is gone, or the kernel cannot do this.
    Not,
}

/// The kernel's caches.
pub trait Kernel: Send + Sync + std::fmt::Debug {
    /// Drops attributes. Waits for nothing that waits for us.
    fn forget_attr(&self, nodeid: u64) -> Told;
    /// Drops attributes, and pages of a range or all. Waits for reads and writes of them.
    fn forget_pages(&self, nodeid: u64, range: Option<Range<u64>>) -> Told;
    /// Puts all bytes of a file into its pages. Waits for reads of it: the caller knows that nobody has it open.
    fn fill_pages(&self, nodeid: u64, bytes: &[u8]) -> Told;
    /// Drops a name. Waits for whoever looks something up or changes names in the directory.
    fn forget_name(&self, dir: u64, name: &Name) -> Told;
    /// Has the kernel look up every name again. Waits for nothing.
    fn forget_names(&self) -> Told;
}

/// Something to do off the shards.
#[derive(Debug)]
pub enum Task {
    /// Recalls, processed one after the other and answered together.
    Recalls(Vec<Recall>),
    /// The rest of such a task, whose thread is kept in the kernel.
    Resume(Progress),
    /// Pages of a range are to be dropped, and somebody waits for it.
    Forget {
        /// The inode.
        nodeid: u64,
        /// The range.
        range: Range<u64>,
        /// Told when they are.
        done: Arc<Event>,
    },
    /// What a read fills that no lease holds is to be dropped.
    Filled {
        /// The inode.
        inode: Arc<Inode>,
        /// What was read.
        range: Range<u64>,
    },
    /// What programs were told of is not so: the server would not have it.
    Lost {
        /// An inode that was to change, as the kernel calls it.
        nodeid: u64,
        /// A name in it, if it is a directory.
        name: Option<Name>,
    },
    /// Nothing may be cached any more; after a restart of the server it is told so.
    DropAll {
        /// The start to be told.
        restarted: Option<Epoch>,
    },
    /// The rest of that, for one more thread.
    DropPages(Arc<Dropping>),
}

/// How far recalls of one task are.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    recalls: Vec<Recall>,
    /// The one that is processed.
    at: usize,
    /// Times its file was shut; 0 before its pages were dropped.
    rounds: u32,
    /// Another client waits: nothing is held back meanwhile.
    _hurry: Option<Arc<Hurry>>,
}

/// Takes recalls on shards; what may wait is passed on.
#[derive(Debug)]
struct Ear {
    vfs: Arc<Vfs>,
    tasks: Sender<Task>,
    /// Numbers of the last recalls: the server says again what it does not know to have been heard.
    heard: Mutex<BTreeSet<u64>>,
}

impl Ear {
    /// False when it was heard before.
    fn hear(&self, id: u64) -> bool {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.len() > HEARD_MAX {
            heard.pop_first();
        }
        heard.insert(id)
    }
}

impl Listener for Ear {
    fn handle_recalls(&self, recalls: Vec<Recall>) {
        let (mut done, mut quick) = (Vec::new(), Vec::new());
        for recall in recalls {
            if !self.hear(recall.id) {
                continue;
            }
            self.vfs.remote.recalls().note(recall.ino);
            if recall.keep != Keep::All {
                self.vfs.files.ask(recall.ino);
            }
            if let Some(dir) = self.vfs.inodes.known(recall.ino).filter(|inode| inode.is_dir()) {
                if recall.keep != Keep::All {
                    dir.content.share();
                }
                self.vfs.left.add(dir.content.take_ahead());
                if let Some(name) = &recall.name {
                    dir.content.add(name);
                    let _ = dir.content.doubt_name(known::hash(name));
                }
            }
            if self.vfs.has_nothing_of(&recall) {
                done.push(recall.id);
            } else if recall.keep != Keep::All
                && (self.vfs.has_unsent(recall.ino) || self.vfs.quiet.is_untold(recall.ino))
            {
                // Unwritten bytes may have to go out: others do not wait for them. The receiver lives as long as the process.
                drop(self.tasks.send(Task::Recalls(vec![recall])));
            } else {
                quick.push(recall);
            }
        }
        if !quick.is_empty() {
            drop(self.tasks.send(Task::Recalls(quick)));
        }
        if !done.is_empty() {
            self.vfs.remote.call_later(NOBODY, Request::Recalled { ids: done });
        }
    }

    fn handle_recovered(&self) {
        let restarted = Some(Epoch(self.vfs.remote.figures().epoch));
        drop(self.tasks.send(Task::DropAll { restarted }));
    }

    fn handle_lost(&self) {
        self.vfs.remote.behind().reopen();
        drop(self.tasks.send(Task::DropAll { restarted: None }));
    }

    fn handle_revoked(&self) {
        drop(self.tasks.send(Task::DropAll { restarted: None }));
    }

    fn untold_opens(&self) -> Vec<Node> {
        // What is still to be made is there when it is told.
        self.vfs.quiet.shut(|ino| self.vfs.remote.behind().before_using(ino).is_none())
    }

    fn exclusive(&self) -> Vec<Node> {
        let mut nodes = self.vfs.remote.behind().shut();
        nodes.extend(self.vfs.files.declare_dirty());
        nodes.sort_unstable_by_key(|node| node.ino);
        nodes.dedup();
        nodes
    }
}

impl Vfs {
    /// Listens to recalls. The receiver is for [`Recaller::start`].
    pub fn listen(self: &Arc<Self>) -> (Sender<Task>, Receiver<Task>) {
        let (tasks, receiver) = unbounded();
        drop(self.tasks.set(tasks.clone()));
        self.remote.listen(Box::new(Ear {
            vfs: Arc::clone(self),
            tasks: tasks.clone(),
            heard: Mutex::default(),
        }));
        (tasks, receiver)
    }

    /// Drops pages of a range, and waits for it a little: the caller's own request may be what keeps a page locked, and
    /// then it is dropped behind the answer.
    pub(crate) async fn forget_pages(&self, nodeid: u64, range: Range<u64>) {
        let done = Arc::new(Event::new());
        let listener = done.listen();
        if let Some(tasks) = self.tasks.get()
            && tasks.send(Task::Forget { nodeid, range, done }).is_ok()
        {
            // Late is what it is meant to be then.
            let _ = flexfs_uring::timer::timeout(FORGET_MAX, listener).await;
        }
    }

    /// Has the kernel drop what a read is about to fill, which waits for that read's answer and for no other: pages of the same file
    /// may be locked for long. Opens do not keep pages until it did.
    pub(super) fn drop_filled(&self, inode: &Arc<Inode>, range: Range<u64>) {
        inode.begin_dropping();
        let task = Task::Filled { inode: Arc::clone(inode), range };
        if self.tasks.get().is_none_or(|tasks| tasks.send(task).is_err()) {
            inode.end_dropping();
        }
    }

    /// Whether nothing that is recalled is cached here.
    fn has_nothing_of(&self, recall: &Recall) -> bool {
        let inode = self.inodes.known(recall.ino);
        let names = match (&recall.name, &inode) {
            (Some(name), Some(inode)) => inode.names.has(name),
            _ => false,
        };
        let file = recall.keep != Keep::All && (inode.is_some() || self.has_unsent(recall.ino));
        !names && !file
    }

    /// Whether bytes of the inode or changes of it may have to go to the server.
    fn has_unsent(&self, ino: Ino) -> bool {
        self.files.recalled(ino).is_some() || self.remote.behind().before([ino]).is_some()
    }

    /// Gives back what the kernel forgot, and lets go of everything when the server is silent for too long. For ever;
    /// one shard runs it.
    pub async fn run_leases(self: Arc<Self>, tasks: Sender<Task>) {
        let mut trusted = true;
        loop {
            flexfs_uring::timer::sleep(LOOK_EVERY).await;
            self.left.add(self.prefetch.expire(flexfs_uring::clock::now()));
            self.give_back().await;
            let quiet = self.quiet_for() >= Duration::from_millis(LEASE_TRUST_MS);
            if quiet && trusted {
                tracing::warn!(
                    "nothing was heard of the metadata server for {LEASE_TRUST_MS} ms: what is cached is not trusted any \
                     more, and asked for anew"
                );
                self.remote.recalls().void();
                drop(tasks.send(Task::DropAll { restarted: None }));
            }
            trusted = !quiet;
        }
    }

    async fn give_back(&self) {
        let recalls = self.remote.recalls();
        let mut inos = Vec::new();
        let mut later = Vec::new();
        for ino in self.left.take() {
            if inos.len() == LEASE_BATCH_MAX || self.has_unsent(ino) {
                // Something here still needs it, or there are too many.
                later.push(ino);
                continue;
            }
            if self.inodes.is_known(ino) {
                continue;
            }
            recalls.begin_giving_back(ino);
            // Looked up meanwhile, it stays; what was granted since does not count.
            if self.inodes.known(ino).is_some() {
                recalls.note(ino);
            } else {
                inos.push(ino);
            }
        }
        self.left.add(later);
        if inos.is_empty() {
            return;
        }
        let request = Request::GiveBack { inos: inos.clone() };
        if let Err(errno) = self.remote.call(NOBODY, request, None).await {
            tracing::debug!(%errno, "leases were not given back");
        }
        for ino in inos {
            recalls.note(ino);
        }
    }
}

/// Processes recalls, on threads of its own: one that waits in the kernel holds up no other.
#[derive(Debug)]
pub struct Recaller {
    pub(super) vfs: Arc<Vfs>,
    pub(super) kernel: Arc<dyn Kernel>,
    pub(super) shard: ShardHandle,
    tasks: Receiver<Task>,
    threads: AtomicUsize,
    idle: AtomicUsize,
    pub(super) watched: Watched,
}

/// Whether a thread was left behind in the kernel, and another has its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Not,
    Behind,
}

/// The answer to some recalls, given once.
#[derive(Debug)]
struct Answer {
    ids: Vec<u64>,
    given: AtomicBool,
}

impl Recaller {
    /// Starts the threads. They end when nobody can send tasks any more. `shard` is where unwritten bytes are sent from.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        vfs: Arc<Vfs>,
        kernel: Arc<dyn Kernel>,
        shard: ShardHandle,
        tasks: Receiver<Task>,
    ) -> io::Result<()> {
        let keeps_names = kernel.forget_names() == Told::Yes;
        if !keeps_names {
            tracing::info!(
                "this kernel cannot be told to forget names without a lock (Linux 6.16 or newer can): it is given none \
                 to keep, and asks for each"
            );
        }
        vfs.keeps_names.store(keeps_names, Ordering::SeqCst);
        let this = Arc::new(Self {
            vfs,
            kernel,
            shard,
            tasks,
            threads: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            watched: Watched::default(),
        });
        let watcher = Arc::clone(&this);
        let watch = move || watcher.watched.watch(|| watcher.threads.load(Ordering::SeqCst) == 0);
        this.add_thread()?;
        std::thread::Builder::new().name("recall-watch".to_owned()).spawn(watch)?;
        Ok(())
    }

    fn add_thread(self: &Arc<Self>) -> io::Result<()> {
        self.threads.fetch_add(1, Ordering::SeqCst);
        let this = Arc::clone(self);
        let started = std::thread::Builder::new().name("recall".to_owned()).spawn(move || this.work());
        if started.is_err() {
            self.threads.fetch_sub(1, Ordering::SeqCst);
        }
        started.map(|_| ())
    }

    fn work(self: &Arc<Self>) {
        loop {
            self.idle.fetch_add(1, Ordering::SeqCst);
            let task = self.tasks.recv_timeout(IDLE_MAX);
            let others = self.idle.fetch_sub(1, Ordering::SeqCst) - 1;
            match task {
                Ok(task) => {
                    // Somebody must be there for the next one.
                    if others == 0
                        && self.threads.load(Ordering::SeqCst) < THREADS_MAX
                        && let Err(error) = self.add_thread()
                    {
                        tracing::warn!(%error, "no more threads for recalls");
                    }
                    match task {
                        Task::Recalls(recalls) => {
                            let hurry = Some(Arc::new(self.vfs.remote.behind().hurry()));
                            self.recall_all(Progress { recalls, _hurry: hurry, ..Progress::default() })
                        }
                        Task::Resume(progress) => self.recall_all(progress),
                        Task::Forget { nodeid, range, done } => {
                            // The kernel may have forgotten it by itself.
                            let _ = self.kernel.forget_pages(nodeid, Some(range));
                            done.notify(usize::MAX);
                        }
                        Task::Filled { inode, range } => {
                            let _ = self.kernel.forget_pages(inode.nodeid, Some(range));
                            inode.end_dropping();
                        }
                        Task::Lost { nodeid, name } => {
                            // Who asks once more is told by the server.
                            let _ = self.kernel.forget_attr(nodeid);
                            if let Some(name) = name {
                                let _ = self.kernel.forget_name(nodeid, &name);
                            }
                        }
                        Task::DropAll { restarted } => self.drop_all(restarted),
                        Task::DropPages(dropping) => self.drop_pages(&dropping),
                    }
                }
                // The last one stays.
                Err(RecvTimeoutError::Timeout) if others == 0 => {}
                Err(_) => {
                    self.threads.fetch_sub(1, Ordering::SeqCst);
                    return;
                }
            }
        }
    }

    /// What cannot wait comes first, names last: there somebody may be in the way.
    fn recall_all(self: &Arc<Self>, mut progress: Progress) {
        while progress.at < progress.recalls.len() {
            if self.recall_inode(&mut progress) == Left::Behind {
                return;
            }
            progress.at += 1;
            progress.rounds = 0;
        }
        let recalls = &progress.recalls;
        let answer =
            Answer { ids: recalls.iter().map(|recall| recall.id).collect(), given: AtomicBool::new(false) };
        let answer = Arc::new(answer);
        for recall in recalls {
            if let Some(name) = &recall.name
                && let Some(dir) = self.vfs.inodes.known(recall.ino)
                && dir.names.has(name)
            {
                self.forget_name(&dir, name, &answer);
            }
        }
        self.answer(&answer);
    }

    fn recall_inode(self: &Arc<Self>, progress: &mut Progress) -> Left {
        let recall = &progress.recalls[progress.at];
        if recall.keep != Keep::All
            && let Some(last) = self.vfs.remote.behind().before([recall.ino])
        {
            // No more begin: it is shared since the recall was heard.
            self.vfs.remote.behind().wait_here(last);
        }
        if recall.keep == Keep::Nothing && self.vfs.quiet.is_untold(recall.ino) {
            let (vfs, ino) = (Arc::clone(&self.vfs), recall.ino);
            self.on_shard(move || async move { vfs.tell_open(ino).await });
        }
        if let (Keep::Nothing, Some(passing)) = (recall.keep, self.vfs.passing.get()) {
            passing.handle_recall(recall.ino);
        }
        let inode = self.vfs.inodes.known(recall.ino);
        match (recall.keep, self.vfs.files.recalled(recall.ino)) {
            (Keep::All, _) | (Keep::Shared, None) => {}
            (Keep::Shared, Some(file)) => self.on_shard(move || file.share()),
            (Keep::Nothing, Some(file)) => return self.recall_file(progress, inode.as_deref(), file),
            (Keep::Nothing, None) => {
                if let Some(inode) = &inode {
                    self.forget_attr(inode);
                }
            }
        }
        Left::Not
    }

    fn answer(&self, answer: &Answer) {
        if !answer.given.swap(true, Ordering::SeqCst) {
            self.call_later(Request::Recalled { ids: answer.ids.clone() });
        }
    }

    /// See `data::lease` for the steps.
    fn recall_file(self: &Arc<Self>, progress: &mut Progress, inode: Option<&Inode>, file: Recalled) -> Left {
        if progress.rounds == 0 {
            let first = file.clone();
            self.on_shard(move || first.begin());
            if let Some(inode) = inode {
                self.forget_attr(inode);
                // What it does not know has no pages.
                let _ = self.kernel.forget_pages(inode.nodeid, None);
            }
        }
        if let Some(inode) = inode {
            loop {
                let tainted = file.shut(READS_MAX);
                if tainted.is_empty() {
                    break;
                }
                progress.rounds += 1;
                if progress.rounds > ROUNDS_MAX {
                    tracing::warn!(
                        ino = inode.ino().0,
                        "a file is read so much that its old pages go a moment late"
                    );
                    file.open();
                    let _ = self.kernel.forget_pages(inode.nodeid, None);
                    break;
                }
                if self.forget_ranges(inode.nodeid, tainted, &file, progress) == Left::Behind {
                    return Left::Behind;
                }
            }
        }
        self.on_shard(move || file.end());
        Left::Not
    }

    /// Drops pages of ranges. When that waits for reads which are held back, another thread goes on without it if all
    /// that is left to be dropped is what they wait for; else they are let go on.
    fn forget_ranges(
        self: &Arc<Self>,
        nodeid: u64,
        ranges: Vec<Range<u64>>,
        file: &Recalled,
        progress: &Progress,
    ) -> Left {
        /// What is left to be dropped, the next one last; `None` when another thread went on.
        type Rest = Mutex<Option<Vec<Range<u64>>>>;
        let rest: Arc<Rest> = Arc::new(Mutex::new(Some(ranges)));
        let late = {
            let (rest, file, this, progress) =
                (Arc::clone(&rest), file.clone(), Arc::clone(self), progress.clone());
            Box::new(move || {
                let mut rest = rest.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(ranges) = &*rest else { return };
                // All are dropped, and the recall has gone on, maybe to its end: who let reads in now would have the kernel keep
                // what is about to be old.
                if ranges.is_empty() {
                    return;
                }
                if file.are_held(ranges) && this.resume(progress) {
                    *rest = None;
                } else {
                    file.open();
                }
            })
        };
        let next = |done: bool| {
            let mut rest = rest.lock().unwrap_or_else(PoisonError::into_inner);
            let ranges = rest.as_mut()?;
            if done {
                ranges.pop();
            }
            Some(ranges.last().cloned())
        };
        self.watched.run(PAGES_PATIENCE, late, || {
            let mut at = next(false);
            while let Some(Some(range)) = at {
                // The kernel may have forgotten it by itself.
                let _ = self.kernel.forget_pages(nodeid, Some(range));
                at = next(true);
            }
            if at.is_some() { Left::Not } else { Left::Behind }
        })
    }

    /// Passes the rest of a task on. False: nobody is there for it.
    fn resume(&self, progress: Progress) -> bool {
        // The one that asks is kept in the kernel, and does not count.
        let has_hands = self.idle.load(Ordering::SeqCst) > 0;
        has_hands && self.vfs.tasks.get().is_some_and(|tasks| tasks.send(Task::Resume(progress)).is_ok())
    }

    fn forget_attr(&self, inode: &Inode) {
        inode.doubt_plain();
        let deadline = flexfs_uring::clock::now() + KNOWN_MAX;
        while self.kernel.forget_attr(inode.nodeid) == Told::Unknown
            && self.vfs.inodes.known(inode.ino()).is_some()
            && before(deadline)
        {
            // Its answer is on the way to the kernel.
            std::thread::sleep(KNOWN_PAUSE);
        }
    }

    /// Drops a name. When that waits for somebody who changes names there, and who may wait for us, all names are declared
    /// old and the recalls answered; this thread goes on when the kernel lets it.
    fn forget_name(self: &Arc<Self>, dir: &Inode, name: &Name, answer: &Arc<Answer>) {
        if answer.given.load(Ordering::SeqCst) {
            return;
        }
        let (this, late) = (Arc::clone(self), Arc::clone(answer));
        let late = Box::new(move || {
            this.forget_names();
            this.answer(&late);
        });
        let patience = if dir.is_changing() { CHANGING_PATIENCE } else { PATIENCE };
        self.watched.run(patience, late, || {
            // The kernel may have forgotten it by itself.
            let _ = self.kernel.forget_name(dir.nodeid, name);
        });
    }

    fn forget_names(&self) {
        if self.kernel.forget_names() == Told::Yes {
            for dir in self.vfs.inodes.all().iter().filter(|inode| inode.is_dir()) {
                dir.names.clear();
            }
        }
    }

    pub(super) fn call_later(&self, request: Request) {
        let vfs = Arc::clone(&self.vfs);
        self.shard.spawn_with(move || async move { vfs.remote.call_later(NOBODY, request) });
    }

    /// Runs something on the shard and waits for its end.
    fn on_shard<F, Fut>(&self, work: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let (done, ended) = bounded::<()>(1);
        self.shard.spawn_with(move || async move {
            work().await;
            drop(done);
        });
        // It ends by the end of the work, or of the shard.
        let _: Result<(), _> = ended.recv();
    }
}

fn before(deadline: Instant) -> bool {
    flexfs_uring::clock::now() < deadline
}
