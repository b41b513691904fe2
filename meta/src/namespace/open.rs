//! Opening and closing: counted per session, so that an inode without a name lives as long as somebody has it open.

use flexfs_wire::errno::Errno;
use flexfs_wire::extent::Layout;
use flexfs_wire::id::Ino;
use flexfs_wire::message::Reply;
use flexfs_wire::time::Time;

use super::access::{READ, WRITE};
use super::context::Context;
use super::machine::Namespace;
use super::record::Inode;
use super::txn::{Effect, Txn};
use crate::engine::Store;

/// Extents up to which a layout comes along with the open.
pub(super) const OPEN_EXTENTS_MAX: u64 = 64;
/// Rows reclaimed at once when the last open of an orphan goes.
const CLOSE_BUDGET: usize = 512;

impl<S: Store> Namespace<S> {
    pub(super) fn open_inode(&mut self, context: &Context, ino: Ino, write: bool) -> Result<Reply, Errno> {
        let txn = self.begin(context.now);
        let inode = self.inode(&txn, ino)?;
        self.check_open(context, &inode, write)?;
        let reply = self.opened(&txn, &inode)?;
        self.opens.add(context.session, ino, 1);
        if write {
            self.opens.note_writer(context.session, ino);
        }
        Ok(reply)
    }

    pub(super) fn open_truncated(
        &mut self,
        context: &Context,
        txn: &mut Txn,
        ino: Ino,
        write: bool,
        kill_privileges: bool,
    ) -> Result<Reply, Errno> {
        let mut inode = self.inode(txn, ino)?;
        self.check_open(context, &inode, write)?;
        context.check(&inode, WRITE)?;
        self.resize(txn, &mut inode, 0)?;
        if kill_privileges || context.is_guarded() {
            inode.kill_privileges();
        }
        txn.set_inode(inode);
        txn.effects.push(Effect::Opened(ino, write));
        self.opened(txn, &inode)
    }

    pub(super) fn close_inode(&mut self, context: &Context, ino: Ino, count: u32) {
        if self.opens.remove(context.session, ino, count) {
            self.closed(context.now, ino);
        }
    }

    /// Nobody has it open any more.
    pub(super) fn closed(&mut self, now: Time, ino: Ino) {
        if self.is_recovering() {
            return;
        }
        self.orphans.set_unused(ino);
        if self.orphans.is_unused(ino)
            && let Err(error) = self.reclaim(now, ino, CLOSE_BUDGET)
        {
            // It stays on the list; the background goes on with it.
            tracing::warn!(%error, %ino, "an unlinked file could not be reclaimed yet");
        }
    }

    fn check_open(&self, context: &Context, inode: &Inode, write: bool) -> Result<(), Errno> {
        if inode.is_dir() && write {
            return Err(Errno::EISDIR);
        }
        if self.opens.is_full(context.session) {
            return Err(Errno::ENFILE);
        }
        // Somebody may open for execution only: that is not told apart from reading, and needs one of both.
        match (write, context.check(inode, READ)) {
            (true, _) => context.check(inode, WRITE),
            (false, Ok(())) => Ok(()),
            (false, Err(_)) => context.check(inode, super::access::SEARCH),
        }
    }

    fn opened(&self, txn: &Txn, inode: &Inode) -> Result<Reply, Errno> {
        Ok(Reply::Opened { attr: inode.attr(), layout: self.short_layout(txn, inode)? })
    }

    /// The layout of a file, where it is short enough to come along with an answer.
    pub(super) fn short_layout(&self, txn: &Txn, inode: &Inode) -> Result<Option<Layout>, Errno> {
        let short = inode.is_file() && inode.extents <= OPEN_EXTENTS_MAX;
        if short { self.layout(txn, inode, 0, u64::MAX).map(Some) } else { Ok(None) }
    }
}
