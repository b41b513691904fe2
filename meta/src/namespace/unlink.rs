//! Taking names away: `unlink(2)`, `rmdir(2)`; and what happens to an inode that lost its last one.

use flexfs_wire::errno::Errno;
use flexfs_wire::id::Ino;
use flexfs_wire::message::Reply;
use flexfs_wire::name::Name;

use super::context::Context;
use super::machine::Namespace;
use super::record::Inode;
use super::txn::{Effect, Txn};
use crate::engine::{Store, key};

impl<S: Store> Namespace<S> {
    pub(super) fn remove(
        &mut self,
        context: &Context,
        txn: &mut Txn,
        parent: Ino,
        name: &Name,
        is_rmdir: bool,
    ) -> Result<Reply, Errno> {
        let mut dir = self.dir(txn, parent)?;
        let dentry = self.dentry(txn, parent, name)?.ok_or(Errno::ENOENT)?;
        let victim = self.named_inode(txn, dentry.ino)?;
        context.check_removal(&dir, &victim)?;
        check_victim(&victim, is_rmdir)?;
        txn.strike(&mut dir, name, &dentry);
        if victim.is_dir() {
            dir.nlink -= 1;
        }
        txn.set_inode(dir);
        self.drop_name(txn, victim, parent)?;
        Ok(Reply::Done)
    }

    /// One name less, in `dir`. Without any left the inode is erased, or an orphan while somebody has it open.
    pub(super) fn drop_name(&mut self, txn: &mut Txn, mut inode: Inode, dir: Ino) -> Result<(), Errno> {
        inode.nlink = if inode.is_dir() { 0 } else { inode.nlink.saturating_sub(1) };
        inode.ctime = txn.now;
        if inode.nlink > 0 {
            if inode.parent == dir {
                // Where its other names are is not kept.
                inode.parent = Ino(0);
            }
            txn.set_inode(inode);
            return Ok(());
        }
        let ino = inode.ino;
        if self.is_recovering() || self.opens.is_open(ino) || inode.extents > self.bounds.erased_at_once {
            txn.set_inode(inode);
            txn.set_orphan(ino);
            return Ok(());
        }
        self.clear_extents(txn, &mut inode, 0, u64::MAX)?;
        self.erase(txn, &inode)
    }

    /// One name less, as another inode took it. A client opens what it looked up, looks once more when that is gone, and is
    /// then at its end (`do_filp_open` in `fs/namei.c`); while programs replace a file again and again, others would get
    /// ESTALE for a name that is there all the time. So the file stays for a while (see [`Self::age`]).
    pub(super) fn replace_name(&mut self, txn: &mut Txn, mut inode: Inode, dir: Ino) -> Result<(), Errno> {
        let lingers = !self.is_recovering()
            && inode.is_file()
            && inode.nlink == 1
            && self.orphans.lingering() < self.bounds.lingering;
        if !lingers {
            return self.drop_name(txn, inode, dir);
        }
        inode.nlink = 0;
        inode.ctime = txn.now;
        txn.set_inode(inode);
        txn.set_orphan(inode.ino);
        txn.effects.push(Effect::Lingers(inode.ino));
        Ok(())
    }

    /// Removes all rows of an inode that has no extents any more.
    pub(super) fn erase(&mut self, txn: &mut Txn, inode: &Inode) -> Result<(), Errno> {
        debug_assert_eq!(inode.extents, 0, "extents go first");
        let ino = inode.ino;
        txn.state.bytes = txn.state.bytes.saturating_sub(inode.allocated());
        txn.state.inodes = txn.state.inodes.saturating_sub(1);
        txn.data.insert(ino, None);
        if inode.dead {
            txn.dead.insert(ino, Vec::new());
            txn.effects.push(Effect::Dead(ino));
        }
        for name in self.xattr_names(inode)? {
            txn.batch.remove(key::xattr(ino, &name));
        }
        txn.inodes.insert(ino, None);
        Ok(())
    }
}

/// # Errors
/// `ENOTDIR`, `EISDIR`, `ENOTEMPTY`.
pub(super) fn check_victim(victim: &Inode, wants_dir: bool) -> Result<(), Errno> {
    match (wants_dir, victim.is_dir()) {
        (true, false) => Err(Errno::ENOTDIR),
        (false, true) => Err(Errno::EISDIR),
        (true, true) if victim.size > 0 => Err(Errno::ENOTEMPTY),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fixture, ROOT};
    use super::*;

    #[test]
    fn refusals() {
        let mut t = Fixture::new();
        let dir = t.dir(ROOT, "dir");
        let file = t.file(dir, "file");
        assert_eq!(t.remove(ROOT, "none", false), Err(Errno::ENOENT));
        assert_eq!(t.remove(ROOT, "dir", false), Err(Errno::EISDIR));
        assert_eq!(t.remove(ROOT, "dir", true), Err(Errno::ENOTEMPTY));
        assert_eq!(t.remove(dir, "file", true), Err(Errno::ENOTDIR));
        assert_eq!(t.remove(file, "x", false), Err(Errno::ENOTDIR));
        t.verify();
    }

    #[test]
    fn the_last_name_erases_everything() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let block = t.write_ranges(file, &[(0, 100), (200, 100)]);
        t.link(file, ROOT, "other").unwrap();
        let before = t.attr(file);
        t.remove(ROOT, "file", false).unwrap();
        assert_eq!(t.attr(file).nlink, 1);
        assert!(t.attr(file).ctime > before.ctime);
        t.remove(ROOT, "other", false).unwrap();
        assert_eq!(t.ns.attr(file), Err(Errno::ESTALE));
        assert_eq!((t.ns.figures().inodes, t.ns.figures().bytes, t.ns.garbage()), (1, 0, Ok(1)));
        assert_eq!(t.ns.check_read_block(t.context.now, file, block), Err(Errno::ESTALE));
        t.verify();
    }

    #[test]
    fn an_open_file_lives_until_the_last_close_on_any_session() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        t.write_inline(file, 0, b"still here").unwrap();
        let one = t.context.session;
        let two = t.join();
        t.open(file).unwrap();
        t.context.session = two;
        t.open(file).unwrap();
        t.remove(ROOT, "file", false).unwrap();
        t.close(file);
        assert_eq!(t.layout(file, 0, 10).inline, b"still here");
        t.verify();
        let now = t.context.now;
        assert!(t.ns.end_session(now, one).unwrap().is_empty());
        assert_eq!(t.ns.attr(file), Err(Errno::ESTALE));
        assert_eq!(t.ns.figures().orphans, 0);
        t.settle();
        t.verify();
    }

    #[test]
    fn a_file_of_many_extents_goes_in_the_background() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let ranges: Vec<(u64, u32)> = (0..3_000u64).map(|index| (index * 8192, 100)).collect();
        t.write_ranges(file, &ranges);
        t.remove(ROOT, "file", false).unwrap();
        assert_eq!(t.ns.attr(file), Err(Errno::ESTALE));
        assert_eq!(t.ns.figures().orphans, 1);
        t.verify();
        let now = t.context.now;
        assert_eq!(t.ns.background(now, 1_000), Ok(true));
        t.verify();
        t.settle();
        assert_eq!((t.ns.figures().orphans, t.ns.figures().bytes, t.ns.garbage()), (0, 0, Ok(1)));
        t.verify();
    }

    #[test]
    fn an_orphan_is_reclaimed_from_where_the_last_step_ended() {
        let mut t = Fixture::new();
        let file = t.file(ROOT, "file");
        let ranges: Vec<(u64, u32)> = (0..3_000u64).map(|index| (index * 8192, 100)).collect();
        t.write_ranges(file, &ranges);
        t.remove(ROOT, "file", false).unwrap();
        let now = t.context.now;
        let end_of = |index: u64| Some((file, index * 8192 + 100));
        assert_eq!(t.ns.background(now, 500), Ok(true));
        assert_eq!(t.ns.reclaimed, end_of(499));
        assert_eq!(t.ns.background(now, 500), Ok(true));
        assert_eq!(t.ns.reclaimed, end_of(999), "the first five hundred graves were not crossed");
        // Should the place ever be wrong: what is before it goes, too.
        t.ns.reclaimed = end_of(2_000);
        t.settle();
        assert_eq!((t.ns.figures().orphans, t.ns.reclaimed, t.ns.garbage()), (0, None, Ok(1)));
        t.verify();
    }
}
