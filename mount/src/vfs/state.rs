//! The file system of one mount.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam::channel::Sender;
use flexfs_wire::attr::Attr;
use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::lease::Leases;
use flexfs_wire::message::{Caller, Entry, Reply, Request};
use flexfs_wire::name::Name;
use flexfs_wire::settings::Flags;
use serde::{Deserialize, Serialize};

use super::answer::{Found, ValidFor};
use super::args::Forget;
use super::atime::Atimes;
use super::forgotten::Forgotten;
use super::handle::Handles;
use super::inode::{Inode, InodeTable};
use super::known;
use super::left::Left;
use super::notice::{Notice, Notices};
use super::prefetch::Prefetch;
use super::quiet::Quiet;
use super::recall::{Kernel, Task};
use crate::cancel::Cancel;
use crate::data;
use crate::lease::Asked;
use crate::link::Remote;
use crate::plain::{self, Passing};

/// Who asks, and whether he still waits.
#[derive(Clone, Copy, Debug)]
pub struct Ctx<'a> {
    /// Ids of the process.
    pub caller: Caller,
    /// Raised when it no longer waits.
    pub cancel: &'a Cancel,
}

/// The file system of one mount. Shared by all cores.
#[derive(Debug)]
pub struct Vfs {
    pub(crate) remote: Arc<Remote>,
    pub(crate) files: Arc<data::Files<Remote>>,
    pub(crate) inodes: InodeTable,
    pub(crate) forgotten: Forgotten,
    pub(crate) handles: Handles,
    pub(crate) atimes: Atimes,
    pub(crate) notices: Notices,
    pub(crate) flags: Flags,
    /// What is made may be sent behind where nobody else looks: nothing of what the server refuses for is in force.
    pub(crate) makes_behind: bool,
    /// Bytes may be sent behind the program that closes the file: no bound on space may refuse them.
    pub(crate) closes_behind: bool,
    /// Renames begun, and ended.
    pub(crate) renames: Arc<AtomicU64>,
    /// Changes of attributes begun, and ended (`told`).
    pub(crate) own_changes: AtomicU64,
    pub(crate) left: Arc<Left>,
    /// Entries of directories are brought before they are looked up. Not where the server decides by who asks.
    pub(crate) looks_ahead: bool,
    pub(crate) prefetch: Arc<Prefetch>,
    /// The kernel can be told to forget all names at once, without a lock: only then it may keep any.
    pub(crate) keeps_names: AtomicBool,
    /// Opens for reading are noted here, and told to the server when it matters.
    pub(crate) opens_quietly: bool,
    pub(crate) quiet: Arc<Quiet>,
    /// Files that the kernel reads by itself, where that may be; set before the first request is served.
    pub(crate) passing: OnceLock<Arc<Passing>>,
    /// The kernel's caches.
    pub(crate) kernel: OnceLock<Arc<dyn Kernel>>,
    /// What the threads that process recalls are to do.
    pub(crate) tasks: OnceLock<Sender<Task>>,
}

/// What an answer grants, and when it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) leases: Leases,
    pub(crate) asked: Asked,
    /// Changes of this mount by then.
    pub(crate) own: u64,
}

/// Figures for `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Inodes the kernel holds.
    pub inodes: usize,
    /// Files it has open.
    pub open_files: usize,
}

impl Vfs {
    /// The file system a session gives access to.
    #[must_use]
    pub fn new(remote: Arc<Remote>, files: Arc<data::Files<Remote>>, notices: Notices) -> Self {
        let granted = remote.granted();
        let (root, flags) = (granted.root, granted.flags);
        // A soft mount wants errors where they are met.
        let may_wait = !flags.ro && !remote.is_soft();
        let makes_behind = may_wait && !flags.root_squash && granted.settings.max_inodes == 0;
        let closes_behind = may_wait && granted.settings.max_blocks == 0;
        // Elsewhere the server decides by what is open: who has it open keeps what leaves his scope, or is given to root.
        let opens_quietly = granted.root.ino == Ino::ROOT && !flags.root_squash;
        Self {
            inodes: InodeTable::new(root),
            forgotten: Forgotten::new(),
            handles: Handles::new(),
            atimes: Atimes::new(!flags.ro && !flags.no_atime),
            remote,
            files,
            notices,
            flags,
            makes_behind,
            closes_behind,
            renames: Arc::default(),
            own_changes: AtomicU64::new(0),
            left: Arc::default(),
            looks_ahead: !flags.root_squash,
            prefetch: Arc::default(),
            keeps_names: AtomicBool::new(false),
            opens_quietly,
            quiet: Arc::default(),
            passing: OnceLock::new(),
            kernel: OnceLock::new(),
            tasks: OnceLock::new(),
        }
    }

    /// Figures for `status`.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures { inodes: self.inodes.count(), open_files: self.handles.count() }
    }

    /// Whether files may be read by the kernel itself, if it agrees: nothing in the volume can change, and what may lie on the local
    /// disk in plain form has a place there.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.remote.is_unchanging() && self.remote.cipher().is_none() && self.remote.disk().is_some()
    }

    /// The kernel has agreed on `device`; before the first request is served.
    pub fn pass_through(&self, device: &Arc<OwnedFd>) {
        let Some(disk) = self.remote.disk() else { return };
        match Passing::new(&self.remote, &self.files, disk, device) {
            Ok(passing) => drop(self.passing.set(passing)),
            Err(error) => {
                tracing::warn!(%error, "no file is read by the kernel itself: the folder cannot be used")
            }
        }
    }

    /// Figures of what the kernel reads by itself, for `status`.
    #[must_use]
    pub fn passing_figures(&self) -> Option<plain::Figures> {
        self.passing.get().map(|passing| passing.figures())
    }

    /// How long the server has said nothing; see [`Remote::quiet_for`].
    #[must_use]
    pub fn quiet_for(&self) -> std::time::Duration {
        self.remote.quiet_for()
    }

    /// The errno of all operations, once the session is over.
    #[must_use]
    pub fn ended(&self) -> Option<Errno> {
        self.remote.ended()
    }

    /// Changes when a rename begins, and when it ends.
    pub(crate) fn renames(&self) -> u64 {
        self.renames.load(Ordering::SeqCst)
    }

    /// The kernel gives back lookups.
    pub fn forget(&self, forgotten: &[Forget]) {
        for one in forgotten {
            // First: who sees it forgotten sees that it was known (`prefetch`).
            self.remote.recalls().note_left(Ino(one.nodeid));
            if let Some(inode) = self.inodes.forget(one.nodeid, one.lookups) {
                self.forgotten.note(inode.node, inode.parent());
                // Listed by this client, and never asked for by the kernel.
                let mut left = Vec::new();
                if inode.is_dir() {
                    left = inode.content.take_children();
                    left.append(&mut inode.content.take_ahead());
                }
                left.retain(|ino| !self.inodes.is_known(*ino));
                left.push(inode.ino());
                if let Some(dir) = self.inodes.home(&inode) {
                    dir.content.forget(inode.name(), inode.ino());
                }
                self.files.forget(inode.ino());
                self.left.add(left);
            }
        }
    }

    /// Does what a program asked for, which may wait for it.
    pub(crate) async fn hurrying<F: Future>(&self, work: F) -> F::Output {
        self.remote.behind().hurrying(work).await
    }

    /// Asks the server.
    pub(crate) async fn call(&self, ctx: Ctx<'_>, request: Request) -> Result<Reply, Errno> {
        if matches!(request, Request::Lock { .. }) {
            return self.remote.call(ctx.caller, request, Some(ctx.cancel)).await;
        }
        self.call_granted(ctx, request).await.0
    }

    /// Asks the server, for something that may be kept.
    pub(crate) async fn call_granted(&self, ctx: Ctx<'_>, request: Request) -> (Result<Reply, Errno>, Grant) {
        let asked = self.remote.recalls().asked();
        let is_change = request.is_mutation();
        let nodes = if is_change { request.nodes() } else { [None; 2] };
        let changed = nodes.map(|node| node.and_then(|node| self.inodes.known(node.ino)));
        let doubt = || {
            changed.iter().flatten().for_each(|inode| inode.doubt_attr());
            if is_change {
                self.note_change(changed.iter().flatten());
            }
        };
        doubt();
        let own = self.own_changes();
        let (result, leases) = self.remote.call_leased(ctx.caller, request, Some(ctx.cancel)).await;
        // What was asked meanwhile may be from before.
        doubt();
        let grant = Grant { leases, asked, own };
        let Ok(reply) = result else { return (result, grant) };
        let stands = (self.remote.last_commit(), self.remote.generation());
        changed.iter().flatten().for_each(|inode| inode.note_commit(stands));
        (Ok(reply), grant)
    }

    /// Asks the server for an inode.
    pub(crate) async fn call_entry(&self, ctx: Ctx<'_>, request: Request) -> Result<(Entry, Grant), Errno> {
        let (result, grant) = self.call_granted(ctx, request).await;
        match result? {
            Reply::Entry(entry) => Ok((entry, grant)),
            other => Err(misfit(&other)),
        }
    }

    /// Asks the server to do something that has no answer.
    pub(crate) async fn call_done(&self, ctx: Ctx<'_>, request: Request) -> Result<(), Errno> {
        match self.call(ctx, request).await? {
            Reply::Done => Ok(()),
            other => Err(misfit(&other)),
        }
    }

    /// Asks the server for bytes.
    pub(crate) async fn call_bytes(&self, ctx: Ctx<'_>, request: Request) -> Result<Vec<u8>, Errno> {
        match self.call(ctx, request).await? {
            Reply::Bytes(bytes) => Ok(bytes),
            other => Err(misfit(&other)),
        }
    }

    /// Everything done with an inode so far is durable.
    pub(crate) async fn sync(&self, ctx: Ctx<'_>, inode: &Inode) -> Result<(), Errno> {
        self.remote.settle(Some(ctx.cancel)).await?;
        let failed = self.remote.behind().take_failure(inode.ino());
        let synced = if inode.is_file() {
            self.files.fsync(inode.node, Some(ctx.cancel)).await
        } else {
            self.remote.sync_to(self.remote.last_commit(), Some(ctx.cancel)).await
        };
        // Both may know of the same loss, which is to be told once.
        let lost = inode.take_lost(|(commit, generation)| self.remote.lost_after(commit, generation));
        if lost {
            tracing::error!(
                ino = inode.ino().0,
                "changes of this inode that the metadata server had acknowledged were lost: it restarted, and by then \
                 did not know this session any more. Its fsync fails once"
            );
        }
        let failed = failed.map(|errno| if errno == Errno::ENOSPC { errno } else { Errno::EIO });
        match failed.or_else(|| lost.then_some(Errno::EIO)) {
            Some(errno) => synced.and(Err(errno)),
            None => synced,
        }
    }

    /// The kernel will not hear of a lookup that was counted.
    pub(crate) fn unlook(&self, nodeid: u64) {
        self.forget(&[Forget { nodeid, lookups: 1 }]);
    }

    /// Counts a lookup of `entry`, found under a name, and makes the answer.
    pub(crate) fn found(
        &self,
        place: Option<(&Inode, &Name)>,
        entry: &Entry,
        grant: Grant,
    ) -> Result<Found, Errno> {
        let inode = self.inodes.remember(entry)?;
        let entry_valid = match place {
            Some((parent, name)) => {
                let valid = self.name_valid(parent, name, grant);
                let (hash, recalls) = (known::hash(name), self.remote.recalls());
                inode.set_place(parent.ino(), hash);
                let is_good = || valid == ValidFor::LEASE && recalls.is_good(parent.ino(), grant.asked);
                let alone = grant.leases.has(Leases::ALONE) && !inode.is_dir();
                parent.content.learn(hash, inode.ino(), alone, || is_good().then(|| recalls.life()));
                valid
            }
            None => ValidFor::NOTHING,
        };
        if grant.leases.has(Leases::BORN) {
            // As with names: noted before it is looked whether a recall came.
            let recalls = self.remote.recalls();
            let alone = grant.leases.has(Leases::ALONE);
            inode.content.begin(recalls.life(), alone.then_some((entry.attr, self.renames())));
            if !recalls.is_good(inode.ino(), grant.asked) {
                inode.content.end();
            }
        }
        let mut attr = entry.attr;
        self.settle(&inode, &mut attr);
        let attr_valid = self.attr_valid(&inode, &attr, grant);
        Ok(Found { nodeid: inode.nodeid, attr, entry_valid, attr_valid })
    }

    /// Attributes of a directory in which changes are made that the server does not know yet.
    pub(crate) fn known_better(&self, inode: &Inode) -> Option<Attr> {
        if !inode.is_dir() {
            return None;
        }
        inode.content.attr(self.remote.recalls().life(), self.renames())
    }

    /// How long the kernel may keep attributes that came with this grant. The inode must be in the table already: a recall
    /// that comes now tells the kernel of it, one that came is seen here.
    pub(crate) fn attr_valid(&self, inode: &Inode, attr: &Attr, grant: Grant) -> ValidFor {
        let (ino, recalls) = (inode.ino(), self.remote.recalls());
        // As with names: noted before it is looked whether a recall came.
        inode.note_plain((!attr.has_xattrs && grant.leases.has(Leases::ATTR)).then(|| recalls.life()));
        let is_good = recalls.is_good(ino, grant.asked);
        if !is_good {
            inode.doubt_plain();
        }
        // Of a directory that was asked for by its name: what is on its way there is not in the answer.
        let is_all = !inode.is_dir()
            || self.remote.behind().before([ino]).is_none()
            || self.known_better(inode).is_some();
        let valid = ValidFor::lease(is_good && is_all && self.files.may_keep(ino, grant.leases));
        if valid == ValidFor::LEASE {
            self.note_told(inode, attr, grant);
        }
        valid
    }

    /// How long the kernel may keep a name, present or absent, and notes that it does.
    pub(crate) fn name_valid(&self, parent: &Inode, name: &Name, grant: Grant) -> ValidFor {
        if !grant.leases.has(Leases::NAMES) || !self.keeps_names.load(Ordering::Relaxed) {
            return ValidFor::NOTHING;
        }
        // In this order: a recall that comes now finds the name, one that came is seen here.
        parent.names.add(name);
        ValidFor::lease(self.remote.recalls().is_good(parent.ino(), grant.asked))
    }

    /// Attributes came from the server: lays over them what it does not know yet, and has the kernel drop pages
    /// that are no longer the file's.
    pub(crate) fn settle(&self, inode: &Arc<Inode>, attr: &mut Attr) {
        if inode.is_file() && self.files.observe(attr) {
            self.drop_pages(inode);
        }
        if let Some(better) = self.known_better(inode) {
            *attr = better;
        }
        if inode.is_dir() {
            inode.content.note_entries(attr.size);
        }
        inode.note_times(attr);
    }

    /// Has the kernel drop the pages of a file; opens do not keep them until it did.
    pub(crate) fn drop_pages(&self, inode: &Arc<Inode>) {
        let change = inode.note_change();
        self.notices.post(Notice::Pages { inode: Arc::clone(inode), change });
    }
}

/// The server answered something else than was asked for.
pub(crate) fn misfit(reply: &Reply) -> Errno {
    let kind = std::mem::discriminant(reply);
    tracing::error!(
        ?kind,
        "the server's answer does not fit the request: versions that do not belong together?"
    );
    Errno::EPROTO
}
