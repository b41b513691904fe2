//! Listings. Without state here: the kernel's offset is the server's cookie, which stays good while entries come
//! and go, and what did not fit into an answer is asked for again. So no listing shows what was true a while ago.

use flexfs_wire::attr::S_IFDIR;
use flexfs_wire::errno::Errno;
use flexfs_wire::message::{DirEntry, Entry, Reply, Request};

use super::answer::DirItem;
use super::inode::Inode;
use super::state::{Ctx, Vfs, misfit};

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
        match self.call(ctx, request).await? {
            Reply::Entries { entries, .. } => {
                items.extend(entries.into_iter().map(|entry| self.line(entry)));
            }
            other => return Err(misfit(&other)),
        }
        if offset == 0 {
            self.touch_atime(&inode);
        }
        Ok(items)
    }

    /// The kernel gets this line: if it brings attributes, that is a lookup.
    pub fn accept(&self, parent: u64, item: &DirItem) {
        let (Some(found), Some(node)) = (&item.found, item.node) else { return };
        if let Ok(inode) = self.inodes.remember(&Entry { node, attr: found.attr }) {
            if let Ok(parent) = self.inodes.get(parent) {
                inode.set_parent(parent.ino());
            }
            let mut attr = found.attr;
            inode.note_times(&mut attr);
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

    fn line(&self, entry: DirEntry) -> DirItem {
        let name = entry.name.as_bytes();
        let mut item = DirItem::new(name, entry.ino.0, entry.kind, entry.cookie, None);
        // A mount point of a scope cannot be found below itself, so the number is the kernel's name.
        if let Some(Entry { node, mut attr }) = entry.entry
            && node.ino.0 > super::inode::ROOT_NODEID
        {
            match self.inodes.known(node.ino) {
                Some(inode) => self.settle(&inode, &mut attr),
                None => drop(attr.is_file() && self.files.observe(&mut attr)),
            }
            item.found = Some(Self::answer(node.ino.0, attr));
            item.node = Some(node);
        }
        item
    }
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
