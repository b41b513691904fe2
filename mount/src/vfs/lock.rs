//! `flock(2)` and `fcntl(2)` locks: all of them live at the server, and hold across machines.

use flexfs_wire::errno::Errno;
use flexfs_wire::message::{Lock, LockKind, Reply, Request};

use super::inode::Owner;
use super::state::{Ctx, Vfs, misfit};

impl Vfs {
    /// `F_GETLK`: the lock in the way, kind `Unlock` if none is.
    ///
    /// # Errors
    /// `ESTALE` and those of the link.
    pub async fn get_lock(&self, ctx: Ctx<'_>, nodeid: u64, lock: Lock) -> Result<Lock, Errno> {
        let node = self.inodes.get(nodeid)?.node;
        match self.call(ctx, Request::TestLock { node, lock }).await? {
            Reply::Locked(lock) => Ok(lock),
            other => Err(misfit(&other)),
        }
    }

    /// Takes, changes or releases a lock. With `wait` it may take for ever, or until the caller is interrupted.
    ///
    /// # Errors
    /// `EAGAIN` when it is in the way, `EDEADLK`, `EINTR`, `ENOLCK`.
    pub async fn set_lock(
        &self,
        ctx: Ctx<'_>,
        nodeid: u64,
        fh: u64,
        lock: Lock,
        wait: bool,
    ) -> Result<(), Errno> {
        let inode = self.inodes.get(nodeid)?;
        let owner = Owner { family: lock.family, owner: lock.owner, fh };
        if lock.kind != LockKind::Unlock {
            // Before the call: if it is given up, the lock may have been granted all the same, and goes with the file.
            inode.add_owner(owner);
        }
        self.call_done(ctx, Request::Lock { node: inode.node, lock, wait }).await?;
        if lock.kind == LockKind::Unlock && lock.start == 0 && lock.end == u64::MAX {
            inode.take_owners(|one| one.family == owner.family && one.owner == owner.owner);
        }
        Ok(())
    }
}
