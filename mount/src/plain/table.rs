//! Which inodes are open in which way. The kernel has an inode in one mode: as long as one descriptor goes through its pages none
//! may pass through, and the other way round (fs/fuse/iomode.c). It counts a descriptor from the answer to OPEN to before it
//! sends RELEASE, so what is counted here is never less. Pure.

use std::collections::HashMap;

use flexfs_wire::id::Ino;
use flexfs_wire::seal::Node;

/// How a file was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Through the kernel's pages; `wanted`: nobody puts a plain file together yet, and somebody should.
    Cached { wanted: bool },
    /// By the plain file, with this number.
    Passed(i32),
}

/// Inodes that are open, or have a plain file: `F` is such a file, `B` its number with the kernel.
#[derive(Debug)]
pub(super) struct Table<F, B> {
    inodes: HashMap<Ino, Use<F, B>>,
    passed: usize,
}

#[derive(Debug)]
struct Use<F, B> {
    node: Node,
    cached: u32,
    passed: u32,
    /// A plain file is put together, or was tried to and is not tried again while the inode is open.
    is_tried: bool,
    ready: Option<F>,
    backing: Option<(B, i32)>,
}

impl<F: Clone, B> Default for Table<F, B> {
    fn default() -> Self {
        Self { inodes: HashMap::new(), passed: 0 }
    }
}

impl<F: Clone, B> Table<F, B> {
    /// One more open of a file. `number` gives a plain file its number; without one the file is not passed through.
    pub(super) fn open(&mut self, node: Node, number: impl FnOnce(&F) -> Option<(B, i32)>) -> Mode {
        let found = self.inodes.entry(node.ino).or_insert_with(|| Use {
            node,
            cached: 0,
            passed: 0,
            is_tried: false,
            ready: None,
            backing: None,
        });
        if found.cached == 0 && found.backing.is_none() {
            found.backing = found.ready.as_ref().and_then(number);
        }
        if let Some((_, number)) = found.backing {
            found.passed += 1;
            self.passed += 1;
            return Mode::Passed(number);
        }
        found.cached += 1;
        let wanted = found.ready.is_none() && !std::mem::replace(&mut found.is_tried, true);
        Mode::Cached { wanted }
    }

    /// One open less.
    pub(super) fn close(&mut self, ino: Ino, was_passed: bool) {
        let Some(found) = self.inodes.get_mut(&ino) else { return };
        if was_passed {
            found.passed = found.passed.saturating_sub(1);
            self.passed = self.passed.saturating_sub(1);
            if found.passed == 0 {
                // Open descriptors had kept the file; now the number goes, too.
                found.backing = None;
            }
        } else {
            found.cached = found.cached.saturating_sub(1);
        }
        if found.cached == 0 && found.passed == 0 && found.ready.is_none() {
            self.inodes.remove(&ino);
        }
    }

    /// A plain file is whole: later opens may pass through.
    pub(super) fn set_ready(&mut self, node: Node, file: F) {
        let fresh = || Use { node, cached: 0, passed: 0, is_tried: true, ready: None, backing: None };
        self.inodes.entry(node.ino).or_insert_with(fresh).ready = Some(file);
    }

    /// The plain file of an inode is to go. False: it is in use.
    pub(super) fn take_ready(&mut self, ino: Ino) -> bool {
        let Some(found) = self.inodes.get_mut(&ino) else { return true };
        if found.passed > 0 {
            return false;
        }
        found.ready = None;
        found.is_tried = false;
        if found.cached == 0 {
            self.inodes.remove(&ino);
        }
        true
    }

    /// Whether the inode has a plain file.
    pub(super) fn is_ready(&self, ino: Ino) -> bool {
        self.inodes.get(&ino).is_some_and(|found| found.ready.is_some())
    }

    /// Whether a descriptor of the inode passes through.
    pub(super) fn is_passed(&self, ino: Ino) -> bool {
        self.inodes.get(&ino).is_some_and(|found| found.passed > 0)
    }

    /// Descriptors that pass through.
    pub(super) fn passed(&self) -> usize {
        self.passed
    }

    /// Inodes of which a descriptor passes through, and their plain files.
    pub(super) fn all_passed(&self) -> Vec<(Node, F)> {
        let passed = self.inodes.values().filter(|found| found.passed > 0);
        passed.filter_map(|found| Some((found.node, found.ready.clone()?))).collect()
    }

    /// No plain file is used for opens from now on.
    pub(super) fn forget_ready(&mut self) {
        for found in self.inodes.values_mut().filter(|found| found.passed == 0) {
            found.ready = None;
        }
        self.inodes.retain(|_, found| found.cached > 0 || found.passed > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Node = Node { ino: Ino(7), seal: 1 };

    #[test]
    fn one_mode_at_a_time() {
        let mut table = Table::<&str, ()>::default();
        let number = |file: &&str| (*file == "plain").then_some(((), 5));
        assert_eq!(table.open(NODE, number), Mode::Cached { wanted: true });
        assert_eq!(table.open(NODE, number), Mode::Cached { wanted: false }, "asked for once");
        table.set_ready(NODE, "plain");
        assert_eq!(table.open(NODE, number), Mode::Cached { wanted: false }, "others go through pages still");
        for _ in 0..3 {
            table.close(NODE.ino, false);
        }
        assert_eq!(table.open(NODE, number), Mode::Passed(5));
        // The number is asked for once as long as somebody has it.
        assert_eq!(table.open(NODE, |_| panic!("has one")), Mode::Passed(5));
        assert!(table.is_passed(NODE.ino) && !table.take_ready(NODE.ino) && table.passed() == 2);
        assert_eq!(table.all_passed(), [(NODE, "plain")]);
        table.close(NODE.ino, true);
        table.forget_ready();
        assert_eq!(table.open(NODE, |_| None), Mode::Passed(5), "never a second mode");
        table.close(NODE.ino, true);
        table.close(NODE.ino, true);
        assert_eq!(table.open(NODE, |_| None), Mode::Cached { wanted: false }, "no number, no passing");
        table.close(NODE.ino, false);
        assert!(table.take_ready(NODE.ino) && table.inodes.is_empty());
    }

    #[test]
    fn closed_inodes_without_a_file_leave_nothing() {
        let mut table = Table::<&str, ()>::default();
        table.open(NODE, |_| None);
        table.close(NODE.ino, false);
        assert!(table.inodes.is_empty());
        table.set_ready(NODE, "plain");
        table.forget_ready();
        assert!(table.inodes.is_empty());
        table.close(NODE.ino, true);
    }
}
