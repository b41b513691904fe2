//! Another name for an inode: `link(2)`, and the first name of an `O_TMPFILE`.

use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::limits::LINK_COUNT_MAX;
use flexfs_wire::message::Reply;
use flexfs_wire::name::Name;

use super::access::{SEARCH, WRITE};
use super::context::Context;
use super::lookup::entry;
use super::machine::Namespace;
use super::txn::Txn;
use crate::engine::Store;

impl<S: Store> Namespace<S> {
    pub(super) fn link(
        &mut self,
        context: &Context,
        txn: &mut Txn,
        ino: Ino,
        parent: Ino,
        name: &Name,
    ) -> Result<Reply, Errno> {
        let mut dir = self.living_dir(txn, parent)?;
        if self.dentry(txn, parent, name)?.is_some() {
            return Err(Errno::EEXIST);
        }
        context.check(&dir, WRITE | SEARCH)?;
        let mut inode = self.inode(txn, ino)?;
        if inode.is_dir() {
            return Err(Errno::EPERM);
        }
        if inode.nlink == 0 && !inode.linkable {
            return Err(Errno::ENOENT);
        }
        if inode.nlink >= LINK_COUNT_MAX {
            return Err(Errno::EMLINK);
        }
        if inode.nlink == 0 {
            inode.linkable = false;
            txn.unset_orphan(ino);
        }
        inode.nlink += 1;
        inode.ctime = context.now;
        txn.enter(&mut dir, name, ino, inode.kind());
        txn.set_inode(dir);
        txn.set_inode(inode);
        Ok(Reply::Entry(entry(&inode)))
    }
}
