//! Extended attributes.

use flexfs_wire::errno::Errno;
use flexfs_wire::message::{Request, XattrMode};

use super::state::{Ctx, Vfs};

/// POSIX ACLs travel as attributes of these names. They mean nothing to the kernel unless `FUSE_POSIX_ACL` was agreed
/// upon, and an ACL that is stored but not enforced is worse than none.
const ACL_PREFIX: &[u8] = b"system.posix_acl_";

impl Vfs {
    /// `getxattr(2)`, all of the value.
    ///
    /// # Errors
    /// Those of the system call.
    pub async fn get_xattr(&self, ctx: Ctx<'_>, nodeid: u64, name: Vec<u8>) -> Result<Vec<u8>, Errno> {
        let node = self.inodes.get(nodeid)?.node;
        check(&name)?;
        self.call_bytes(ctx, Request::GetXattr { node, name }).await
    }

    /// `listxattr(2)`: names, each with a NUL behind it.
    ///
    /// # Errors
    /// Those of the system call.
    pub async fn list_xattr(&self, ctx: Ctx<'_>, nodeid: u64) -> Result<Vec<u8>, Errno> {
        let node = self.inodes.get(nodeid)?.node;
        self.call_bytes(ctx, Request::ListXattr { node }).await
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
        let node = self.inodes.get(nodeid)?.node;
        check(&name)?;
        self.call_done(ctx, Request::SetXattr { node, name, value, mode }).await
    }

    /// `removexattr(2)`.
    ///
    /// # Errors
    /// Those of the system call.
    pub async fn remove_xattr(&self, ctx: Ctx<'_>, nodeid: u64, name: Vec<u8>) -> Result<(), Errno> {
        let node = self.inodes.get(nodeid)?.node;
        check(&name)?;
        self.call_done(ctx, Request::RemoveXattr { node, name }).await
    }
}

fn check(name: &[u8]) -> Result<(), Errno> {
    if name.starts_with(ACL_PREFIX) { Err(Errno::EOPNOTSUPP) } else { Ok(()) }
}
