//! Inodes the kernel knows: what it calls them, the server's handle, how often it looked them up.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use flexfs_wire::attr::{Attr, S_IFDIR, S_IFMT, S_IFREG, S_ISGID};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::{Commit, Ino};
use flexfs_wire::message::{Caller, Entry, LockFamily};
use flexfs_wire::seal::Node;
use flexfs_wire::time::Time;

use super::appetite::Appetite;
use super::content::Content;
use super::known::Known;
use super::stream::{Smalls, Streams};
use crate::lease::Asked;

/// What the kernel calls the root of a mount (`FUSE_ROOT_ID`).
pub(crate) const ROOT_NODEID: u64 = 1;
/// Locks of the table; a power of two, several times the cores of large machines.
const SHARDS: usize = 256;

/// An inode the kernel holds.
#[derive(Debug)]
pub struct Inode {
    /// The kernel's name of it.
    pub nodeid: u64,
    /// The server's handle.
    pub node: Node,
    /// Type bits.
    pub kind: u32,
    /// Directory it was last found in, for `..`.
    parent: AtomicU64,
    /// Hash of the name it was last found under.
    name: AtomicU64,
    /// Changes by others that were noticed: the kernel may hold pages that are no longer the file's.
    changes_seen: AtomicU64,
    /// The last of them after which the kernel dropped its pages.
    changes_told: AtomicU64,
    /// Ranges of its pages that are being dropped.
    dropping: AtomicU32,
    /// Names in this directory that the server is changing for programs here: the kernel holds its lock meanwhile.
    changing: AtomicU32,
    state: Mutex<State>,
    /// What is known of the content of this directory. Most inodes are files: they do without.
    pub(crate) content: LazyLock<Box<Content>>,
    /// Names of this directory that the kernel may know.
    pub(crate) names: LazyLock<Box<Known>>,
    /// Whether its files are opened when they were found.
    pub(crate) appetite: Appetite,
    /// Whether files are written here that nobody reads.
    pub(crate) streams: Streams,
    /// Whether small files are.
    pub(crate) smalls: Smalls,
}

/// What changes about an inode.
#[derive(Debug, Default)]
struct State {
    /// Times as last seen, for relatime.
    times: Option<Times>,
    /// Attributes as the server told them last under a lease: when that was asked, and in which life of the leases.
    told: Option<(Attr, Asked, u64)>,
    /// The life of the leases in which it is known to have no extended attributes. They are asked for before many writes,
    /// and for every line of an `ls -l`.
    plain_in: Option<u64>,
    /// Somebody here sets, or has set some: an answer that says there are none may be from before.
    is_decorated: bool,
    /// Access time that the server does not know yet.
    atime: Option<Time>,
    /// Owners of locks taken here.
    owners: Vec<Owner>,
    /// The last commit that changed it from here, and in which life of the session.
    committed: Option<(Commit, u64)>,
}

/// Times of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) atime: Time,
    pub(crate) mtime: Time,
    pub(crate) ctime: Time,
    /// Owner, who may set them.
    pub(crate) owner: Caller,
    /// What is made in this directory gets its group.
    pub(crate) gives_group: bool,
}

/// Somebody who holds, or held, locks on an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) family: LockFamily,
    pub(crate) owner: u64,
    /// The handle the lock was taken through.
    pub(crate) fh: u64,
}

/// See [`Inode::begin_changing`].
#[derive(Debug)]
pub(crate) struct Changing(Arc<Inode>);

impl Drop for Changing {
    fn drop(&mut self) {
        self.0.changing.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Inode {
    fn new(nodeid: u64, node: Node, kind: u32) -> Self {
        Self {
            nodeid,
            node,
            kind,
            parent: AtomicU64::new(0),
            name: AtomicU64::new(0),
            changes_seen: AtomicU64::new(0),
            changes_told: AtomicU64::new(0),
            dropping: AtomicU32::new(0),
            changing: AtomicU32::new(0),
            state: Mutex::default(),
            content: LazyLock::new(Box::default),
            names: LazyLock::new(Box::default),
            appetite: Appetite::default(),
            streams: Streams::default(),
            smalls: Smalls::default(),
        }
    }

    /// Its number.
    #[must_use]
    pub fn ino(&self) -> Ino {
        self.node.ino
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind == S_IFDIR
    }

    /// Whether it is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.kind == S_IFREG
    }

    /// Number of the directory it was last found in; its own for the root.
    pub(crate) fn parent(&self) -> Ino {
        match self.parent.load(Ordering::Relaxed) {
            0 => self.ino(),
            parent => Ino(parent),
        }
    }

    pub(crate) fn set_parent(&self, parent: Ino) {
        self.parent.store(parent.0, Ordering::Relaxed);
    }

    /// Hash of the name it was last found under, in [`Inode::parent`].
    pub(crate) fn name(&self) -> u64 {
        self.name.load(Ordering::Relaxed)
    }

    /// It was found in `parent` under the name of this hash.
    pub(crate) fn set_place(&self, parent: Ino, name: u64) {
        self.set_parent(parent);
        self.name.store(name, Ordering::Relaxed);
    }

    /// The server is about to change its attributes, or just did (see [`Content::doubt_attr`]).
    pub(crate) fn doubt_attr(&self) {
        if self.is_dir() {
            self.content.doubt_attr();
        }
    }

    /// Somebody else changed the file. The number of the change, for `pages_dropped`.
    pub(crate) fn note_change(&self) -> u64 {
        self.changes_seen.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The kernel dropped its pages after this change.
    pub fn pages_dropped(&self, change: u64) {
        self.changes_told.fetch_max(change, Ordering::SeqCst);
    }

    /// A range of its pages is about to be dropped.
    pub(crate) fn begin_dropping(&self) {
        self.dropping.fetch_add(1, Ordering::SeqCst);
    }

    /// It has been.
    pub(crate) fn end_dropping(&self) {
        self.dropping.fetch_sub(1, Ordering::SeqCst);
    }

    /// The server is asked to change names in this directory, as long as the result is kept.
    pub(crate) fn begin_changing(self: &Arc<Self>) -> Changing {
        self.changing.fetch_add(1, Ordering::SeqCst);
        Changing(Arc::clone(self))
    }

    /// Whether the kernel holds the directory's lock until the server has changed a name in it.
    pub(crate) fn is_changing(&self) -> bool {
        self.changing.load(Ordering::SeqCst) > 0
    }

    /// Whether the kernel may hold pages that are no longer the file's.
    pub(crate) fn has_stale_pages(&self) -> bool {
        self.changes_told.load(Ordering::SeqCst) < self.changes_seen.load(Ordering::SeqCst)
            || self.dropping.load(Ordering::SeqCst) > 0
    }

    /// Remembers times, and lays an access time over `attr` that the server does not know yet.
    pub(crate) fn note_times(&self, attr: &mut Attr) {
        let mut state = self.lock();
        if let Some(atime) = state.atime {
            attr.atime = attr.atime.max(atime);
        }
        let owner = Caller { uid: attr.uid, gid: attr.gid };
        let gives_group = attr.mode & S_ISGID != 0;
        state.times =
            Some(Times { atime: attr.atime, mtime: attr.mtime, ctime: attr.ctime, owner, gives_group });
    }

    /// Whether what is made in this directory gets its group; that is also assumed while nothing is known.
    pub(crate) fn gives_group(&self) -> bool {
        self.lock().times.is_none_or(|times| times.gives_group)
    }

    /// The server says that it has no extended attributes, under a lease of this life; or does not say so.
    pub(crate) fn note_plain(&self, life: Option<u64>) {
        self.lock().plain_in = life;
    }

    /// Attributes as the server told them last under a lease: when that was asked, and in which life of the leases.
    pub(crate) fn told(&self) -> Option<(Attr, Asked, u64)> {
        self.lock().told
    }

    /// The server told them; or they change.
    pub(crate) fn set_told(&self, told: Option<(Attr, Asked, u64)>) {
        self.lock().told = told;
    }

    /// Its lease was recalled.
    pub(crate) fn doubt_plain(&self) {
        self.lock().plain_in = None;
    }

    /// Whether it is known to have no extended attributes. `life`: of the leases, now.
    pub(crate) fn is_plain(&self, life: u64) -> bool {
        let state = self.lock();
        !state.is_decorated && state.plain_in == Some(life)
    }

    /// Extended attributes are about to be set here.
    pub(crate) fn decorate(&self) {
        self.lock().is_decorated = true;
    }

    /// Decides by `rule` whether the inode's access time changes to `now`. True when it did.
    pub(crate) fn touch(&self, now: Time, rule: impl FnOnce(&Times, Time) -> bool) -> bool {
        let mut state = self.lock();
        let Some(times) = &mut state.times else { return false };
        if !rule(times, now) {
            return false;
        }
        times.atime = now;
        state.atime = Some(now);
        true
    }

    /// The access time to be sent, which is kept until `settle_atime`.
    pub(crate) fn pending_atime(&self) -> Option<(Time, Times)> {
        let state = self.lock();
        state.atime.zip(state.times)
    }

    /// The server knows `atime` now; or forgets any, when somebody set it explicitly (`None`).
    pub(crate) fn settle_atime(&self, sent: Option<Time>) {
        let mut state = self.lock();
        if sent.is_none() || state.atime == sent {
            state.atime = None;
        }
        if let (Some(sent), Some((attr, ..))) = (sent, &mut state.told) {
            attr.atime = attr.atime.max(sent);
        }
    }

    /// A lock was taken.
    pub(crate) fn add_owner(&self, owner: Owner) {
        let mut state = self.lock();
        if !state.owners.contains(&owner) {
            state.owners.push(owner);
        }
    }

    /// A call that changed it was answered at this commit, in this life of the session.
    pub(crate) fn note_commit(&self, commit: (Commit, u64)) {
        self.lock().committed = Some(commit);
    }

    /// Whether changes made from here were lost, and nobody was told yet.
    pub(crate) fn take_lost(&self, is_lost: impl FnOnce((Commit, u64)) -> bool) -> bool {
        self.lock().committed.take_if(|commit| is_lost(*commit)).is_some()
    }

    /// Takes out the owners that `gone` picks; each is returned once.
    pub(crate) fn take_owners(&self, gone: impl Fn(&Owner) -> bool) -> Vec<Owner> {
        let mut state = self.lock();
        if state.owners.is_empty() {
            return Vec::new();
        }
        let mut taken: Vec<Owner> = Vec::new();
        state.owners.retain(|owner| {
            let go = gone(owner);
            if go && !taken.iter().any(|known| (known.family, known.owner) == (owner.family, owner.owner)) {
                taken.push(*owner);
            }
            !go
        });
        taken
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Held {
    inode: Arc<Inode>,
    /// Lookups the kernel has not given back.
    lookups: u64,
}

/// The table of inodes. The root is always in it.
#[derive(Debug)]
pub(crate) struct InodeTable {
    shards: Box<[Mutex<HashMap<u64, Held>>]>,
    count: AtomicUsize,
    root: Arc<Inode>,
}

impl InodeTable {
    pub(crate) fn new(root: Node) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            count: AtomicUsize::new(0),
            root: Arc::new(Inode::new(ROOT_NODEID, root, S_IFDIR)),
        }
    }

    /// The inode the kernel calls `nodeid`.
    ///
    /// # Errors
    /// `ESTALE` when it was never looked up, or forgotten.
    pub(crate) fn get(&self, nodeid: u64) -> Result<Arc<Inode>, Errno> {
        if nodeid == ROOT_NODEID {
            return Ok(Arc::clone(&self.root));
        }
        self.shard(nodeid).get(&nodeid).map(|held| Arc::clone(&held.inode)).ok_or(Errno::ESTALE)
    }

    /// The inode, if the kernel knows it.
    pub(crate) fn known(&self, ino: Ino) -> Option<Arc<Inode>> {
        self.nodeid(ino).and_then(|nodeid| self.get(nodeid).ok())
    }

    /// The directory in which an inode was found last, if the kernel knows it.
    pub(crate) fn home(&self, inode: &Inode) -> Option<Arc<Inode>> {
        self.known(inode.parent())
    }

    /// Whether the kernel knows the inode.
    pub(crate) fn is_known(&self, ino: Ino) -> bool {
        self.nodeid(ino)
            .is_some_and(|nodeid| nodeid == ROOT_NODEID || self.shard(nodeid).contains_key(&nodeid))
    }

    /// Counts one more lookup of what the server gave out.
    ///
    /// # Errors
    /// `EIO` for numbers no server gives out.
    pub(crate) fn remember(&self, entry: &Entry) -> Result<Arc<Inode>, Errno> {
        let nodeid = self.nodeid(entry.node.ino).ok_or(Errno::EIO)?;
        if nodeid == ROOT_NODEID {
            return Ok(Arc::clone(&self.root));
        }
        let mut shard = self.shard(nodeid);
        match shard.entry(nodeid) {
            Slot::Occupied(mut slot) => {
                let held = slot.get_mut();
                held.lookups += 1;
                Ok(Arc::clone(&held.inode))
            }
            Slot::Vacant(slot) => {
                let inode = Arc::new(Inode::new(nodeid, entry.node, entry.attr.mode & S_IFMT));
                slot.insert(Held { inode: Arc::clone(&inode), lookups: 1 });
                self.count.fetch_add(1, Ordering::Relaxed);
                Ok(inode)
            }
        }
    }

    /// The kernel gives back `lookups`. The inode, when it was the last one.
    pub(crate) fn forget(&self, nodeid: u64, lookups: u64) -> Option<Arc<Inode>> {
        if nodeid == ROOT_NODEID {
            return None;
        }
        let mut shard = self.shard(nodeid);
        let held = shard.get_mut(&nodeid)?;
        held.lookups = held.lookups.saturating_sub(lookups);
        if held.lookups > 0 {
            return None;
        }
        let held = shard.remove(&nodeid)?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        Some(held.inode)
    }

    /// All of them, the root too.
    pub(crate) fn all(&self) -> Vec<Arc<Inode>> {
        let mut all = vec![Arc::clone(&self.root)];
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(shard.values().map(|held| Arc::clone(&held.inode)));
        }
        all
    }

    /// Inodes in it, the root aside.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The kernel's name for a number: its own, but 1 for the root of the mount. None for numbers that cannot be.
    fn nodeid(&self, ino: Ino) -> Option<u64> {
        if ino == self.root.ino() {
            return Some(ROOT_NODEID);
        }
        // 1 is taken by the root even where the mount's root is a scope below the volume's.
        (ino.0 > ROOT_NODEID).then_some(ino.0)
    }

    fn shard(&self, nodeid: u64) -> MutexGuard<'_, HashMap<u64, Held>> {
        // Numbers come in runs; neighbours fall into different shards.
        let index = usize::try_from(nodeid % SHARDS as u64).unwrap_or(0);
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn attr(ino: u64) -> Attr {
        Attr::new(Ino(ino), S_IFREG | 0o644, Time::default())
    }

    fn entry(ino: u64) -> Entry {
        Entry { node: Node { ino: Ino(ino), seal: ino * 3 }, attr: attr(ino) }
    }

    #[test]
    fn lookups_and_forgets_balance() {
        let table = InodeTable::new(Node { ino: Ino(1), seal: 5 });
        assert_eq!(table.get(7).unwrap_err(), Errno::ESTALE);
        table.remember(&entry(7)).unwrap();
        table.remember(&entry(7)).unwrap();
        assert_eq!(table.count(), 1);
        assert!(table.forget(7, 1).is_none());
        assert_eq!(table.get(7).unwrap().node.seal, 21);
        assert_eq!(table.forget(7, 1).unwrap().ino(), Ino(7));
        assert!(table.forget(7, 1).is_none() && table.get(7).is_err());
        assert_eq!(table.count(), 0);
    }

    #[test]
    fn the_root_of_a_scope_is_nodeid_one() {
        let table = InodeTable::new(Node { ino: Ino(500), seal: 5 });
        assert_eq!(table.get(1).unwrap().ino(), Ino(500));
        assert_eq!(table.remember(&entry(500)).unwrap().nodeid, 1);
        assert_eq!(table.remember(&entry(1)).unwrap_err(), Errno::EIO);
        assert_eq!(table.remember(&entry(0)).unwrap_err(), Errno::EIO);
        assert!(table.forget(1, 100).is_none() && table.get(1).is_ok());
    }

    #[test]
    fn each_owner_is_released_once() {
        let table = InodeTable::new(Node { ino: Ino(1), seal: 5 });
        let inode = table.remember(&entry(7)).unwrap();
        let owner = |owner, fh| Owner { family: LockFamily::Posix, owner, fh };
        for one in [owner(1, 10), owner(1, 11), owner(2, 10), owner(1, 10)] {
            inode.add_owner(one);
        }
        assert_eq!(inode.take_owners(|one| one.owner == 1), [owner(1, 10)]);
        assert!(inode.take_owners(|one| one.owner == 1).is_empty());
        assert_eq!(inode.take_owners(|one| one.fh == 10), [owner(2, 10)]);
    }

    #[test]
    fn an_inode_is_plain_under_a_lease_while_nobody_sets_an_attribute() {
        let inode = InodeTable::new(Node { ino: Ino(1), seal: 0 }).get(1).unwrap();
        assert!(!inode.is_plain(0), "nothing is known");
        inode.note_plain(Some(3));
        assert!(inode.is_plain(3) && !inode.is_plain(4), "all leases became void");
        inode.doubt_plain();
        assert!(!inode.is_plain(3));
        inode.decorate();
        // The answer of a call that went out before the attribute was set.
        inode.note_plain(Some(3));
        assert!(!inode.is_plain(3));
    }

    #[test]
    fn a_loss_is_told_once_and_only_of_what_was_changed() {
        let inode = InodeTable::new(Node { ino: Ino(1), seal: 0 }).get(1).unwrap();
        assert!(!inode.take_lost(|_| true), "nothing was changed from here");
        inode.note_commit((Commit(7), 0));
        assert!(!inode.take_lost(|_| false));
        assert!(inode.take_lost(|commit| commit == (Commit(7), 0)));
        assert!(!inode.take_lost(|_| true), "told once");
    }
}
