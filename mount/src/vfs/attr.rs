//! Attributes of inodes and figures of the volume.

use flexfs_wire::attr::{Attr, SetAttr};
use flexfs_wire::errno::Errno;
use flexfs_wire::limits::FILE_BYTES_MAX;
use flexfs_wire::message::{Reply, Request, StatFs};

use super::state::{Ctx, Vfs, misfit};

impl Vfs {
    /// `stat(2)`.
    ///
    /// # Errors
    /// `ESTALE` when the inode is gone.
    pub async fn get_attr(&self, ctx: Ctx<'_>, nodeid: u64) -> Result<Attr, Errno> {
        let inode = self.inodes.get(nodeid)?;
        match self.call(ctx, Request::GetAttr { node: inode.node }).await? {
            Reply::Attr(mut attr) => {
                self.settle(&inode, &mut attr);
                Ok(attr)
            }
            other => Err(misfit(&other)),
        }
    }

    /// `chmod(2)`, `chown(2)`, `truncate(2)`, `utimensat(2)`.
    ///
    /// # Errors
    /// Those of the system calls.
    pub async fn set_attr(&self, ctx: Ctx<'_>, nodeid: u64, change: SetAttr) -> Result<Attr, Errno> {
        let inode = self.inodes.get(nodeid)?;
        if change.size.is_some_and(|size| size > FILE_BYTES_MAX) {
            return Err(Errno::EFBIG);
        }
        if change.atime.is_some() {
            // What somebody sets wins over what was read before.
            inode.settle_atime(None);
        }
        let mut attr = self.files.set_attr(ctx.caller, inode.node, change, Some(ctx.cancel)).await?;
        inode.note_times(&mut attr);
        Ok(attr)
    }

    /// `statfs(2)`.
    ///
    /// # Errors
    /// Those of the link.
    pub async fn stat_fs(&self, ctx: Ctx<'_>) -> Result<StatFs, Errno> {
        match self.call(ctx, Request::StatFs).await? {
            Reply::StatFs(figures) => Ok(figures),
            other => Err(misfit(&other)),
        }
    }
}
