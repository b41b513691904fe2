//! Extended attributes, POSIX access control lists among them.
//!
//! The kernel asks for them before many writes (`security.capability`), `ls -l` for every line, and the check of a
//! permission for every directory on the way that is not the caller's own: what is known to have none is answered here.

use flexfs_uring::timer;
use flexfs_wire::attr::S_ISGID;
use flexfs_wire::errno::Errno;
use flexfs_wire::lease::Leases;
use flexfs_wire::message::{Reply, Request, XattrMode};

use super::inode::Inode;
use super::state::{Ctx, Vfs, misfit};
use crate::cancel::or_cancel;
use crate::lease::{ASK_PAUSE, ASKS_MAX};

/// Access lists travel as attributes of these names. They mean nothing to the kernel unless `FUSE_POSIX_ACL` was agreed
/// upon, and an access list that is stored but not enforced is worse than none.
const ACL_PREFIX: &[u8] = b"system.posix_acl_";
/// The list that is checked.
const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
/// Names the server keeps; for others it has an errno of its own.
const KEPT: [&[u8]; 4] = [b"user.", b"trusted.", b"security.", ACL_PREFIX];

impl Vfs {
    /// Whether access control lists are served.
    #[must_use]
    pub fn serves_acls(&self) -> bool {
        !self.flags.no_acl
    }

    /// `getxattr(2)`, all of the value.
    ///
    /// # Errors
    /// Those of the system call.
    pub async fn get_xattr(&self, ctx: Ctx<'_>, nodeid: u64, name: Vec<u8>) -> Result<Vec<u8>, Errno> {
        let inode = self.inodes.get(nodeid)?;
        self.check(&name)?;
        if self.is_plain(&inode) && KEPT.iter().any(|prefix| name.starts_with(prefix)) {
            return Err(Errno::ENODATA);
        }
        // The kernel keeps access lists, absent ones too: they are to come under a lease.
        let kept = name.starts_with(ACL_PREFIX);
        let mut asks = 0;
        loop {
            let request = Request::GetXattr { node: inode.node, name: name.clone() };
            let (result, grant) = self.call_granted(ctx, request).await;
            let good =
                grant.leases.has(Leases::ATTR) && self.remote.recalls().is_good(inode.ino(), grant.asked);
            if kept && !good && asks < ASKS_MAX && matches!(result, Ok(_) | Err(Errno::ENODATA)) {
                // Somebody changes it just now.
                asks += 1;
                or_cancel(timer::sleep(ASK_PAUSE * asks), Some(ctx.cancel)).await?;
                continue;
            }
            return match result? {
                Reply::Bytes(bytes) => Ok(bytes),
                other => Err(misfit(&other)),
            };
        }
    }

    fn is_plain(&self, inode: &Inode) -> bool {
        inode.is_plain(self.remote.recalls().life())
    }

    /// `listxattr(2)`: names, each with a NUL behind it.
    ///
    /// # Errors
    /// Those of the system call.
    pub async fn list_xattr(&self, ctx: Ctx<'_>, nodeid: u64) -> Result<Vec<u8>, Errno> {
        let inode = self.inodes.get(nodeid)?;
        if self.is_plain(&inode) {
            return Ok(Vec::new());
        }
        let mut names = self.call_bytes(ctx, Request::ListXattr { node: inode.node }).await?;
        if !self.serves_acls() {
            names = names
                .split_inclusive(|byte| *byte == 0)
                .filter(|name| !name.starts_with(ACL_PREFIX))
                .flatten()
                .copied()
                .collect();
        }
        Ok(names)
    }

    /// `setxattr(2)`.
    ///
    /// # Errors
    /// Those of the system call.
    pub async fn set_xattr(
        &self,
        ctx: Ctx<'_>,
        nodeid: u64,
        name: Vec<u8>,
        value: Vec<u8>,
        mode: XattrMode,
    ) -> Result<(), Errno> {
        let inode = self.inodes.get(nodeid)?;
        self.check(&name)?;
        inode.decorate();
        self.files.decorate(inode.ino());
        self.call_done(ctx, Request::SetXattr { node: inode.node, name, value, mode }).await
    }

    /// `setxattr(2)` where the kernel does not say whether an access list takes set-gid off: it does, unless the caller
    /// is root or of the file's group. Groups beside his first one are not known here.
    ///
    /// # Errors
    /// Those of the system call.
    pub async fn set_xattr_unsaid(
        &self,
        ctx: Ctx<'_>,
        nodeid: u64,
        name: Vec<u8>,
        value: Vec<u8>,
        mode: XattrMode,
    ) -> Result<(), Errno> {
        let mut mode = mode;
        if name == ACL_ACCESS && mode == XattrMode::Any && ctx.caller.uid != 0 {
            let (attr, _) = self.get_attr(ctx, nodeid).await?;
            if attr.mode & S_ISGID != 0 && attr.gid != ctx.caller.gid {
                mode = XattrMode::AnyWithoutSetGid;
            }
        }
        self.set_xattr(ctx, nodeid, name, value, mode).await
    }

    /// `removexattr(2)`.
    ///
    /// # Errors
    /// Those of the system call.
    pub async fn remove_xattr(&self, ctx: Ctx<'_>, nodeid: u64, name: Vec<u8>) -> Result<(), Errno> {
        let node = self.inodes.get(nodeid)?.node;
        self.check(&name)?;
        // Its change time is the server's.
        self.files.doubt(node.ino);
        let is_list = name.starts_with(ACL_PREFIX);
        match self.call_done(ctx, Request::RemoveXattr { node, name }).await {
            // Taking off a list that is not there is no error, as on local file systems.
            Err(Errno::ENODATA) if is_list => Ok(()),
            other => other,
        }
    }

    fn check(&self, name: &[u8]) -> Result<(), Errno> {
        if !self.serves_acls() && name.starts_with(ACL_PREFIX) { Err(Errno::EOPNOTSUPP) } else { Ok(()) }
    }
}
