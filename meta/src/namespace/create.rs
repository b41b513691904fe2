//! Making inodes: `open(O_CREAT)`, `mkdir`, `mknod`, `symlink`, `O_TMPFILE`.

use flexfs_wire::attr::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK, S_ISGID};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::limits::SYMLINK_BYTES_MAX;
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
            txn.effects.push(Effect::Opened(inode.ino));
        }
        match name {
            Some(name) => {
                inode.nlink = 1;
                if inode.is_dir() {
                    inode.nlink = 2;
                    inode.parent = parent;
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
        let mut inode = Inode::new(make.ino, make.mode & (S_IFMT | PERMISSIONS), context.now);
        inode.uid = context.caller.uid;
        inode.gid = context.caller.gid;
        if dir.mode & S_ISGID != 0 {
            inode.gid = dir.gid;
            if kind == S_IFDIR {
                inode.mode |= S_ISGID;
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

    /// The volume's bounds, after everything else was found in order.
    pub(super) fn check_quota(&self, txn: &Txn) -> Result<(), Errno> {
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
    if make.target.len() > SYMLINK_BYTES_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    Ok(())
}
