//! The names and attributes of the null server: all there is of its file system.

use std::collections::{BTreeMap, HashMap};

use flexfs_wire::attr::SetAttr;
use flexfs_wire::errno::Errno;

use super::abi::{Attr, S_IFDIR, S_IFMT, S_IFREG};

/// Inode of the root.
pub(super) const ROOT: u64 = 1;
/// Transfer size `stat` shows.
const BLOCK_BYTES: u32 = 128 * 1024;

#[derive(Debug, Default)]
struct Node {
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: (u64, u32),
    /// Name to place in `order`.
    names: HashMap<Box<[u8]>, u64>,
    /// Entries in the order they were made: listings go on where they stopped, whatever has changed.
    order: BTreeMap<u64, (Box<[u8]>, u64)>,
}

/// All inodes.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: HashMap<u64, Node>,
    next: u64,
}

/// One line of a listing.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) place: u64,
    pub(super) name: &'a [u8],
    pub(super) attr: Attr,
}

impl Tree {
    /// An empty root.
    pub(super) fn new() -> Self {
        let root = Node { mode: S_IFDIR | 0o755, ..Node::default() };
        Self { nodes: HashMap::from([(ROOT, root)]), next: ROOT + 1 }
    }

    fn node(&self, ino: u64) -> Result<&Node, Errno> {
        self.nodes.get(&ino).ok_or(Errno::ENOENT)
    }

    fn node_mut(&mut self, ino: u64) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&ino).ok_or(Errno::ENOENT)
    }

    pub(super) fn lookup(&self, parent: u64, name: &[u8]) -> Result<Attr, Errno> {
        let node = self.node(parent)?;
        let place = node.names.get(name).ok_or(Errno::ENOENT)?;
        let (_, ino) = node.order.get(place).ok_or(Errno::EIO)?;
        self.attr(*ino)
    }

    pub(super) fn attr(&self, ino: u64) -> Result<Attr, Errno> {
        let node = self.node(ino)?;
        Ok(Attr {
            ino,
            size: node.size,
            blocks: node.size.div_ceil(512),
            atime: node.mtime.0,
            mtime: node.mtime.0,
            ctime: node.mtime.0,
            atimensec: node.mtime.1,
            mtimensec: node.mtime.1,
            ctimensec: node.mtime.1,
            mode: node.mode,
            nlink: if node.mode & S_IFMT == S_IFDIR { 2 } else { 1 },
            uid: node.uid,
            gid: node.gid,
            rdev: 0,
            blksize: BLOCK_BYTES,
            flags: 0,
        })
    }

    /// Makes an inode with a name. `mode` has the type bits, `owner` is user and group.
    pub(super) fn make(
        &mut self,
        parent: u64,
        name: &[u8],
        mode: u32,
        owner: (u32, u32),
    ) -> Result<Attr, Errno> {
        if mode & S_IFMT != S_IFDIR && mode & S_IFMT != S_IFREG {
            return Err(Errno::ENOSYS);
        }
        let ino = self.next;
        self.enter(parent, name, ino)?;
        self.next += 1;
        self.nodes.insert(ino, Node { mode, uid: owner.0, gid: owner.1, ..Node::default() });
        self.attr(ino)
    }

    fn enter(&mut self, parent: u64, name: &[u8], ino: u64) -> Result<(), Errno> {
        let node = self.node_mut(parent)?;
        if node.names.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        // Places 1 and 2 are "." and "..".
        let place = node.order.last_key_value().map_or(3, |(last, _)| last + 1);
        node.names.insert(name.into(), place);
        node.order.insert(place, (name.into(), ino));
        Ok(())
    }

    fn take(&mut self, parent: u64, name: &[u8]) -> Result<u64, Errno> {
        let node = self.node_mut(parent)?;
        let place = node.names.remove(name).ok_or(Errno::ENOENT)?;
        node.order.remove(&place).map(|(_, ino)| ino).ok_or(Errno::EIO)
    }

    /// Takes a name and its inode away; an open file keeps working, for its data is nowhere.
    pub(super) fn remove(&mut self, parent: u64, name: &[u8], folder: bool) -> Result<(), Errno> {
        let attr = self.lookup(parent, name)?;
        if folder && !self.node(attr.ino)?.order.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        let ino = self.take(parent, name)?;
        self.nodes.remove(&ino);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: (u64, &[u8]), to: (u64, &[u8])) -> Result<(), Errno> {
        let attr = self.lookup(from.0, from.1)?;
        if self.lookup(to.0, to.1).is_ok() {
            let replaced = self.take(to.0, to.1)?;
            self.nodes.remove(&replaced);
        }
        self.take(from.0, from.1)?;
        self.enter(to.0, to.1, attr.ino)
    }

    pub(super) fn change(&mut self, ino: u64, change: &SetAttr, now: (u64, u32)) -> Result<Attr, Errno> {
        let node = self.node_mut(ino)?;
        node.mode = change.mode.map_or(node.mode, |mode| node.mode & S_IFMT | mode);
        node.uid = change.uid.unwrap_or(node.uid);
        node.gid = change.gid.unwrap_or(node.gid);
        node.size = change.size.unwrap_or(node.size);
        node.mtime = now;
        self.attr(ino)
    }

    /// A write moves the end of the file.
    pub(super) fn grow(&mut self, ino: u64, end: u64, now: (u64, u32)) {
        // An unlinked file takes writes, too.
        if let Ok(node) = self.node_mut(ino) {
            node.size = node.size.max(end);
            node.mtime = now;
        }
    }

    /// Entries behind a place.
    pub(super) fn list(&self, ino: u64, place: u64) -> Result<impl Iterator<Item = Line<'_>>, Errno> {
        let entries = self.node(ino)?.order.range(place + 1..);
        Ok(entries.filter_map(|(place, (name, ino))| {
            Some(Line { place: *place, name, attr: self.attr(*ino).ok()? })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_live_and_listings_go_on() {
        let mut tree = Tree::new();
        let folder = tree.make(ROOT, b"d", S_IFDIR | 0o755, (1, 2)).unwrap().ino;
        for name in [b"a", b"b", b"c"] {
            tree.make(folder, name, S_IFREG | 0o644, (1, 2)).unwrap();
        }
        assert_eq!(tree.make(folder, b"a", S_IFREG, (0, 0)).err(), Some(Errno::EEXIST));
        assert_eq!(tree.make(folder, b"x", 0o120_777, (0, 0)).err(), Some(Errno::ENOSYS));
        assert_eq!(tree.remove(ROOT, b"d", true), Err(Errno::ENOTEMPTY));
        let first = tree.list(folder, 0).unwrap().next().unwrap().place;
        tree.remove(folder, b"b", false).unwrap();
        let rest: Vec<&[u8]> = tree.list(folder, first).unwrap().map(|line| line.name).collect();
        assert_eq!(rest, [b"c"]);
        tree.rename((folder, b"a"), (folder, b"c")).unwrap();
        assert_eq!(tree.list(folder, 0).unwrap().count(), 1);
        assert_eq!(tree.lookup(folder, b"a").err(), Some(Errno::ENOENT));
        tree.remove(folder, b"c", false).unwrap();
        assert_eq!(tree.remove(ROOT, b"d", true), Ok(()));
    }

    #[test]
    fn sizes_and_modes_change() {
        let mut tree = Tree::new();
        let ino = tree.make(ROOT, b"f", S_IFREG | 0o644, (1, 2)).unwrap().ino;
        tree.grow(ino, 100, (1, 0));
        tree.grow(ino, 50, (2, 0));
        let change = SetAttr { mode: Some(0o600), ..SetAttr::default() };
        let attr = tree.change(ino, &change, (3, 0)).unwrap();
        assert_eq!((attr.size, attr.mode, attr.mtime), (100, S_IFREG | 0o600, 3));
    }
}
