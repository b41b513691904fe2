//! Mode-bit checks for squashed callers.
//!
//! Ordinary callers were checked by their client's kernel (`default_permissions`), which knows their groups and
//! capabilities. A squashed root was let pass by it as root; here he is nobody: no supplementary group, no capability.

use flexfs_wire::attr::{S_ISGID, S_ISVTX, SetAttr, SetTime};
use flexfs_wire::errno::Errno;

use super::context::Context;
use super::record::Inode;

/// May be read, or listed.
pub(super) const READ: u32 = 4;
/// May be written, or names in it made and removed.
pub(super) const WRITE: u32 = 2;
/// Names in it may be looked up.
pub(super) const SEARCH: u32 = 1;

impl Context {
    /// Whether the caller may do all of `wanted` to an inode.
    ///
    /// # Errors
    /// `EACCES`.
    pub(super) fn check(&self, inode: &Inode, wanted: u32) -> Result<(), Errno> {
        if !self.is_squashed() {
            return Ok(());
        }
        let shift = match () {
            () if self.caller.uid == inode.uid => 6,
            () if self.caller.gid == inode.gid => 3,
            () => 0,
        };
        if (inode.mode >> shift) & wanted == wanted { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// Whether the caller may take a name out of a directory (`unlink(2)`: the sticky bit).
    ///
    /// # Errors
    /// `EACCES`, `EPERM`.
    pub(super) fn check_removal(&self, dir: &Inode, victim: &Inode) -> Result<(), Errno> {
        self.check(dir, WRITE | SEARCH)?;
        let sticky = dir.mode & S_ISVTX != 0;
        if self.is_squashed() && sticky && self.caller.uid != dir.uid && self.caller.uid != victim.uid {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    /// Whether the caller may change attributes (`chmod(2)`, `chown(2)`, `utimensat(2)`, `truncate(2)`).
    ///
    /// # Errors
    /// `EACCES`, `EPERM`.
    pub(super) fn check_change(&self, inode: &Inode, change: &SetAttr) -> Result<(), Errno> {
        if !self.is_squashed() {
            return Ok(());
        }
        let is_owner = self.caller.uid == inode.uid;
        let keeps_owner = change.uid.is_none_or(|uid| is_owner && uid == inode.uid);
        let keeps_group =
            change.gid.is_none_or(|gid| is_owner && (gid == inode.gid || gid == self.caller.gid));
        if !keeps_owner || !keeps_group || (change.mode.is_some() && !is_owner) {
            return Err(Errno::EPERM);
        }
        if change.size.is_some() {
            self.check(inode, WRITE)?;
        }
        let times = [change.atime, change.mtime, change.ctime];
        if !is_owner && times.iter().flatten().any(|time| matches!(time, SetTime::At(_))) {
            return Err(Errno::EPERM);
        }
        if !is_owner && times.iter().any(Option::is_some) {
            self.check(inode, WRITE)?;
        }
        Ok(())
    }

    /// The mode that the caller may give a file of this group: a program that runs as a group is made by its members only
    /// (`chmod(2)`; `inode(7)`, "The set-group-ID bit").
    pub(super) fn without_foreign_set_gid(&self, mode: u32, gid: u32) -> u32 {
        let is_foreign = (self.is_squashed() && self.caller.gid != gid) || (self.is_guarded() && gid == 0);
        if is_foreign { mode & !S_ISGID } else { mode }
    }

    /// Whether a change of content by this caller takes set-uid and set-gid away, where the kernel does not say so
    /// (`fallocate(2)`, `copy_file_range(2)`): it does, but root's.
    pub(super) fn kills_privileges(&self) -> bool {
        self.caller.uid != 0
    }

    /// Whether the caller owns an inode.
    ///
    /// # Errors
    /// `EPERM`.
    pub(super) fn check_owner(&self, inode: &Inode) -> Result<(), Errno> {
        if self.is_squashed() && self.caller.uid != inode.uid { Err(Errno::EPERM) } else { Ok(()) }
    }
}
