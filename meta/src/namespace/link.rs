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
        if inode.nlink == 0 || inode.parent == Ino(0) {
            inode.parent = parent;
        }
        inode.nlink += 1;
        inode.ctime = context.stamp();
        txn.enter(&mut dir, name, ino, inode.kind());
        txn.set_inode(dir);
        txn.set_inode(inode);
        Ok(Reply::Entry(entry(&inode)))
    }
}

#[cfg(test)]
mod tests {
    use flexfs_wire::attr::S_IFREG;

    use super::super::fixture::{Fixture, ROOT};
    use super::*;

    #[test]
    fn names_count_and_refusals_come_in_order() {
        let mut t = Fixture::new();
        let dir = t.dir(ROOT, "dir");
        let file = t.file(ROOT, "file");
        let before = t.attr(file);
        t.link(file, dir, "other").unwrap();
        let after = t.attr(file);
        assert_eq!((after.nlink, after.mtime), (2, before.mtime));
        assert!(after.ctime > before.ctime);
        assert_eq!(t.link(dir, ROOT, "file").unwrap_err(), Errno::EEXIST);
        assert_eq!(t.link(dir, ROOT, "dir2").unwrap_err(), Errno::EPERM);
        assert_eq!(t.link(file, file, "x").unwrap_err(), Errno::ENOTDIR);
        for name in ["file", "other"] {
            let parent = if name == "file" { ROOT } else { dir };
            t.open(file).unwrap();
            t.remove(parent, name, false).unwrap();
        }
        // Open, but its last name is gone: it cannot come back.
        assert_eq!(t.link(file, ROOT, "again").unwrap_err(), Errno::ENOENT);
        t.verify();
    }

    #[test]
    fn a_tmpfile_gets_its_first_name() {
        let mut t = Fixture::new();
        let request = t.request_make(ROOT, None, S_IFREG | 0o600);
        let Ok(Reply::Entry(made)) = t.call(request) else { panic!() };
        assert_eq!((made.attr.nlink, t.ns.figures().orphans, t.ns.figures().opens), (0, 1, 1));
        t.verify();
        t.link(made.node.ino, ROOT, "named").unwrap();
        assert_eq!((t.attr(made.node.ino).nlink, t.ns.figures().orphans), (1, 0));
        t.close(made.node.ino);
        assert_eq!(t.lookup(ROOT, "named"), Ok(made.node.ino));
        t.verify();
    }

    #[test]
    fn a_tmpfile_without_a_name_dies_with_its_open() {
        let mut t = Fixture::new();
        let request = t.request_make(ROOT, None, S_IFREG | 0o600);
        let Ok(Reply::Entry(made)) = t.call(request) else { panic!() };
        t.close(made.node.ino);
        assert_eq!((t.ns.figures().orphans, t.ns.figures().inodes), (0, 1));
        t.verify();
    }

    #[test]
    fn links_are_bounded() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let mut txn = t.ns.begin(t.context.now);
        let inode = t.ns.inode(&txn, file).unwrap();
        txn.set_inode(super::super::record::Inode { nlink: LINK_COUNT_MAX - 1, ..inode });
        t.ns.commit(&mut txn, None).unwrap();
        t.link(file, ROOT, "the last one").unwrap();
        assert_eq!(t.link(file, ROOT, "one more").unwrap_err(), Errno::EMLINK);
    }
}
