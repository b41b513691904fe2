//! Listings. Without state here: the kernel's offset is the server's cookie, which stays good while entries come
//! and go, and what did not fit into an answer is asked for again. So no listing shows what was true a while ago.

use flexfs_wire::attr::S_IFDIR;
use flexfs_wire::errno::Errno;
use flexfs_wire::message::{DirEntry, Entry, Reply, Request};
use flexfs_wire::name::Name;

use super::answer::DirItem;
use super::inode::Inode;
use super::state::{Ctx, Grant, Vfs, misfit};

/// Offset behind `.`.
const BEHIND_DOT: u64 = 1;
/// Offset behind `..`; the server's cookies are larger.
const BEHIND_DOT_DOT: u64 = 2;
/// Least bytes asked of the server.
const ASK_BYTES_MIN: usize = 1024;

impl Vfs {
    /// `opendir(3)`: nothing to keep, but the directory must be there.
    ///
    /// # Errors
    /// `ESTALE`, `ENOTDIR`.
    pub fn open_dir(&self, nodeid: u64) -> Result<(), Errno> {
        if self.inodes.get(nodeid)?.is_dir() { Ok(()) } else { Err(Errno::ENOTDIR) }
    }

    /// Lines of a listing from `offset` on, about as many as fill `size` bytes. An empty list is the end. Lines
    /// with attributes that are passed on to the kernel must be given to [`Vfs::accept`].
    ///
    /// # Errors
    /// Those of `getdents(2)`.
    pub async fn read_dir(
        &self,
        ctx: Ctx<'_>,
        nodeid: u64,
        offset: u64,
        size: usize,
        plus: bool,
    ) -> Result<Vec<DirItem>, Errno> {
        let inode = self.inodes.get(nodeid)?;
        let mut items = dots(&inode, offset);
        let cookie = if offset <= BEHIND_DOT_DOT { 0 } else { offset };
        // A line with attributes is about a third longer for the kernel than on the wire.
        let ask = if plus { size / 4 * 3 } else { size }.max(ASK_BYTES_MIN);
        let bytes_max = u32::try_from(ask).unwrap_or(u32::MAX);
        let request = Request::ReadDir { node: inode.node, cookie, bytes_max, plus };
        let (result, grant) = self.call_granted(ctx, request).await;
        match result? {
            Reply::Entries { entries, .. } => {
                items.extend(entries.into_iter().map(|entry| line(entry, grant)));
            }
            other => return Err(misfit(&other)),
        }
        if offset == 0 {
            self.touch_atime(&inode);
        }
        Ok(items)
    }

    /// Looks up what a listing with attributes has none of, because others write to it: for a transport that cannot pass
    /// on a line without them.
    ///
    /// # Errors
    /// Those of the look-ups, but that a name is gone.
    pub async fn complete(&self, ctx: Ctx<'_>, parent: u64, items: &mut [DirItem]) -> Result<(), Errno> {
        let dir = self.inodes.get(parent)?;
        for item in items.iter_mut().filter(|item| item.node.is_none() && item.offset > BEHIND_DOT_DOT) {
            let request = Request::Lookup { parent: dir.node, name: Name::new(item.name())? };
            match self.call_entry(ctx, request).await {
                Ok((entry, grant)) if entry.node.ino.0 == item.ino => item.bring(entry, grant),
                // It has become another since; the kernel will look it up.
                Ok(_) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// The kernel is about to get this line: if it brings attributes, that is a lookup, to be taken back with
    /// [`Vfs::refuse`] when the line does not fit.
    pub fn accept(&self, parent: u64, item: &mut DirItem) {
        let (Some(found), Some((node, grant))) = (item.found, item.node) else { return };
        let name = Name::new(item.name());
        let found = match (self.inodes.get(parent), name) {
            (Ok(parent), Ok(name)) => {
                self.found(Some((&parent, &name)), &Entry { node, attr: found.attr }, grant)
            }
            (Err(errno), _) | (_, Err(errno)) => Err(errno),
        };
        item.found = found.ok();
    }

    /// It does not get it after all.
    pub fn refuse(&self, item: &DirItem) {
        if let Some(found) = item.found {
            self.unlook(found.nodeid);
        }
    }

    /// `fsync(2)` of a directory: everything done here so far is durable.
    ///
    /// # Errors
    /// Those of the link; `EIO`, once, when acknowledged changes of it were lost.
    pub async fn fsync_dir(&self, ctx: Ctx<'_>, nodeid: u64) -> Result<(), Errno> {
        let inode = self.inodes.get(nodeid)?;
        self.sync(ctx, &inode).await
    }
}

fn line(entry: DirEntry, grant: Grant) -> DirItem {
    let name = entry.name.as_bytes();
    let mut item = DirItem::new(name, entry.ino.0, entry.kind, entry.cookie, None);
    // A mount point of a scope cannot be found below itself, so the number is the kernel's name.
    if let Some(Entry { node, attr }) = entry.entry
        && node.ino.0 > super::inode::ROOT_NODEID
    {
        item.bring(Entry { node, attr }, grant);
    }
    item
}

/// `.` and `..`, as far as they are behind `offset`.
fn dots(inode: &Inode, offset: u64) -> Vec<DirItem> {
    let mut items = Vec::new();
    if offset < BEHIND_DOT {
        items.push(DirItem::new(b".", inode.ino().0, S_IFDIR, BEHIND_DOT, None));
    }
    if offset < BEHIND_DOT_DOT {
        items.push(DirItem::new(b"..", inode.parent().0, S_IFDIR, BEHIND_DOT_DOT, None));
    }
    items
}
