//! Making inodes: `open(O_CREAT)`, `mkdir`, `mknod`, `symlink`, `O_TMPFILE`.

use flexfs_wire::attr::{
    S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK, S_ISGID, S_IXGRP,
};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::limits::SYMLINK_SEALED_BYTES_MAX;
use flexfs_wire::message::{Make, Reply};
use flexfs_wire::name::Name;

use super::access::{SEARCH, WRITE};
use super::acl::{self, Acl};
use super::context::Context;
use super::lookup::entry;
use super::machine::Namespace;
use super::record::{COOKIE_FIRST, Inode};
use super::txn::{Effect, Txn};
use crate::engine::Store;
use crate::engine::key::Granted;
use crate::quota::Usage;

/// Permission bits and set-id bits of a mode.
const PERMISSIONS: u32 = 0o7777;

impl<S: Store> Namespace<S> {
    pub(super) fn make(
        &mut self,
        context: &Context,
        txn: &mut Txn,
        parent: Ino,
        name: Option<&Name>,
        make: &Make,
    ) -> Result<Reply, Errno> {
        let mut dir = self.living_dir(txn, parent)?;
        if let Some(name) = name
            && self.dentry(txn, parent, name)?.is_some()
        {
            return Err(Errno::EEXIST);
        }
        context.check(&dir, WRITE | SEARCH)?;
        check_kind(make, name.is_some())?;
        self.check_number(context, txn, make.ino)?;
        let mut inode = self.new_inode(context, txn, &dir, make)?;
        if make.open || name.is_none() {
            if self.opens.is_full(context.session) {
                return Err(Errno::ENFILE);
            }
            txn.effects.push(Effect::Opened(inode.ino, true));
        }
        match name {
            Some(name) => {
                inode.nlink = 1;
                inode.parent = parent;
                if inode.is_dir() {
                    inode.nlink = 2;
                    inode.next_cookie = COOKIE_FIRST;
                    dir.nlink += 1;
                }
                txn.enter(&mut dir, name, inode.ino, inode.kind());
                txn.set_inode(dir);
            }
            None => {
                inode.linkable = true;
                txn.set_orphan(inode.ino);
            }
        }
        txn.state.inodes += 1;
        txn.effects.push(Effect::Used(Granted::Inodes, inode.ino.0));
        txn.set_inode(inode);
        Ok(Reply::Entry(entry(&inode)))
    }

    /// The number must come from a range granted to the session, and not be in use.
    fn check_number(&mut self, context: &Context, txn: &Txn, ino: Ino) -> Result<(), Errno> {
        if !self.roster.has_inode(context.session, ino) || self.any_inode(txn, ino)?.is_some() {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    /// Owner, group, mode and list as the directory gives them (`inode_init_owner`, `posix_acl_create`).
    fn new_inode(
        &mut self,
        context: &Context,
        txn: &mut Txn,
        dir: &Inode,
        make: &Make,
    ) -> Result<Inode, Errno> {
        let kind = make.mode & S_IFMT;
        let mut inode = Inode::new(make.ino, make.mode & (S_IFMT | PERMISSIONS), context.stamp());
        inode.uid = context.caller.uid;
        inode.gid = context.caller.gid;
        if dir.mode & S_ISGID != 0 {
            inode.gid = dir.gid;
            if kind == S_IFDIR {
                inode.mode |= S_ISGID;
            } else if inode.mode & S_IXGRP != 0 {
                inode.mode = context.without_foreign_set_gid(inode.mode, dir.gid);
            }
        }
        if matches!(kind, S_IFCHR | S_IFBLK) {
            inode.rdev = make.rdev;
        }
        if kind == S_IFLNK {
            inode.size = make.target.len() as u64;
            txn.data.insert(make.ino, Some(make.target.clone()));
            return Ok(inode);
        }
        let inherited = match self.xattr_value(dir, acl::DEFAULT)? {
            Some(bytes) => Acl::parse(&bytes)?.map(|list| (list, bytes)),
            None => None,
        };
        match inherited {
            Some((list, bytes)) => {
                let (access, mode) = list.inherit(inode.mode);
                inode.mode = mode;
                if let Some(access) = access {
                    put_xattr(txn, &mut inode, acl::ACCESS, access.bytes());
                }
                if kind == S_IFDIR {
                    put_xattr(txn, &mut inode, acl::DEFAULT, bytes);
                }
            }
            None => inode.mode &= !(make.umask & 0o777),
        }
        inode.mode &= !(context.umask & 0o777);
        Ok(inode)
    }

    /// The volume's bounds, after everything else was found in order. A replay was within them the first time; now it may
    /// meet space that the background had freed by then.
    pub(super) fn check_quota(&self, txn: &Txn) -> Result<(), Errno> {
        if self.is_recovering() {
            return Ok(());
        }
        let bytes = Usage { before: self.state.bytes, after: txn.state.bytes, max: self.limits.bytes_max };
        let inodes =
            Usage { before: self.state.inodes, after: txn.state.inodes, max: self.limits.inodes_max };
        bytes.check().and_then(|()| inodes.check())
    }
}

/// Sets an attribute of something new.
fn put_xattr(txn: &mut Txn, inode: &mut Inode, name: &[u8], value: Vec<u8>) {
    txn.batch.put(crate::engine::key::xattr(inode.ino, name), value);
    inode.xattr_bytes += u32::try_from(name.len() + 1).unwrap_or(0);
}

fn check_kind(make: &Make, has_name: bool) -> Result<(), Errno> {
    let kind = make.mode & S_IFMT;
    let known = matches!(kind, S_IFREG | S_IFDIR | S_IFLNK | S_IFCHR | S_IFBLK | S_IFIFO | S_IFSOCK);
    if !known || (!has_name && kind != S_IFREG) || (kind != S_IFLNK && !make.target.is_empty()) {
        return Err(Errno::EINVAL);
    }
    if kind == S_IFLNK && make.target.is_empty() {
        return Err(Errno::ENOENT);
    }
    if make.target.len() > SYMLINK_SEALED_BYTES_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use flexfs_wire::attr::SetAttr;
    use flexfs_wire::message::{Request, XattrMode};

    use super::super::context::Limits;
    use super::super::fixture::{BLOCK_BYTES, Fixture, ROOT};
    use super::*;

    #[test]
    fn kinds_links_sizes_and_times() {
        let mut t = Fixture::new();
        let before = t.attr(ROOT);
        let dir = t.dir(ROOT, "dir");
        let after = t.attr(ROOT);
        assert_eq!((after.nlink, after.size), (before.nlink + 1, before.size + 1));
        assert!(after.mtime > before.mtime && after.ctime == after.mtime && after.atime == before.atime);
        assert_eq!((t.attr(dir).nlink, t.attr(dir).size), (2, 0));
        let fifo = t.make(dir, "fifo", S_IFIFO | 0o600);
        assert_eq!((t.attr(fifo).mode, t.attr(fifo).nlink), (S_IFIFO | 0o600, 1));
        let mut node = t.request_make(dir, Some("null"), S_IFCHR | 0o666);
        if let Request::Make { make, .. } = &mut node {
            make.rdev = 0x0103;
        }
        let Ok(Reply::Entry(node)) = t.call(node) else { panic!() };
        assert_eq!(node.attr.rdev, 0x0103);
        assert!(matches!(t.symlink(dir, "link", b"to/there"), Ok(Reply::Entry(e)) if e.attr.size == 8));
        t.verify();
    }

    #[test]
    fn refusals_in_order() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let request = t.request_make(file, Some("x"), S_IFREG);
        assert_eq!(t.fails(request), Errno::ENOTDIR);
        let request = t.request_make(ROOT, Some("file"), S_IFREG);
        assert_eq!(t.fails(request), Errno::EEXIST);
        let request = t.request_make(ROOT, Some("x"), 0o644);
        assert_eq!(t.fails(request), Errno::EINVAL);
        assert_eq!(t.symlink(ROOT, "x", b"").unwrap_err(), Errno::ENOENT);
        // The border of a plain volume refuses some before (`net::veil`).
        let long = [b'a'; SYMLINK_SEALED_BYTES_MAX + 1];
        assert_eq!(t.symlink(ROOT, "x", &long).unwrap_err(), Errno::ENAMETOOLONG);
        // A number that was never granted, and one that is in use.
        for ino in [Ino(1 << 40), file] {
            let mut request = t.request_make(ROOT, Some("x"), S_IFREG);
            if let Request::Make { make, .. } = &mut request {
                make.ino = ino;
            }
            assert_eq!(t.fails(request), Errno::EINVAL);
        }
        t.ns.set_limits(Limits::new(BLOCK_BYTES, 0, 3));
        t.file(ROOT, "third");
        let request = t.request_make(ROOT, Some("fourth"), S_IFREG);
        assert_eq!(t.fails(request), Errno::ENOSPC);
        t.verify();
    }

    #[test]
    fn group_and_set_gid_come_from_a_set_gid_directory() {
        let mut t = Fixture::new();
        let dir = t.dir(ROOT, "dir");
        t.set(dir, SetAttr { gid: Some(77), ..SetAttr::default() }).unwrap();
        t.set(dir, SetAttr { mode: Some(0o2755), ..SetAttr::default() }).unwrap();
        let file = t.file(dir, "file");
        let sub = t.dir(dir, "sub");
        assert_eq!((t.attr(file).gid, t.attr(file).mode & S_ISGID), (77, 0));
        assert_eq!((t.attr(sub).gid, t.attr(sub).mode & S_ISGID), (77, S_ISGID));
        t.verify();
    }

    #[test]
    fn a_default_list_is_inherited_instead_of_the_umask() {
        let mut t = Fixture::new();
        let dir = t.dir(ROOT, "dir");
        // user::rwx user:1000:rwx group::r-x mask::rwx other::---
        let mut list = 2u32.to_le_bytes().to_vec();
        for (tag, perm, id) in [(1u16, 7u16, 0u32), (2, 7, 1000), (4, 5, 0), (16, 7, 0), (32, 0, 0)] {
            list.extend(tag.to_le_bytes());
            list.extend(perm.to_le_bytes());
            list.extend(id.to_le_bytes());
        }
        let set = Request::SetXattr {
            node: Fixture::node(dir),
            name: acl::DEFAULT.to_vec(),
            value: list.clone(),
            mode: XattrMode::Any,
        };
        t.call(set).unwrap();
        let mut request = t.request_make(dir, Some("file"), S_IFREG | 0o666);
        if let Request::Make { make, .. } = &mut request {
            make.umask = 0o077;
        }
        let Ok(Reply::Entry(file)) = t.call(request) else { panic!() };
        assert_eq!(file.attr.mode & 0o777, 0o660);
        let sub = t.dir(dir, "sub");
        let get = Request::GetXattr { node: Fixture::node(sub), name: acl::DEFAULT.to_vec() };
        assert_eq!(t.call(get), Ok(Reply::Bytes(list)));
        t.verify();
    }

    #[test]
    fn nothing_is_made_in_a_removed_directory() {
        let mut t = Fixture::new();
        let dir = t.dir(ROOT, "dir");
        t.open(dir).unwrap();
        t.remove(ROOT, "dir", true).unwrap();
        let request = t.request_make(dir, Some("x"), S_IFREG);
        assert_eq!(t.fails(request), Errno::ENOENT);
        assert_eq!(t.attr(dir).nlink, 0);
        t.close(dir);
        assert_eq!(t.ns.attr(dir), Err(Errno::ESTALE));
        t.verify();
    }
}
