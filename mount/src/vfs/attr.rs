//! Attributes of inodes and figures of the volume.

use flexfs_wire::attr::{Attr, SetAttr};
use flexfs_wire::errno::Errno;
use flexfs_wire::lease::Leases;
use flexfs_wire::limits::FILE_BYTES_MAX;
use flexfs_wire::message::{Reply, Request, StatFs};

use super::answer::ValidFor;
use super::state::{Ctx, Grant, Vfs, misfit};

impl Vfs {
    /// `stat(2)`.
    ///
    /// # Errors
    /// `ESTALE` when the inode is gone.
    pub async fn get_attr(&self, ctx: Ctx<'_>, nodeid: u64) -> Result<(Attr, ValidFor), Errno> {
        let inode = self.inodes.get(nodeid)?;
        let recalls = self.remote.recalls();
        let (asked, life, own) = (recalls.asked(), recalls.life(), self.own_changes());
        // The kernel asks once more with every name that is made, and for the time of birth, which it does not keep.
        let here = match inode.is_dir() {
            true => self.known_better(&inode).map(|attr| (attr, asked)),
            false => {
                // First: of a lease that is granted meanwhile it is too old, and never too new.
                let asked = self.files.asked(inode.ino()).unwrap_or_default();
                match self.files.attr_here(inode.ino(), false) {
                    Some(attr) => Some((attr, asked)),
                    None => self.told(&inode),
                }
            }
        };
        if let Some((mut attr, asked)) = here {
            inode.note_times(&mut attr);
            let valid = self.attr_valid(&inode, &attr, Grant { leases: Leases::ATTR, asked, own });
            return Ok((attr, valid));
        }
        let before = inode.is_dir().then(|| (inode.content.doubts(), self.renames()));
        let (result, grant) = self.call_granted(ctx, Request::GetAttr { node: inode.node }).await;
        match result? {
            Reply::Attr(mut attr) => {
                if let Some(before) = before.filter(|_| grant.leases.has(Leases::ATTR)) {
                    inode.content.know_attr(attr, life, before);
                }
                self.settle(&inode, &mut attr);
                let valid = self.attr_valid(&inode, &attr, grant);
                Ok((attr, valid))
            }
            other => Err(misfit(&other)),
        }
    }

    /// `chmod(2)`, `chown(2)`, `truncate(2)`, `utimensat(2)`.
    ///
    /// # Errors
    /// Those of the system calls.
    pub async fn set_attr(
        &self,
        ctx: Ctx<'_>,
        nodeid: u64,
        change: SetAttr,
    ) -> Result<(Attr, ValidFor), Errno> {
        let inode = self.inodes.get(nodeid)?;
        if change.size.is_some_and(|size| size > FILE_BYTES_MAX) {
            return Err(Errno::EFBIG);
        }
        if change.atime.is_some() {
            // What somebody sets wins over what was read before.
            inode.settle_atime(None);
        }
        if let Some((mut attr, grant)) = self.set_attr_behind(ctx, &inode, change).await? {
            inode.note_times(&mut attr);
            let valid = self.attr_valid(&inode, &attr, grant);
            return Ok((attr, valid));
        }
        let asked = self.remote.recalls().asked();
        let is_looked_at = inode.is_file() && change.size.is_none() && !self.files.is_ours(inode.ino());
        inode.doubt_attr();
        let begun = self.note_change([&inode]);
        let set = self.files.set_attr(ctx.caller, inode.node, change, Some(ctx.cancel)).await;
        let ended = self.note_change([&inode]);
        // What it is now is told, if nothing else changed meanwhile.
        let own = if ended == begun + 1 { ended } else { begun };
        inode.doubt_attr();
        let (mut attr, leases) = set?;
        if is_looked_at && let Some(home) = self.inodes.home(&inode) {
            self.want_alone(&home);
        }
        inode.note_times(&mut attr);
        let valid = self.attr_valid(&inode, &attr, Grant { leases, asked, own });
        Ok((attr, valid))
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
