//! Inodes by number alone: what `open_by_handle_at(2)` and NFS servers ask the kernel for.

use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::message::{Entry, Reply, Request};
use flexfs_wire::seal::Node;

use super::answer::Found;
use super::state::{Ctx, Vfs, misfit};

impl Vfs {
    /// An inode the kernel knew once, by its number.
    ///
    /// # Errors
    /// `ESTALE` when this mount never met it, met too many others since, or it is gone.
    pub async fn find_again(&self, ctx: Ctx<'_>, nodeid: u64) -> Result<Found, Errno> {
        let met = match self.inodes.get(nodeid) {
            Ok(inode) => (inode.node, inode.parent()),
            Err(errno) => self.forgotten.find(Ino(nodeid)).ok_or(errno)?,
        };
        self.find_met(ctx, met).await
    }

    /// The directory such an inode was last found in: so the kernel connects a directory to the tree.
    ///
    /// # Errors
    /// As [`Vfs::find_again`].
    pub async fn find_parent(&self, ctx: Ctx<'_>, nodeid: u64) -> Result<Found, Errno> {
        let parent = self.inodes.get(nodeid)?.parent();
        let met = match self.inodes.known(parent) {
            Some(inode) => (inode.node, inode.parent()),
            None => self.forgotten.find(parent).ok_or(Errno::ESTALE)?,
        };
        self.find_met(ctx, met).await
    }

    async fn find_met(&self, ctx: Ctx<'_>, (node, parent): (Node, Ino)) -> Result<Found, Errno> {
        let (result, grant) = self.call_granted(ctx, Request::GetAttr { node }).await;
        match result? {
            Reply::Attr(attr) => {
                let found = self.found(None, &Entry { node, attr }, grant)?;
                if let Ok(inode) = self.inodes.get(found.nodeid) {
                    inode.set_parent(parent);
                }
                Ok(found)
            }
            other => Err(misfit(&other)),
        }
    }
}
