//! The file system of one mount.

use std::sync::Arc;

use flexfs_wire::attr::Attr;
use flexfs_wire::errno::Errno;
use flexfs_wire::message::{Caller, Entry, Reply, Request};
use flexfs_wire::settings::Flags;
use serde::{Deserialize, Serialize};

use super::answer::{Found, ValidFor};
use super::args::Forget;
use super::atime::Atimes;
use super::forgotten::Forgotten;
use super::handle::Handles;
use super::inode::{Inode, InodeTable};
use super::notice::{Notice, Notices};
use crate::cancel::Cancel;
use crate::data;
use crate::link::Remote;

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
        Self {
            inodes: InodeTable::new(root),
            forgotten: Forgotten::new(),
            handles: Handles::new(),
            atimes: Atimes::new(!flags.ro && !flags.no_atime),
            remote,
            files,
            notices,
            flags,
        }
    }

    /// Figures for `status`.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures { inodes: self.inodes.count(), open_files: self.handles.count() }
    }

    /// How long the server has said nothing; see [`Remote::quiet_for`].
    #[must_use]
    pub fn quiet_for(&self) -> std::time::Duration {
        self.remote.quiet_for()
    }

    /// The kernel gives back lookups.
    pub fn forget(&self, forgotten: &[Forget]) {
        for one in forgotten {
            if let Some(inode) = self.inodes.forget(one.nodeid, one.lookups) {
                self.forgotten.note(inode.node, inode.parent());
                self.files.forget(inode.ino());
            }
        }
    }

    /// Asks the server.
    pub(crate) async fn call(&self, ctx: Ctx<'_>, request: Request) -> Result<Reply, Errno> {
        let changed = if request.is_mutation() { request.nodes() } else { [None; 2] };
        let reply = self.remote.call(ctx.caller, request, Some(ctx.cancel)).await?;
        let stands = (self.remote.last_commit(), self.remote.generation());
        for inode in changed.iter().flatten().filter_map(|node| self.inodes.known(node.ino)) {
            inode.note_commit(stands);
        }
        Ok(reply)
    }

    /// Asks the server for an inode.
    pub(crate) async fn call_entry(&self, ctx: Ctx<'_>, request: Request) -> Result<Entry, Errno> {
        match self.call(ctx, request).await? {
            Reply::Entry(entry) => Ok(entry),
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
        if lost { synced.and(Err(Errno::EIO)) } else { synced }
    }

    /// The kernel will not hear of a lookup that was counted.
    pub(crate) fn unlook(&self, nodeid: u64) {
        self.forget(&[Forget { nodeid, lookups: 1 }]);
    }

    /// Counts a lookup of `entry` and makes the answer.
    pub(crate) fn found(&self, parent: Option<&Inode>, entry: &Entry) -> Result<Found, Errno> {
        let inode = self.inodes.remember(entry)?;
        if let Some(parent) = parent {
            inode.set_parent(parent.ino());
        }
        let mut attr = entry.attr;
        self.settle(&inode, &mut attr);
        Ok(Self::answer(inode.nodeid, attr))
    }

    /// The answer for an inode.
    pub(crate) fn answer(nodeid: u64, attr: Attr) -> Found {
        Found { nodeid, attr, entry_valid: ValidFor::SECOND, attr_valid: ValidFor::SECOND }
    }

    /// Attributes came from the server: lays over them what it does not know yet, and has the kernel drop pages
    /// that are no longer the file's.
    pub(crate) fn settle(&self, inode: &Arc<Inode>, attr: &mut Attr) {
        if inode.is_file() && self.files.observe(attr) {
            let change = inode.note_change();
            self.notices.post(Notice::Pages { inode: Arc::clone(inode), change });
        }
        inode.note_times(attr);
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
