//! What small files hold, given to the kernel when they are opened (`data::ready`).

use std::sync::Arc;

use super::args::OpenFlags;
use super::inode::Inode;
use super::recall::{Kernel, Told};
use super::state::Vfs;
use crate::data::OpenInfo;

impl Vfs {
    /// Whom to give pages to.
    pub fn know_kernel(&self, kernel: Arc<dyn Kernel>) {
        // There is one in the life of a mount.
        let _ = self.kernel.set(kernel);
    }

    /// All bytes of a file that is opened. Whether the kernel has them.
    pub(super) fn give(&self, inode: &Inode, flags: OpenFlags, bytes: &[u8]) -> bool {
        let is_paged = !flags.direct && self.passing.get().is_none();
        let kernel = self.kernel.get().filter(|_| is_paged);
        kernel.is_some_and(|kernel| kernel.fill_pages(inode.nodeid, bytes) == Told::Yes)
    }

    /// It was opened. Who reads it now does not ask: it counts as read.
    pub(super) fn note_given(&self, inode: &Arc<Inode>, flags: OpenFlags, info: &OpenInfo) {
        let Some(life) = info.given else { return };
        if self.remote.recalls().life() != life {
            // All leases became void on the way, and the kernel's pages of this file may have been dropped before.
            self.drop_filled(inode, 0..info.attr.size);
        }
        if !flags.no_atime {
            self.touch_atime(inode);
        }
    }
}
