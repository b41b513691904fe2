//! What only root may do, refused to sessions in which root is nobody (`rootSquash`).
//!
//! An honest client's kernel has checked its caller, and a squashed root is checked by modes (`access.rs`). A client that lies says
//! that somebody else is calling; whom it names is worth nothing, so the name is not looked at here: a call passes when *any*
//! user and group but root may make it. Who owns a file may give himself every right to it, so only what belongs to root is
//! looked at closely. Nothing that an honest user may do is refused.

use flexfs_wire::attr::{S_IFBLK, S_IFCHR, S_IFMT, S_ISVTX, SetAttr, SetTime};
use flexfs_wire::errno::Errno;
use flexfs_wire::id::{Ino, SessionId};
use flexfs_wire::message::{Make, RENAME_EXCHANGE, RENAME_NOREPLACE, Request};
use flexfs_wire::name::Name;
use flexfs_wire::time::Time;

use super::access::{READ, SEARCH, WRITE};
use super::acl::{self, Acl};
use super::context::{Context, Rights};
use super::machine::Namespace;
use super::record::Inode;
use super::txn::Txn;
use super::xattr::CAPABILITY;
use crate::engine::Store;

impl<S: Store> Namespace<S> {
    /// Whether somebody who is not root may make this call, where the session's rights ask for that. What is not there passes:
    /// the call itself says so.
    ///
    /// # Errors
    /// `EACCES`, `EPERM`, `ENODATA` for an attribute that only root sees, `EIO`.
    pub fn guard(&mut self, context: &Context, request: &Request) -> Result<(), Errno> {
        if context.rights == Rights::Client {
            return Ok(());
        }
        let txn = self.begin(context.now);
        for node in request.nodes().into_iter().flatten() {
            if self.any_inode(&txn, node.ino)?.is_none() {
                return Ok(());
            }
        }
        for (dir, _) in request.names().into_iter().flatten() {
            if !self.any_inode(&txn, dir.ino)?.is_some_and(|inode| inode.is_dir()) {
                return Ok(());
            }
        }
        let session = context.session;
        match request {
            Request::Lookup { parent, .. } | Request::LookupToOpen { parent, .. } => {
                self.guard_dir(&txn, parent.ino, SEARCH)
            }
            Request::ReadDir { node, .. } => self.guard_dir(&txn, node.ino, READ),
            Request::ReadAhead { node, .. } => self.guard_dir(&txn, node.ino, READ | SEARCH),
            Request::GetXattr { node, name } if name.starts_with(b"user.") => {
                self.guard_inode(&txn, node.ino, READ)
            }
            Request::GetXattr { name, .. } if name.starts_with(b"trusted.") => Err(Errno::ENODATA),
            Request::RemoveXattr { node, name } if name == CAPABILITY => {
                self.guard_content(&txn, session, node.ino, true)
            }
            Request::SetXattr { node, name, .. } | Request::RemoveXattr { node, name } => {
                self.guard_xattr(&txn, node.ino, name)
            }
            Request::ReadLayout { node, .. } => self.guard_content(&txn, session, node.ino, false),
            Request::Open { node, write, truncate, .. } => {
                self.guard_open(&txn, node.ino, *write || *truncate)
            }
            Request::Make { parent, make, .. } => self.guard_make(&txn, parent.ino, make),
            Request::Link { parent, .. } => self.guard_dir(&txn, parent.ino, WRITE | SEARCH),
            Request::Remove { parent, name, .. } => self.guard_removal(&txn, parent.ino, name),
            Request::Rename { parent, name, new_parent, new_name, flags } => {
                let exchange = *flags == RENAME_EXCHANGE;
                // What makes no sense is refused by the call itself.
                if !exchange && !matches!(*flags, 0 | RENAME_NOREPLACE) {
                    return Ok(());
                }
                self.guard_rename(&txn, (parent.ino, name), (new_parent.ino, new_name), exchange)
            }
            Request::SetAttr { node, change } => self.guard_change(&txn, session, node.ino, change),
            Request::Write { node, .. } | Request::Fallocate { node, .. } => {
                self.guard_content(&txn, session, node.ino, true)
            }
            Request::CopyRange { source, target, .. } => {
                self.guard_content(&txn, session, source.ino, false)?;
                self.guard_content(&txn, session, target.ino, true)
            }
            // Whoever has it open may lock it.
            Request::Lock { node, .. } => self.guard_use(session, node.ino),
            // Who has a directory alone hears of every name that others want to make in it.
            Request::Acquire { node } => self.guard_dir(&txn, node.ino, WRITE | SEARCH),
            _ => Ok(()),
        }
    }

    /// Whether a session in which root is nobody may read what an inode holds.
    ///
    /// # Errors
    /// `EACCES`, `EIO`.
    pub fn guard_read(&mut self, session: SessionId, ino: Ino) -> Result<(), Errno> {
        let txn = self.begin(Time::default());
        self.guard_content(&txn, session, ino, false)
    }

    /// Whether a session in which root is nobody may have an inode open, in one way or the other.
    ///
    /// # Errors
    /// `EACCES`, `EIO`.
    pub fn guard_use(&mut self, session: SessionId, ino: Ino) -> Result<(), Errno> {
        let txn = self.begin(Time::default());
        match self.guard_content(&txn, session, ino, false) {
            Err(Errno::EACCES) => self.guard_content(&txn, session, ino, true),
            other => other,
        }
    }

    /// Whether somebody who is not root has all of these rights to an inode.
    pub(super) fn guard_found(&self, inode: &Inode, wanted: u32) -> Result<(), Errno> {
        if inode.uid != 0 {
            return Ok(());
        }
        let list = self.xattr_value(inode, acl::ACCESS)?;
        let may = match list.and_then(|bytes| Acl::parse(&bytes).transpose()) {
            Some(list) => list?.grants_without_root(inode.gid, wanted),
            None => {
                let classes = [(inode.gid != 0).then_some(inode.mode >> 3), Some(inode.mode)];
                classes.into_iter().flatten().any(|class| class & wanted == wanted)
            }
        };
        if may { Ok(()) } else { Err(Errno::EACCES) }
    }

    fn guard_inode(&mut self, txn: &Txn, ino: Ino, wanted: u32) -> Result<(), Errno> {
        match self.any_inode(txn, ino)? {
            Some(inode) => self.guard_found(&inode, wanted),
            None => Ok(()),
        }
    }

    fn guard_dir(&mut self, txn: &Txn, ino: Ino, wanted: u32) -> Result<(), Errno> {
        match self.any_inode(txn, ino)? {
            Some(inode) if inode.is_dir() => self.guard_found(&inode, wanted),
            _ => Ok(()),
        }
    }

    /// What a file holds is for those who may read (write) it, and for those who had it opened so when they might.
    fn guard_content(&mut self, txn: &Txn, session: SessionId, ino: Ino, write: bool) -> Result<(), Errno> {
        let is_open = match write {
            true => self.opens.writes(session, ino),
            false => self.opens.has(session, ino),
        };
        // Of what is no file the call itself says that it has no content.
        let is_file = self.any_inode(txn, ino)?.is_some_and(|inode| inode.is_file());
        if is_open || !is_file { Ok(()) } else { self.guard_open(txn, ino, write) }
    }

    fn guard_open(&mut self, txn: &Txn, ino: Ino, write: bool) -> Result<(), Errno> {
        let Some(inode) = self.any_inode(txn, ino)?.filter(|inode| !write || inode.is_file()) else {
            return Ok(()); // A directory is not opened for writing at all.
        };
        match self.guard_found(&inode, if write { WRITE } else { READ }) {
            // Opening for execution is not told apart from reading; what a directory holds is read by other calls.
            Err(Errno::EACCES) if !write => self.guard_found(&inode, SEARCH),
            other => other,
        }
    }

    fn guard_make(&mut self, txn: &Txn, parent: Ino, make: &Make) -> Result<(), Errno> {
        self.guard_dir(txn, parent, WRITE | SEARCH)?;
        match make.mode & S_IFMT {
            // `mknod(2)`: but for the whiteout of overlay file systems.
            S_IFBLK => Err(Errno::EPERM),
            S_IFCHR if make.rdev != 0 => Err(Errno::EPERM),
            _ => Ok(()),
        }
    }

    /// What a name stands for, to one who may search its directory.
    fn guard_name(&mut self, txn: &Txn, dir: Ino, name: &Name) -> Result<Option<Inode>, Errno> {
        self.guard_dir(txn, dir, SEARCH)?;
        match self.dentry(txn, dir, name)? {
            Some(dentry) => self.any_inode(txn, dentry.ino),
            None => Ok(None),
        }
    }

    /// Whether a name may be taken out of a directory, or made where there is none.
    fn guard_removal(&mut self, txn: &Txn, dir: Ino, name: &Name) -> Result<(), Errno> {
        let victim = self.guard_name(txn, dir, name)?;
        let Some(dir) = self.any_inode(txn, dir)? else { return Ok(()) };
        self.guard_found(&dir, WRITE | SEARCH)?;
        let is_roots = victim.is_some_and(|victim| victim.uid == 0);
        if is_roots && dir.uid == 0 && dir.mode & S_ISVTX != 0 { Err(Errno::EPERM) } else { Ok(()) }
    }

    fn guard_rename(
        &mut self,
        txn: &Txn,
        source: (Ino, &Name),
        target: (Ino, &Name),
        exchange: bool,
    ) -> Result<(), Errno> {
        let moved = self.guard_name(txn, source.0, source.1)?;
        let replaced = self.guard_name(txn, target.0, target.1)?;
        if let (Some(one), Some(other)) = (moved, replaced)
            && one.ino == other.ino
        {
            return Ok(()); // Nothing happens.
        }
        self.guard_removal(txn, source.0, source.1)?;
        self.guard_removal(txn, target.0, target.1)?;
        // The `..` of a directory that moves is written anew.
        let exchanged = replaced.filter(|_| exchange);
        let moving = [moved, exchanged].into_iter().flatten();
        for dir in moving.filter(|inode| inode.is_dir() && source.0 != target.0) {
            self.guard_found(&dir, WRITE)?;
        }
        Ok(())
    }

    fn guard_change(
        &mut self,
        txn: &Txn,
        session: SessionId,
        ino: Ino,
        change: &SetAttr,
    ) -> Result<(), Errno> {
        let Some(inode) = self.any_inode(txn, ino)? else { return Ok(()) };
        let is_roots = inode.uid == 0;
        // Nobody but root gives a file to somebody else, and only its members to root's group.
        let gives = change.uid.is_some_and(|uid| is_roots || uid != inode.uid);
        let moves = change.gid.is_some_and(|gid| is_roots || (gid == 0 && inode.gid != 0));
        let times = [change.atime, change.mtime, change.ctime];
        let has_given = times.iter().flatten().any(|time| matches!(time, SetTime::At(_)));
        if gives || moves || (is_roots && (change.mode.is_some() || has_given)) {
            return Err(Errno::EPERM);
        }
        let writes = change.size.is_some() || change.kill_privileges || times.iter().any(Option::is_some);
        match (writes, inode.is_file()) {
            (false, _) => Ok(()),
            (true, true) => self.guard_content(txn, session, ino, true),
            (true, false) => self.guard_found(&inode, WRITE),
        }
    }

    fn guard_xattr(&mut self, txn: &Txn, ino: Ino, name: &[u8]) -> Result<(), Errno> {
        let Some(inode) = self.any_inode(txn, ino)? else { return Ok(()) };
        let is_user = name.starts_with(b"user.");
        if !is_user && !acl::is_list(name) {
            return Err(Errno::EPERM);
        }
        // In a sticky directory others may make files, but not write on the directory itself (`xattr(7)`).
        let owners = !is_user || (inode.is_dir() && inode.mode & S_ISVTX != 0);
        if owners && inode.uid == 0 {
            return Err(Errno::EPERM);
        }
        self.guard_found(&inode, if is_user { WRITE } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use flexfs_wire::attr::{S_IFDIR, S_IFREG, S_ISGID};
    use flexfs_wire::message::{Caller, Inline, Lock, LockFamily, LockKind, Reply, Write, XattrMode};

    use super::super::fixture::{Fixture, ROOT, name};
    use super::*;

    const LIAR: Caller = Caller { uid: 1000, gid: 1000 };

    /// A volume of root's whose first directory everybody may write, and from now on a liar's call.
    fn lied_to(prepare: impl FnOnce(&mut Fixture)) -> Fixture {
        let mut t = Fixture::new();
        t.set(ROOT, SetAttr { mode: Some(0o777), ..SetAttr::default() }).unwrap();
        prepare(&mut t);
        (t.context.caller, t.context.rights) = (LIAR, Rights::Guarded);
        t
    }

    fn write(ino: Ino) -> Request {
        let inline = Some(Inline { offset: 0, bytes: b"liar".to_vec() });
        Request::Write { node: Fixture::node(ino), write: Write { inline, ..Write::default() } }
    }

    fn open(ino: Ino, write: bool) -> Request {
        Request::Open { node: Fixture::node(ino), write, truncate: false, kill_privileges: false }
    }

    fn layout(ino: Ino) -> Request {
        Request::ReadLayout { node: Fixture::node(ino), start: 0, end: 10 }
    }

    fn mode(ino: Ino, mode: u32) -> Request {
        change(ino, SetAttr { mode: Some(mode), ..SetAttr::default() })
    }

    fn change(ino: Ino, change: SetAttr) -> Request {
        Request::SetAttr { node: Fixture::node(ino), change }
    }

    #[test]
    fn what_is_roots_alone_is_neither_read_nor_changed() {
        let mut file = Ino(0);
        let mut t = lied_to(|t| file = t.make(ROOT, "secret", S_IFREG | 0o600));
        let node = Fixture::node(file);
        let lock =
            Lock { family: LockFamily::Posix, owner: 1, kind: LockKind::Write, start: 0, end: 9, pid: 1 };
        for request in [
            open(file, false),
            open(file, true),
            Request::Open { node, write: false, truncate: true, kill_privileges: false },
            layout(file),
            write(file),
            Request::Fallocate { node, mode: 0, offset: 0, length: 10 },
            Request::Lock { node, lock, wait: false },
            Request::GetXattr { node, name: b"user.x".to_vec() },
            Request::SetXattr { node, name: b"user.x".to_vec(), value: vec![1], mode: XattrMode::Any },
            change(file, SetAttr { size: Some(0), ..SetAttr::default() }),
            change(file, SetAttr { mtime: Some(SetTime::Now), ..SetAttr::default() }),
            change(file, SetAttr { kill_privileges: true, ..SetAttr::default() }),
        ] {
            assert_eq!(t.fails(request.clone()), Errno::EACCES, "{request:?}");
        }
        let trusted = b"trusted.x".to_vec();
        for request in [
            mode(file, 0o666),
            change(file, SetAttr { uid: Some(1000), ..SetAttr::default() }),
            change(file, SetAttr { gid: Some(1000), ..SetAttr::default() }),
            change(file, SetAttr { mtime: Some(SetTime::At(Time::default())), ..SetAttr::default() }),
            Request::SetXattr { node, name: acl::ACCESS.to_vec(), value: vec![], mode: XattrMode::Any },
            Request::RemoveXattr { node, name: trusted.clone() },
        ] {
            assert_eq!(t.fails(request.clone()), Errno::EPERM, "{request:?}");
        }
        assert_eq!(t.fails(Request::GetXattr { node, name: trusted }), Errno::ENODATA);
        assert_eq!(t.ns.guard_read(t.context.session, file), Err(Errno::EACCES), "blocks");
        t.call(Request::GetAttr { node }).unwrap();
        t.verify();
    }

    #[test]
    fn roots_directories_are_neither_walked_nor_changed() {
        let (mut closed, mut sticky, mut inner) = (Ino(0), Ino(0), Ino(0));
        let mut t = lied_to(|t| {
            closed = t.make(ROOT, "closed", S_IFDIR | 0o700);
            inner = t.make(closed, "inner", S_IFREG | 0o666);
            sticky = t.make(ROOT, "tmp", S_IFDIR | 0o777);
            t.call(mode(sticky, 0o1777)).unwrap();
            t.file(sticky, "roots");
        });
        let node = Fixture::node(closed);
        assert_eq!(t.lookup(closed, "inner"), Err(Errno::EACCES));
        assert_eq!(t.lookup(closed, "other"), Err(Errno::EACCES), "nor whether it is there");
        for request in [
            Request::ReadDir { node, cookie: 0, bytes_max: 4096, plus: false },
            Request::Acquire { node },
            Request::Link { node: Fixture::node(inner), parent: node, name: name("again") },
        ] {
            assert_eq!(t.ns.guard(&t.context, &request), Err(Errno::EACCES), "{request:?}");
        }
        assert_eq!(t.remove(closed, "inner", false), Err(Errno::EACCES));
        assert_eq!(t.rename((closed, "inner"), (ROOT, "mine"), 0), Err(Errno::EACCES));
        let request = t.request_make(closed, Some("new"), S_IFREG | 0o600);
        assert_eq!(t.fails(request), Errno::EACCES);
        // In a sticky directory: own names, not root's.
        assert_eq!(t.remove(sticky, "roots", false), Err(Errno::EPERM));
        let mine = t.make(sticky, "mine", S_IFREG | 0o600);
        assert_eq!(t.rename((sticky, "mine"), (sticky, "roots"), 0), Err(Errno::EPERM));
        assert_eq!(t.rename((sticky, "roots"), (sticky, "mine"), RENAME_EXCHANGE), Err(Errno::EPERM));
        assert_eq!(t.rename((ROOT, "closed"), (sticky, "closed"), 0), Err(Errno::EACCES), "its `..`");
        // What makes no sense is told before what is not permitted.
        assert_eq!(t.rename((closed, "inner"), (mine, "x"), 0), Err(Errno::ENOTDIR));
        assert_eq!(t.rename((closed, "inner"), (sticky, "x"), 3), Err(Errno::EINVAL));
        t.call(write(mine)).unwrap();
        t.remove(sticky, "mine", false).unwrap();
        t.verify();
    }

    #[test]
    fn nothing_is_given_to_root_and_no_device_is_made() {
        let mut t = lied_to(|_| ());
        let mine = t.make(ROOT, "mine", S_IFREG | 0o755);
        for gift in [
            SetAttr { uid: Some(0), ..SetAttr::default() },
            SetAttr { gid: Some(0), ..SetAttr::default() },
            SetAttr { uid: Some(1001), ..SetAttr::default() },
        ] {
            assert_eq!(t.fails(change(mine, gift)), Errno::EPERM, "{gift:?}");
        }
        let mut device = t.request_make(ROOT, Some("sda"), S_IFBLK | 0o666);
        assert_eq!(t.fails(device.clone()), Errno::EPERM);
        if let Request::Make { make, .. } = &mut device {
            (make.mode, make.rdev) = (S_IFCHR | 0o666, 0x0101);
        }
        assert_eq!(t.fails(device.clone()), Errno::EPERM);
        if let Request::Make { make, .. } = &mut device {
            make.rdev = 0;
        }
        t.call(device).unwrap();
        t.verify();
    }

    #[test]
    fn programs_keep_roots_powers_from_those_who_write_them() {
        let (mut program, mut team) = (Ino(0), Ino(0));
        let mut t = lied_to(|t| {
            program = t.make(ROOT, "program", S_IFREG | 0o777);
            t.call(mode(program, 0o6777)).unwrap();
            team = t.make(ROOT, "team", S_IFDIR | 0o777);
            t.call(mode(team, 0o2777)).unwrap();
        });
        // The client keeps it to itself that the writer has no privilege.
        t.call(write(program)).unwrap();
        assert_eq!(t.attr(program).mode & 0o7777, 0o777);
        let made = t.make(team, "program", S_IFREG | 0o2755);
        assert_eq!((t.attr(made).gid, t.attr(made).mode & S_ISGID), (0, 0));
        t.call(mode(made, 0o2755)).unwrap();
        assert_eq!(t.attr(made).mode & S_ISGID, 0);
        t.verify();
    }

    #[test]
    fn what_others_may_do_passes() {
        let (mut shared, mut grouped, mut listed, mut run) = (Ino(0), Ino(0), Ino(0), Ino(0));
        let mut t = lied_to(|t| {
            shared = t.make(ROOT, "shared", S_IFREG | 0o666);
            grouped = t.make(ROOT, "grouped", S_IFREG | 0o660);
            t.set(grouped, SetAttr { gid: Some(50), ..SetAttr::default() }).unwrap();
            run = t.make(ROOT, "run", S_IFREG | 0o711);
            listed = t.make(ROOT, "listed", S_IFREG | 0o600);
            // user::rw- user:7:r-- group::--- mask::r-- other::---
            let mut list = 2u32.to_le_bytes().to_vec();
            for (tag, perm, id) in [(1u16, 6u16, 0u32), (2, 4, 7), (4, 0, 0), (16, 4, 0), (32, 0, 0)] {
                list.extend(tag.to_le_bytes());
                list.extend(perm.to_le_bytes());
                list.extend(id.to_le_bytes());
            }
            let name = acl::ACCESS.to_vec();
            t.call(Request::SetXattr {
                node: Fixture::node(listed),
                name,
                value: list,
                mode: XattrMode::Any,
            })
            .unwrap();
        });
        for request in [write(shared), write(grouped), layout(shared), layout(run), layout(listed)] {
            t.call(request).unwrap();
        }
        assert_eq!(t.fails(write(listed)), Errno::EACCES);
        assert_eq!(t.fails(write(run)), Errno::EACCES);
        // Who writes to a program takes its capabilities off.
        let disarm = |ino| Request::RemoveXattr { node: Fixture::node(ino), name: CAPABILITY.to_vec() };
        assert_eq!(t.fails(disarm(shared)), Errno::ENODATA);
        assert_eq!(t.fails(disarm(run)), Errno::EACCES);
        // His own, whatever its mode says: he could change that.
        let own = t.make(ROOT, "own", S_IFREG);
        for request in [write(own), layout(own), open(own, true), mode(own, 0o4755)] {
            t.call(request).unwrap();
        }
        t.verify();
    }

    #[test]
    fn who_had_it_open_goes_on_until_he_closes_it() {
        let mut file = Ino(0);
        let mut t = lied_to(|t| file = t.make(ROOT, "f", S_IFREG | 0o666));
        assert!(matches!(t.call(open(file, true)), Ok(Reply::Opened { .. })));
        let liar = (t.context.caller, t.context.rights);
        (t.context.caller, t.context.rights) = (Caller { uid: 0, gid: 0 }, Rights::Client);
        t.call(mode(file, 0o600)).unwrap();
        (t.context.caller, t.context.rights) = liar;
        t.call(write(file)).unwrap();
        t.call(layout(file)).unwrap();
        assert_eq!(t.fails(open(file, false)), Errno::EACCES);
        t.close(file);
        assert_eq!(t.fails(write(file)), Errno::EACCES);
        assert_eq!(t.fails(layout(file)), Errno::EACCES);
        t.verify();
    }
}
