//! Attributes: `chmod`, `chown`, `utimensat`, `truncate`.

use flexfs_wire::attr::{S_ISGID, S_ISUID, SetAttr, SetTime};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::limits::FILE_BYTES_MAX;
use flexfs_wire::message::Reply;
use flexfs_wire::time::Time;

use super::acl::{self, Acl};
use super::context::Context;
use super::machine::Namespace;
use super::record::Inode;
use super::txn::Txn;
use crate::engine::{Store, key};

/// Group execution: without it set-gid stood for mandatory locking and is left alone (`FUSE_HANDLE_KILLPRIV_V2`).
const S_IXGRP: u32 = 0o010;
const PERMISSIONS: u32 = 0o7777;

impl<S: Store> Namespace<S> {
    pub(super) fn set_attr(
        &mut self,
        context: &Context,
        txn: &mut Txn,
        ino: Ino,
        change: &SetAttr,
    ) -> Result<Reply, Errno> {
        let mut inode = self.inode(txn, ino)?;
        context.check_change(&inode, change)?;
        if change.uid.is_some() || change.gid.is_some() {
            inode.uid = change.uid.unwrap_or(inode.uid);
            inode.gid = change.gid.unwrap_or(inode.gid);
            // Linux clears them for root, too (`chown(2)`), but never on directories.
            if !inode.is_dir() {
                inode.kill_privileges();
            }
        }
        if let Some(size) = change.size {
            self.resize(txn, &mut inode, size)?;
        }
        if change.kill_privileges {
            inode.kill_privileges();
        }
        if let Some(mode) = change.mode {
            self.change_mode(txn, &mut inode, mode)?;
        }
        inode.ctime = context.now;
        set_time(&mut inode.atime, change.atime, context.now);
        set_time(&mut inode.mtime, change.mtime, context.now);
        set_time(&mut inode.ctime, change.ctime, context.now);
        txn.set_inode(inode);
        Ok(Reply::Attr(inode.attr()))
    }

    fn change_mode(&mut self, txn: &mut Txn, inode: &mut Inode, mode: u32) -> Result<(), Errno> {
        inode.mode = (inode.mode & !PERMISSIONS) | (mode & PERMISSIONS);
        if let Some(bytes) = self.xattr_value(inode, acl::ACCESS)?
            && let Some(list) = Acl::parse(&bytes)?
        {
            txn.batch.put(key::xattr(inode.ino, acl::ACCESS), list.chmod(mode).bytes());
        }
        Ok(())
    }

    /// `truncate(2)`: cuts what is beyond, or makes a hole up to the new end. The caller stores the inode.
    pub(super) fn resize(&mut self, txn: &mut Txn, inode: &mut Inode, size: u64) -> Result<(), Errno> {
        if inode.is_dir() {
            return Err(Errno::EISDIR);
        }
        if !inode.is_file() {
            return Err(Errno::EINVAL);
        }
        if size > FILE_BYTES_MAX {
            return Err(Errno::EFBIG);
        }
        if size < inode.size {
            // Space allocated beyond the end goes as well.
            self.kill_extents(txn, inode, size, u64::MAX)?;
            self.cut_inline(txn, inode, size)?;
        }
        if size == inode.size {
            inode.mtime = txn.now;
            inode.ctime = txn.now;
        } else {
            inode.touch_data(txn.now);
        }
        inode.size = size;
        Ok(())
    }
}

impl Inode {
    /// Clears set-uid, and set-gid where group execution is on.
    pub(super) fn kill_privileges(&mut self) {
        self.mode &= !S_ISUID;
        if self.mode & S_IXGRP != 0 {
            self.mode &= !S_ISGID;
        }
    }
}

fn set_time(time: &mut Time, change: Option<SetTime>, now: Time) {
    match change {
        Some(SetTime::Now) => *time = now,
        Some(SetTime::At(at)) => *time = at,
        None => {}
    }
}
