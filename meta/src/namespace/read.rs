//! Requests that change nothing.

use flexfs_wire::attr::S_IFLNK;
use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::message::{Reply, Request, StatFs};

use super::context::Context;
use super::machine::Namespace;
use crate::engine::Store;

/// Inodes shown as the total where no limit is set: what programs can still print and add.
const INODES_SHOWN: u64 = 1 << 40;

impl<S: Store> Namespace<S> {
    pub(super) fn read(&mut self, context: &Context, request: &Request) -> Result<Reply, Errno> {
        match request {
            Request::Lookup { parent, name } => self.lookup(context, parent.ino, name),
            Request::LookupToOpen { parent, name } => self.lookup_to_open(context, parent.ino, name),
            Request::GetAttr { node } => {
                let txn = self.begin(context.now);
                Ok(Reply::Attr(self.inode(&txn, node.ino)?.attr()))
            }
            Request::ReadLink { node } => self.read_link(context, node.ino),
            Request::ReadDir { node, cookie, bytes_max, plus } => {
                self.read_dir(context, node.ino, *cookie, *bytes_max, *plus)
            }
            Request::ReadAhead { node, cookie, first, count, open } => {
                self.read_ahead(context, node.ino, first.as_ref().ok_or(*cookie), *count, *open)
            }
            Request::GetXattr { node, name } => self.xattr(context, node.ino, name),
            Request::ListXattr { node } => self.list_xattrs(context, node.ino),
            Request::StatFs => Ok(Reply::StatFs(self.stat_fs())),
            Request::ReadLayout { node, start, end } => self.read_layout(context, node.ino, *start, *end),
            Request::TestLock { node, lock } => self.test_lock(context, node.ino, lock),
            _ => Err(Errno::EPROTO),
        }
    }

    fn read_link(&mut self, context: &Context, ino: Ino) -> Result<Reply, Errno> {
        let txn = self.begin(context.now);
        let inode = self.inode(&txn, ino)?;
        if inode.kind() != S_IFLNK {
            return Err(Errno::EINVAL);
        }
        Ok(Reply::Bytes(self.data(&txn, ino)?))
    }

    fn stat_fs(&self) -> StatFs {
        let used = self.state.bytes;
        let free = self.limits.bytes_max.saturating_sub(used).min(self.limits.store_free_bytes);
        let total = self.limits.bytes_max.min(used.saturating_add(self.limits.store_free_bytes));
        let inodes_total = self.limits.inodes_max.min(INODES_SHOWN);
        StatFs {
            bytes_total: total.max(used),
            bytes_free: free,
            inodes_total,
            inodes_free: inodes_total.saturating_sub(self.state.inodes),
        }
    }
}
