//! What all files share: the table, the budget, the caches, the server.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flexfs_uring::clock;
use flexfs_wire::attr::Attr;
use flexfs_wire::cipher::Cipher;
use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::lease::Leases;
use flexfs_wire::message::{Caller, Reply, Request};
use flexfs_wire::seal::Node;
use flexfs_wire::settings::Compression;
use flexfs_wire::time::Time;

use super::alone::Alone;
use super::budget::Budget;
use super::cache::Cache;
use super::fetch::AROUND_MAX;
use super::figures::Counters;
use super::file::{File, State};
use super::files::Config;
use super::layout::Map;
use super::memory::Slack;
use super::promise::Promises;
use super::readahead::WINDOW_BYTES_MAX;
use super::server::Server;
use super::spread::Spread;
use crate::cancel::Cancel;
use crate::lru::Lru;

/// Shards of the table: a lock is held for a look-up.
const SHARDS: usize = 64;
/// Part of the budget that layouts may take: one in this many.
const LAYOUTS_PART: u64 = 16;
/// Part of the budget that readahead may have in flight: one in this many.
const AHEAD_PART: u64 = 8;

/// Small blocks that wait for their `Write`, or for its answer: 4 MiB, which the budget does not count, and the server counts with what
/// limits of a token hold back (`meta: net/link.rs`).
const CARRIES_MAX: usize = 64;

/// Acts where nobody else does: reads of layouts, blocks and attributes, which the server checks by handle alone.
pub(crate) const NOBODY: Caller = Caller { uid: 0, gid: 0 };

/// See the module.
#[derive(Debug)]
pub(crate) struct Core<S> {
    /// The server.
    pub(crate) server: Arc<S>,
    /// Block size of the volume, in bytes.
    pub(crate) block_bytes: u32,
    /// Compression of the volume.
    pub(crate) compression: Compression,
    /// What blocks are encrypted with.
    pub(crate) cipher: Option<Arc<Cipher>>,
    /// Memory.
    pub(crate) budget: Arc<Budget>,
    /// Segments.
    pub(crate) cache: Arc<Cache>,
    /// Figures.
    pub(crate) counters: Counters,
    /// Permits to encode and send a block.
    pub(crate) puts: async_lock::Semaphore,
    /// Permits to fetch a piece of what is around readers that jump.
    pub(crate) around: async_lock::Semaphore,
    /// Permits to have a small block go along with its `Write`; without one it is sent ahead, as larger ones are.
    pub(crate) carries: Arc<async_lock::Semaphore>,
    /// A task looks for files to write back because memory is short.
    pub(crate) relieving: AtomicBool,
    /// Bytes that readahead fetches right now.
    pub(crate) ahead: AtomicU64,
    /// Reads of pages without their segments that are on their way.
    pub(super) alone: Alone,
    slack: Slack,
    pub(super) spread: Spread,
    /// What programs have closed, and is on its way.
    pub(crate) promises: Promises,
    shards: Vec<Mutex<Shard>>,
}

#[derive(Debug, Default)]
struct Shard {
    files: HashMap<Ino, Arc<File>>,
    /// Those that may be dirty; the writeback looks here.
    dirty: HashSet<Ino>,
    /// Files whose layout is kept, weighed by its memory.
    /// With the age they were used in last.
    layouts: Lru<Ino, u32>,
}

impl<S: Server> Core<S> {
    /// Without files.
    pub(crate) fn new(server: Arc<S>, budget: Budget, config: &Config) -> Self {
        let budget = Arc::new(budget);
        Self {
            server,
            block_bytes: config.block_size,
            compression: config.compression,
            cipher: config.cipher.clone(),
            cache: Arc::new(Cache::new(Arc::clone(&budget))),
            counters: Counters::default(),
            puts: async_lock::Semaphore::new(budget.puts_max()),
            around: async_lock::Semaphore::new(AROUND_MAX),
            carries: Arc::new(async_lock::Semaphore::new(CARRIES_MAX)),
            relieving: AtomicBool::new(false),
            ahead: AtomicU64::new(0),
            alone: Alone::default(),
            slack: Slack::default(),
            spread: Spread::default(),
            promises: Promises::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            budget,
        }
    }

    /// The file, if anything is known of it.
    pub(crate) fn find(&self, ino: Ino) -> Option<Arc<File>> {
        self.shard(ino).files.get(&ino).cloned()
    }

    /// The file; anew if nothing is known of it.
    pub(crate) fn file(&self, node: Node) -> Arc<File> {
        let mut shard = self.shard(node.ino);
        Arc::clone(shard.files.entry(node.ino).or_insert_with(|| Arc::new(File::new(node))))
    }

    /// Files that may be dirty.
    pub(crate) fn dirty_files(&self) -> Vec<Arc<File>> {
        let mut files = Vec::new();
        for shard in &self.shards {
            let mut shard = lock(shard);
            let Shard { files: all, dirty, .. } = &mut *shard;
            dirty.retain(|ino| {
                let Some(file) = all.get(ino) else { return false };
                let mut state = file.state();
                if state.is_clean() {
                    state.listed = false;
                    return false;
                }
                drop(state);
                files.push(Arc::clone(file));
                true
            });
        }
        files
    }

    /// Looks at each file.
    pub(crate) fn each_file(&self, mut look: impl FnMut(&File)) {
        for shard in &self.shards {
            lock(shard).files.values().for_each(|file| look(file));
        }
    }

    /// Names a file among those that may be dirty.
    pub(crate) fn list_dirty(&self, file: &File) {
        self.shard(file.node.ino).dirty.insert(file.node.ino);
    }

    /// The kernel forgot the inode: its state goes now, or when nothing needs it any more.
    pub(crate) fn forget(&self, ino: Ino) {
        if let Some(file) = self.shard(ino).files.get(&ino) {
            file.forgotten.store(true, Ordering::SeqCst);
        }
        self.sweep(ino);
    }

    /// Gives a file back after background work: it may have been the last to need it.
    pub(crate) fn release(&self, file: Arc<File>) {
        let ino = file.node.ino;
        let forgotten = file.forgotten.load(Ordering::SeqCst);
        drop(file);
        if forgotten {
            self.sweep(ino);
        }
    }

    /// Removes a forgotten file that nobody holds: new holders need the lock held here.
    fn sweep(&self, ino: Ino) {
        let mut shard = self.shard(ino);
        let idle = shard.files.get(&ino).is_some_and(|file| {
            Arc::strong_count(file) == 1 && file.forgotten.load(Ordering::SeqCst) && file.state().is_idle()
        });
        if idle {
            // First: who sees it forgotten sees that it was known (`vfs::prefetch`).
            self.server.recalls().note_left(ino);
            shard.files.remove(&ino);
            shard.dirty.remove(&ino);
            shard.layouts.remove(&ino);
        }
    }

    /// The layout of a file was used, or has become another. Layouts that are too many go, the coldest first.
    pub(crate) fn weigh_layout(&self, file: &File) {
        let weight = file.state().map.as_deref().map(Map::weight);
        let ino = file.node.ino;
        let mut victims = Vec::new();
        {
            let mut shard = self.shard(ino);
            match weight {
                Some(weight) => shard.layouts.insert(ino, self.cache.age(), weight),
                None => drop(shard.layouts.remove(&ino)),
            }
            let limit = self.layouts_max() / SHARDS as u64;
            // The one in use stays, however large: it is bounded by itself.
            while shard.layouts.weight() > limit.max(weight.unwrap_or(0)) {
                let Some((victim, ..)) = shard.layouts.evict() else { break };
                victims.extend(shard.files.get(&victim).cloned());
            }
        }
        for victim in victims {
            victim.state().map = None;
        }
    }

    /// To be called each `AGE_EVERY`: what nobody has used for long goes. A layout has the bytes of a small file, which the kernel has, too.
    pub(crate) fn grow_older(&self) {
        self.cache.grow_older();
        let now = self.cache.age();
        for shard in &self.shards {
            let (mut victims, mut kept) = (Vec::new(), Vec::new());
            let mut shard = lock(shard);
            while shard.layouts.coldest().is_some_and(|used| self.cache.is_old(*used)) {
                let Some((ino, _, weight)) = shard.layouts.evict() else { break };
                match shard.files.get(&ino) {
                    Some(file) if file.state().opens > 0 => kept.push((ino, weight)),
                    Some(file) => victims.push(Arc::clone(file)),
                    None => {}
                }
            }
            for (ino, weight) in kept {
                shard.layouts.insert(ino, now, weight);
            }
            drop(shard);
            for victim in victims {
                victim.state().map = None;
            }
        }
        self.slack.give_back();
    }

    /// Memory that layouts take, in bytes, about.
    pub(crate) fn layouts_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| lock(shard).layouts.weight()).sum()
    }

    fn layouts_max(&self) -> u64 {
        self.budget.limit() / LAYOUTS_PART
    }

    /// Most bytes that readahead may have in flight.
    pub(crate) fn ahead_max(&self) -> u64 {
        self.budget.limit() / AHEAD_PART
    }

    /// Largest window of one sequential reader, in bytes.
    pub(crate) fn window_max(&self) -> u64 {
        WINDOW_BYTES_MAX.min(self.ahead_max() / 2)
    }

    /// When a write of now happened: the wall clock, but not before the server last changed the file. `ctime` is
    /// always the server's clock, so one that is behind it does not make times go back. Nor behind the server's clock, as far as
    /// it is known here: the server would not take it, and programs would see another time later.
    pub(crate) fn write_time(&self, state: &State) -> Time {
        let (secs, nanos) = clock::wall_parts();
        let wall = Time { secs, nanos };
        let now = self.server.server_now().map_or(wall, |now| now.min(wall));
        state.known.map_or(now, |known| now.max(known.ctime)).max(state.written.unwrap_or(now))
    }

    /// The server answered a change of this file: where it stands, for a later `fsync`.
    pub(crate) fn note_answer(&self, state: &mut State) {
        state.answered = Some((self.server.last_commit(), self.server.generation()));
    }

    /// Makes a call about this file, and takes in the lease it is granted with the answer.
    pub(crate) async fn call(
        &self,
        caller: Caller,
        request: Request,
        file: &File,
        cancel: Option<&Cancel>,
    ) -> Result<Reply, Errno> {
        let recalls = self.server.recalls();
        let (asked, life) = (recalls.asked(), recalls.life());
        let changes = request.is_mutation();
        let (result, leases) = self.server.call_leased(caller, request, cancel).await;
        if let Ok(reply) = &result
            && leases.has(Leases::ATTR)
        {
            let attr = told_attr(reply);
            let mut state = file.state();
            // Under the state's lock: a recall that begins now finds the lease, one that began is seen here.
            if recalls.is_good(file.node.ino, asked) {
                state.lease.grant(leases, (life, asked), attr.map_or(u64::MAX, |attr| attr.version));
                // Whoever reads under the lease from now on must not take what was known before for true.
                match attr {
                    Some(attr) if changes => state.learn_gap(attr),
                    Some(attr) => {
                        state.learn(attr, life);
                    }
                    None => {}
                }
                if attr.is_some() {
                    state.know_whole(life);
                }
            }
        }
        result
    }

    fn shard(&self, ino: Ino) -> MutexGuard<'_, Shard> {
        lock(&self.shards[usize::try_from(ino.0 % SHARDS as u64).expect("below SHARDS")])
    }
}

/// The attributes that an answer tells.
fn told_attr(reply: &Reply) -> Option<&Attr> {
    match reply {
        Reply::Attr(attr) | Reply::Opened { attr, .. } | Reply::Copied { attr, .. } => Some(attr),
        _ => None,
    }
}

/// The attributes of a reply.
pub(crate) fn attr_of(reply: Reply) -> Result<Attr, Errno> {
    match reply {
        Reply::Attr(attr) => Ok(attr),
        other => Err(unexpected(&other)),
    }
}

/// A reply of a kind that the request does not have.
pub(crate) fn unexpected(_reply: &Reply) -> Errno {
    tracing::error!("the server answered with a reply of the wrong kind: versions that do not fit together?");
    Errno::EPROTO
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these in a half-changed state.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
