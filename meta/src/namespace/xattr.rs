//! Extended attributes.

use std::ops::ControlFlow;

use flexfs_wire::attr::{S_ISGID, S_ISVTX};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::limits::{XATTR_LIST_BYTES_MAX, XATTR_NAME_BYTES_MAX, XATTR_VALUE_SEALED_BYTES_MAX};
use flexfs_wire::message::{Reply, XattrMode};

use super::access::{READ, WRITE};
use super::acl::{self, Acl};
use super::context::Context;
use super::machine::Namespace;
use super::record::Inode;
use super::txn::Txn;
use crate::engine::Store;
use crate::engine::key::{self, Tag};

/// Namespaces of names that are kept. `trusted.` and `security.` are guarded by the client's kernel.
const PREFIXES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

/// Capabilities of a program (`capabilities(7)`): whoever writes to it takes them off, the client says so (`guard.rs` looks whether he
/// may write).
pub(super) const CAPABILITY: &[u8] = b"security.capability";

impl<S: Store> Namespace<S> {
    pub(super) fn xattr(&mut self, context: &Context, ino: Ino, name: &[u8]) -> Result<Reply, Errno> {
        check_name(name)?;
        let txn = self.begin(context.now);
        let inode = self.inode(&txn, ino)?;
        // Who may reach the inode may know its access lists: his kernel decides by them.
        if !name.starts_with(b"system.") {
            context.check(&inode, READ)?;
        }
        if !is_visible(context, name) {
            return Err(Errno::ENODATA);
        }
        self.xattr_value(&inode, name)?.map(Reply::Bytes).ok_or(Errno::ENODATA)
    }

    pub(super) fn list_xattrs(&mut self, context: &Context, ino: Ino) -> Result<Reply, Errno> {
        let txn = self.begin(context.now);
        let inode = self.inode(&txn, ino)?;
        let mut list = Vec::with_capacity(inode.xattr_bytes as usize);
        // Here the kernel does not look at who asks.
        let is_listed = |name: &Vec<u8>| context.caller.uid == 0 || !name.starts_with(b"trusted.");
        for name in self.xattr_names(&inode)?.into_iter().filter(is_listed) {
            list.extend_from_slice(&name);
            list.push(0);
        }
        Ok(Reply::Bytes(list))
    }

    pub(super) fn set_xattr(
        &mut self,
        context: &Context,
        txn: &mut Txn,
        ino: Ino,
        (name, value): (&[u8], &[u8]),
        mode: XattrMode,
    ) -> Result<Reply, Errno> {
        check_name(name)?;
        if value.len() > XATTR_VALUE_SEALED_BYTES_MAX {
            return Err(Errno::E2BIG);
        }
        let mut inode = self.inode(txn, ino)?;
        check_writer(context, &inode, name)?;
        let old = self.xattr_value(&inode, name)?;
        match (mode, &old) {
            (XattrMode::Create, Some(_)) => return Err(Errno::EEXIST),
            (XattrMode::Replace, None) => return Err(Errno::ENODATA),
            _ => {}
        }
        inode.ctime = context.now;
        let keep = keep_list(context, &mut inode, (name, value), mode)?;
        match (keep, old.is_some()) {
            (false, true) => drop_row(txn, &mut inode, name),
            (false, false) => {}
            (true, had) => {
                if !had {
                    inode.xattr_bytes += row_bytes(name);
                }
                if inode.xattr_bytes as usize > XATTR_LIST_BYTES_MAX {
                    return Err(Errno::ENOSPC);
                }
                txn.batch.put(key::xattr(ino, name), value.to_vec());
            }
        }
        txn.set_inode(inode);
        Ok(Reply::Done)
    }

    pub(super) fn remove_xattr(
        &mut self,
        context: &Context,
        txn: &mut Txn,
        ino: Ino,
        name: &[u8],
    ) -> Result<Reply, Errno> {
        check_name(name)?;
        let mut inode = self.inode(txn, ino)?;
        if name != CAPABILITY {
            check_writer(context, &inode, name)?;
        }
        if self.xattr_value(&inode, name)?.is_none() {
            return Err(Errno::ENODATA);
        }
        drop_row(txn, &mut inode, name);
        inode.ctime = context.now;
        txn.set_inode(inode);
        Ok(Reply::Done)
    }

    /// The value of an attribute as it stands in the store.
    pub(super) fn xattr_value(&self, inode: &Inode, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
        // The kernel asks for `security.capability` before every write: mostly there is nothing at all.
        if inode.xattr_bytes == 0 {
            return Ok(None);
        }
        self.store.get(&key::xattr(inode.ino, name))
    }

    pub(super) fn xattr_names(&self, inode: &Inode) -> Result<Vec<Vec<u8>>, Errno> {
        let mut names = Vec::new();
        if inode.xattr_bytes > 0 {
            let (from, to) = key::rows(Tag::Xattr, inode.ino.0);
            self.store.scan(&from, &to, &mut |key, _| {
                names.push(key::rest(key, 1).to_vec());
                ControlFlow::Continue(())
            })?;
        }
        Ok(names)
    }
}

fn check_name(name: &[u8]) -> Result<(), Errno> {
    if name.is_empty() || name.len() > XATTR_NAME_BYTES_MAX {
        return Err(Errno::ERANGE);
    }
    if name.contains(&0) {
        return Err(Errno::EINVAL);
    }
    let known = PREFIXES.iter().any(|prefix| name.len() > prefix.len() && name.starts_with(prefix));
    if known || acl::is_list(name) { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
}

/// Trusted attributes are seen by the privileged only (`xattr(7)`).
fn is_visible(context: &Context, name: &[u8]) -> bool {
    !context.is_squashed() || !name.starts_with(b"trusted.")
}

/// `user.` needs the right to write, everything else is the owner's, or a capability's that nobody has.
fn check_writer(context: &Context, inode: &Inode, name: &[u8]) -> Result<(), Errno> {
    if name.starts_with(b"user.") {
        // In a sticky directory others may make files, but not write on the directory itself (`xattr(7)`).
        if inode.is_dir() && inode.mode & S_ISVTX != 0 {
            context.check_owner(inode)?;
        }
        return context.check(inode, WRITE);
    }
    if context.is_squashed() && !name.starts_with(b"system.") {
        return Err(Errno::EPERM);
    }
    context.check_owner(inode)
}

/// An access list goes into the mode as well; one that says no more than the mode is not kept, nor is an empty one.
fn keep_list(
    context: &Context,
    inode: &mut Inode,
    (name, value): (&[u8], &[u8]),
    mode: XattrMode,
) -> Result<bool, Errno> {
    if !acl::is_list(name) {
        return Ok(true);
    }
    let Some(list) = Acl::parse(value)? else { return Ok(false) };
    if name == acl::ACCESS {
        inode.mode = (inode.mode & !0o777) | list.mode();
        inode.mode = context.without_foreign_set_gid(inode.mode, inode.gid);
        if mode == XattrMode::AnyWithoutSetGid {
            inode.mode &= !S_ISGID;
        }
        return Ok(list.is_more_than_mode());
    }
    if inode.is_dir() { Ok(true) } else { Err(Errno::EACCES) }
}

fn drop_row(txn: &mut Txn, inode: &mut Inode, name: &[u8]) {
    txn.batch.remove(key::xattr(inode.ino, name));
    inode.xattr_bytes = inode.xattr_bytes.saturating_sub(row_bytes(name));
}

/// What a name adds to the list: itself and a NUL.
fn row_bytes(name: &[u8]) -> u32 {
    u32::try_from(name.len() + 1).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use flexfs_wire::message::Request;

    use super::super::context::Rights;
    use super::super::fixture::{Fixture, ROOT};
    use super::*;

    fn set(t: &mut Fixture, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> Result<Reply, Errno> {
        let (name, value) = (name.to_vec(), value.to_vec());
        t.call(Request::SetXattr { node: Fixture::node(ino), name, value, mode })
    }

    fn get(t: &mut Fixture, ino: Ino, name: &[u8]) -> Result<Reply, Errno> {
        t.call(Request::GetXattr { node: Fixture::node(ino), name: name.to_vec() })
    }

    #[test]
    fn set_get_list_remove() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        assert_eq!(get(&mut t, file, b"user.a"), Err(Errno::ENODATA));
        assert_eq!(set(&mut t, file, b"user.a", b"1", XattrMode::Replace), Err(Errno::ENODATA));
        set(&mut t, file, b"user.a", b"1", XattrMode::Create).unwrap();
        assert_eq!(set(&mut t, file, b"user.a", b"2", XattrMode::Create), Err(Errno::EEXIST));
        set(&mut t, file, b"user.a", b"3", XattrMode::Replace).unwrap();
        set(&mut t, file, b"trusted.b", b"", XattrMode::Any).unwrap();
        assert_eq!(get(&mut t, file, b"user.a"), Ok(Reply::Bytes(b"3".to_vec())));
        let list = Request::ListXattr { node: Fixture::node(file) };
        assert_eq!(t.call(list), Ok(Reply::Bytes(b"trusted.b\0user.a\0".to_vec())));
        t.verify();
        let remove = Request::RemoveXattr { node: Fixture::node(file), name: b"user.a".to_vec() };
        t.call(remove.clone()).unwrap();
        assert_eq!(t.fails(remove), Errno::ENODATA);
        t.verify();
        t.remove(ROOT, "file", false).unwrap();
        t.verify();
    }

    #[test]
    fn a_squashed_caller_sees_no_trusted_attribute_and_sets_none_on_a_sticky_directory() {
        let mut t = Fixture::new();
        let dir = t.dir(ROOT, "dir");
        let mode = flexfs_wire::attr::SetAttr { mode: Some(0o1777), ..Default::default() };
        t.set(dir, mode).unwrap();
        set(&mut t, dir, b"trusted.a", b"1", XattrMode::Any).unwrap();
        set(&mut t, dir, b"user.a", b"1", XattrMode::Any).unwrap();
        t.context.rights = Rights::Nobody;
        t.context.caller = flexfs_wire::message::Caller { uid: 65_534, gid: 65_534 };
        assert_eq!(get(&mut t, dir, b"trusted.a"), Err(Errno::ENODATA));
        assert_eq!(get(&mut t, dir, b"user.a"), Ok(Reply::Bytes(b"1".to_vec())));
        let list = t.call(Request::ListXattr { node: Fixture::node(dir) });
        assert_eq!(list, Ok(Reply::Bytes(b"user.a\0".to_vec())));
        assert_eq!(set(&mut t, dir, b"user.a", b"2", XattrMode::Any), Err(Errno::EPERM));
    }

    #[test]
    fn bounds_and_names() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        assert_eq!(set(&mut t, file, b"other.a", b"1", XattrMode::Any), Err(Errno::EOPNOTSUPP));
        assert_eq!(set(&mut t, file, b"user.", b"1", XattrMode::Any), Err(Errno::EOPNOTSUPP));
        assert_eq!(set(&mut t, file, &[b'u'; 256], b"1", XattrMode::Any), Err(Errno::ERANGE));
        let big = vec![7; XATTR_VALUE_SEALED_BYTES_MAX + 1];
        assert_eq!(set(&mut t, file, b"user.a", &big, XattrMode::Any), Err(Errno::E2BIG));
        set(&mut t, file, b"user.a", &big[1..], XattrMode::Any).unwrap();
        let mut last = Ok(Reply::Done);
        for number in 0..300 {
            let name = format!("user.{number:0>245}");
            last = set(&mut t, file, name.as_bytes(), b"", XattrMode::Any);
        }
        assert_eq!(last, Err(Errno::ENOSPC));
        t.verify();
    }

    #[test]
    fn an_access_list_and_the_mode_agree() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let mut list = 2u32.to_le_bytes().to_vec();
        for (tag, perm, id) in [(1u16, 7u16, 0u32), (2, 7, 1000), (4, 5, 0), (16, 6, 0), (32, 1, 0)] {
            list.extend(tag.to_le_bytes());
            list.extend(perm.to_le_bytes());
            list.extend(id.to_le_bytes());
        }
        set(&mut t, file, acl::ACCESS, &list, XattrMode::Any).unwrap();
        assert_eq!(t.attr(file).mode & 0o777, 0o761);
        assert_eq!(set(&mut t, file, acl::DEFAULT, &list, XattrMode::Any), Err(Errno::EACCES));
        assert_eq!(set(&mut t, file, acl::ACCESS, b"nonsense", XattrMode::Any), Err(Errno::EINVAL));
        let mode = flexfs_wire::attr::SetAttr { mode: Some(0o640), ..Default::default() };
        t.set(file, mode).unwrap();
        let Ok(Reply::Bytes(bytes)) = get(&mut t, file, acl::ACCESS) else { panic!() };
        assert_eq!(Acl::parse(&bytes).unwrap().unwrap().mode(), 0o640);
        set(&mut t, file, acl::ACCESS, b"", XattrMode::Any).unwrap();
        assert_eq!(get(&mut t, file, acl::ACCESS), Err(Errno::ENODATA));
        t.verify();
    }
}
