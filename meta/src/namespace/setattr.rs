//! Attributes: `chmod`, `chown`, `utimensat`, `truncate`.

use flexfs_wire::attr::{SetAttr, SetTime, without_privileges};
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

const PERMISSIONS: u32 = 0o7777;

impl<S: Store> Namespace<S> {
    pub(super) fn set_attr(
        &mut self,
        context: &Context,
        txn: &mut Txn,
        ino: Ino,
        change: &SetAttr,
    ) -> Result<Reply, Errno> {
        let now = context.stamp();
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
        // Not of directories: there set-gid passes the group on, and `chown(2)` leaves it.
        let kills = change.kill_privileges || (change.size.is_some() && context.is_guarded());
        if kills && !inode.is_dir() {
            inode.kill_privileges();
        }
        if let Some(mode) = change.mode {
            let mode = context.without_foreign_set_gid(mode, inode.gid);
            self.change_mode(txn, &mut inode, mode)?;
        }
        inode.ctime = match change.ctime {
            // A reader's access time leaves it alone; it never goes back, for others may have changed the inode since.
            Some(SetTime::At(at)) => inode.ctime.max(at.min(now)),
            Some(SetTime::Now) | None => now,
        };
        set_time(&mut inode.atime, change.atime, now);
        set_time(&mut inode.mtime, change.mtime, now);
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
        self.mode = without_privileges(self.mode);
    }
}

fn set_time(time: &mut Time, change: Option<SetTime>, now: Time) {
    match change {
        Some(SetTime::Now) => *time = now,
        Some(SetTime::At(at)) => *time = at,
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use flexfs_wire::attr::S_IFREG;
    use flexfs_wire::message::Caller;

    use super::super::context::Rights;
    use super::super::fixture::{Fixture, ROOT};
    use super::*;

    #[test]
    fn chown_clears_set_id_bits_and_chmod_sets_them() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let dir = t.dir(ROOT, "dir");
        let mode = |mode| SetAttr { mode: Some(mode), ..SetAttr::default() };
        let owner = SetAttr { uid: Some(5), gid: Some(6), ..SetAttr::default() };
        for (set, left) in [(0o6755, 0o755), (0o6745, 0o2745)] {
            t.set(file, mode(set)).unwrap();
            assert_eq!(t.attr(file).mode, S_IFREG | set);
            let attr = t.set(file, owner).unwrap();
            assert_eq!((attr.mode & 0o7777, attr.uid, attr.gid), (left, 5, 6));
        }
        t.set(dir, mode(0o6755)).unwrap();
        // As the kernel asks for it.
        let owner = SetAttr { kill_privileges: true, ..owner };
        assert_eq!(t.set(dir, owner).unwrap().mode & 0o7777, 0o6755);
        t.verify();
    }

    #[test]
    fn times() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let at = Time { secs: -5, nanos: 7 };
        let change =
            SetAttr { atime: Some(SetTime::At(at)), mtime: Some(SetTime::Now), ..SetAttr::default() };
        let attr = t.set(file, change).unwrap();
        assert_eq!((attr.atime, attr.mtime, attr.ctime), (at, t.context.now, t.context.now));
        let reader = SetAttr { ctime: Some(SetTime::At(at)), ..change };
        assert_eq!(t.set(file, reader).unwrap().ctime, attr.ctime, "it never goes back");
        let ahead = SetAttr { ctime: Some(SetTime::At(Time { secs: 1 << 40, nanos: 0 })), ..change };
        assert_eq!(t.set(file, ahead).unwrap().ctime, t.context.now);
        t.verify();
    }

    #[test]
    fn sizes() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let dir = t.dir(ROOT, "dir");
        let fifo = t.make(ROOT, "fifo", flexfs_wire::attr::S_IFIFO);
        assert_eq!(t.truncate(dir, 0), Err(Errno::EISDIR));
        assert_eq!(t.truncate(fifo, 0), Err(Errno::EINVAL));
        assert_eq!(t.truncate(file, FILE_BYTES_MAX + 1), Err(Errno::EFBIG));
        let grown = t.truncate(file, 1 << 40).unwrap();
        assert_eq!((grown.size, grown.blocks, grown.version), (1 << 40, 0, 2));
        let same = t.truncate(file, 1 << 40).unwrap();
        assert_eq!(same.version, 2);
        assert!(same.mtime > grown.mtime);
        t.write_inline(file, 0, b"0123456789").unwrap();
        t.truncate(file, 4).unwrap();
        t.truncate(file, 100).unwrap();
        assert_eq!(t.layout(file, 0, 100).inline, b"0123", "what was cut off does not come back");
        t.verify();
    }

    #[test]
    fn a_squashed_caller_makes_no_program_of_a_foreign_group() {
        let mut t = Fixture::new();
        let dir = t.dir(ROOT, "dir");
        t.set(dir, SetAttr { mode: Some(0o2777), gid: Some(50), ..SetAttr::default() }).unwrap();
        t.context.rights = Rights::Nobody;
        t.context.caller = Caller { uid: 65_534, gid: 65_534 };
        let file = t.make(dir, "file", S_IFREG | 0o2755);
        assert_eq!((t.attr(file).mode, t.attr(file).gid), (S_IFREG | 0o755, 50));
        t.set(file, SetAttr { mode: Some(0o2755), ..SetAttr::default() }).unwrap();
        assert_eq!(t.attr(file).mode, S_IFREG | 0o755);
        let own = SetAttr { gid: Some(65_534), mode: Some(0o2755), ..SetAttr::default() };
        assert_eq!(t.set(file, own).unwrap().mode, S_IFREG | 0o2755);
    }

    #[test]
    fn a_squashed_caller_is_nobody() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        t.set(file, SetAttr { mode: Some(0o604), ..SetAttr::default() }).unwrap();
        t.context.rights = Rights::Nobody;
        t.context.caller = Caller { uid: 65_534, gid: 65_534 };
        let mode = SetAttr { mode: Some(0o777), ..SetAttr::default() };
        assert_eq!(t.set(file, mode), Err(Errno::EPERM));
        assert_eq!(t.truncate(file, 0), Err(Errno::EACCES));
        assert_eq!(t.remove(ROOT, "file", false), Err(Errno::EACCES));
        let make = t.request_make(ROOT, Some("x"), S_IFREG);
        assert_eq!(t.fails(make), Errno::EACCES);
        t.open(file).unwrap();
        t.verify();
    }
}
