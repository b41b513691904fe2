//! Reading rows: first what the request itself has changed, then the caches, then the store.

use flexfs_wire::errno::Errno;
use flexfs_wire::id::{BlockId, Ino};
use flexfs_wire::name::Name;

use super::machine::Namespace;
use super::record::{BlockRecord, Cookie, DeadRange, Dentry, Inode, damaged, decode, encode};
use super::txn::{PendingBlock, Txn};
use crate::engine::{Store, key};

impl<S: Store> Namespace<S> {
    /// An inode that a client may name.
    ///
    /// # Errors
    /// `ESTALE` when it is gone, or an orphan that nobody has open.
    pub(super) fn inode(&mut self, txn: &Txn, ino: Ino) -> Result<Inode, Errno> {
        match self.any_inode(txn, ino)? {
            Some(inode) if inode.nlink > 0 || !self.orphans.is_unused(ino) => Ok(inode),
            Some(_) | None => Err(Errno::ESTALE),
        }
    }

    /// A directory that a client may name.
    ///
    /// # Errors
    /// As [`Self::inode`], and `ENOTDIR`.
    pub(super) fn dir(&mut self, txn: &Txn, ino: Ino) -> Result<Inode, Errno> {
        let inode = self.inode(txn, ino)?;
        if inode.is_dir() { Ok(inode) } else { Err(Errno::ENOTDIR) }
    }

    /// A directory in which names can be made: not a removed one.
    pub(super) fn living_dir(&mut self, txn: &Txn, ino: Ino) -> Result<Inode, Errno> {
        let inode = self.dir(txn, ino)?;
        if inode.nlink > 0 { Ok(inode) } else { Err(Errno::ENOENT) }
    }

    /// A regular file.
    ///
    /// # Errors
    /// `EISDIR`, `EINVAL` for other kinds.
    pub(super) fn file(&mut self, txn: &Txn, ino: Ino) -> Result<Inode, Errno> {
        let inode = self.inode(txn, ino)?;
        match inode {
            _ if inode.is_file() => Ok(inode),
            _ if inode.is_dir() => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    /// An inode, used or not.
    pub(super) fn any_inode(&mut self, txn: &Txn, ino: Ino) -> Result<Option<Inode>, Errno> {
        if let Some(pending) = txn.inodes.get(&ino) {
            return Ok(*pending);
        }
        self.committed_inode(ino)
    }

    /// An inode as it stands in the store.
    pub(super) fn committed_inode(&mut self, ino: Ino) -> Result<Option<Inode>, Errno> {
        if let Some(inode) = self.inodes.get(&ino) {
            return Ok(Some(inode));
        }
        let Some(row) = self.store.get(&key::inode(ino))? else { return Ok(None) };
        let inode = Inode::decode(ino, &row)?;
        self.inodes.insert(ino, inode);
        Ok(Some(inode))
    }

    /// An inode that an entry names: it must be there.
    pub(super) fn named_inode(&mut self, txn: &Txn, ino: Ino) -> Result<Inode, Errno> {
        self.any_inode(txn, ino)?.ok_or_else(|| damaged("an entry names an inode that is not there"))
    }

    /// The entry of a name.
    pub(super) fn dentry(&mut self, txn: &Txn, dir: Ino, name: &Name) -> Result<Option<Dentry>, Errno> {
        let place = (dir, name.clone());
        if let Some(pending) = txn.dentries.get(&place) {
            return Ok(*pending);
        }
        if let Some(dentry) = self.dentries.get(&place) {
            return Ok(Some(dentry));
        }
        let Some(row) = self.store.get(&key::dentry(dir, name.as_bytes()))? else { return Ok(None) };
        let dentry: Dentry = decode(&row)?;
        self.dentries.insert(place, dentry);
        Ok(Some(dentry))
    }

    /// The inline part of a file or the target of a symlink.
    pub(super) fn data(&self, txn: &Txn, ino: Ino) -> Result<Vec<u8>, Errno> {
        if let Some(pending) = txn.data.get(&ino) {
            return Ok(pending.clone().unwrap_or_default());
        }
        Ok(self.store.get(&key::data(ino))?.unwrap_or_default())
    }

    /// Ranges whose old extents are dead.
    pub(super) fn dead_ranges(&self, txn: &Txn, inode: &Inode) -> Result<Vec<DeadRange>, Errno> {
        if !inode.dead {
            return Ok(Vec::new());
        }
        if let Some(pending) = txn.dead.get(&inode.ino) {
            return Ok(pending.clone());
        }
        let row = self.store.get(&key::dead(inode.ino))?;
        row.map_or_else(|| Ok(Vec::new()), |row| decode(&row))
    }

    /// A block's row.
    pub(super) fn block(&self, txn: &Txn, block: BlockId) -> Result<Option<BlockRecord>, Errno> {
        if let Some(pending) = txn.blocks.get(&block) {
            return Ok(Some(pending.record));
        }
        let row = self.store.get(&key::block(block))?;
        row.map(|row| decode(&row)).transpose()
    }

    /// A block's row, to be changed.
    pub(super) fn block_mut<'t>(
        &self,
        txn: &'t mut Txn,
        block: BlockId,
    ) -> Result<&'t mut BlockRecord, Errno> {
        if !txn.blocks.contains_key(&block) {
            let record =
                self.block(txn, block)?.ok_or_else(|| damaged("an extent names an unknown block"))?;
            txn.blocks.insert(block, PendingBlock { record, listed: record.garbage });
        }
        let pending = txn.blocks.get_mut(&block).ok_or_else(|| damaged("block"))?;
        Ok(&mut pending.record)
    }

    /// Live bytes of a block in a file that was not its first one.
    pub(super) fn share(&self, txn: &Txn, block: BlockId, ino: Ino) -> Result<u64, Errno> {
        if let Some(pending) = txn.shares.get(&(block, ino)) {
            return Ok(*pending);
        }
        let row = self.store.get(&key::share(block, ino))?;
        row.map_or(Ok(0), |row| decode(&row))
    }
}

impl Txn {
    /// Enters a name. The directory's size and times follow; a subdirectory's link in it is the caller's.
    pub(super) fn enter(&mut self, dir: &mut Inode, name: &Name, ino: Ino, kind: u32) {
        let cookie = dir.next_cookie;
        dir.next_cookie += 1;
        dir.size += 1;
        self.touch_dir(dir);
        self.place(dir.ino, name, Dentry { ino, kind, cookie });
    }

    /// Takes a name out.
    pub(super) fn strike(&mut self, dir: &mut Inode, name: &Name, dentry: &Dentry) {
        dir.size = dir.size.saturating_sub(1);
        self.touch_dir(dir);
        self.dentries.insert((dir.ino, name.clone()), None);
        self.batch.remove(key::cookie(dir.ino, dentry.cookie));
    }

    /// Puts an entry at its place in both tables.
    pub(super) fn place(&mut self, dir: Ino, name: &Name, dentry: Dentry) {
        let Dentry { ino, kind, cookie } = dentry;
        self.batch.put(key::cookie(dir, cookie), encode(&Cookie { ino, kind, name: name.clone() }));
        self.dentries.insert((dir, name.clone()), Some(dentry));
    }

    /// An entry came or went: the directory's times.
    pub(super) fn touch_dir(&mut self, dir: &mut Inode) {
        if self.is_told {
            // They come in any order, and the session shows the directory as it is after all of them.
            (dir.mtime, dir.ctime) = (dir.mtime.touched(self.now), dir.ctime.touched(self.now));
        } else {
            (dir.mtime, dir.ctime) = (self.now, self.now);
        }
        dir.version += 1;
    }
}
